"""How the model of an evaluation is started again in a process of its own, where it has answered nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress

from odebench.errors import ModelProcessError, OdebenchError
from odebench.evaluation.checks.state import Start
from odebench.evaluation.loading import LoadedModels, weights_of
from odebench.evaluation.plan import Plan
from odebench.io.files import sha256_file
from odebench.io.text import first_line
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Classifier
from odebench.model.process import ModelProcess
from odebench.protocol.recipe import find_weights


def start_of_plan(plan: Plan, models: LoadedModels) -> Start:
    """Starts the model of a plan from its recipe or its entry's code, and the weights file that `models` were loaded
    from. To be called after `load_models`, which trains or fetches what is missing.

    What it returns raises ModelProcessError where that file is not at hand any more.
    """

    def start() -> ModelProcess:
        try:
            weights = weights_of(plan) or find_weights(plan.recipe)
            found = None if weights is None else sha256_file(weights)
        except (OdebenchError, OSError) as error:
            raise ModelProcessError(f"the weights file cannot be read again: {first_line(error)}") from error
        if weights is None or found != models.weights_sha256:
            raise ModelProcessError("the weights file that the model was loaded from is not there any more")
        return ModelProcess(Blueprint.of_file(plan.origin, weights, models.classifier))

    return start


@contextmanager
def started_early(start: Start) -> Iterator[Start]:
    """A start whose process begins now, beside the attack, so that nobody waits for it later; it ends with the context.

    What it returns can be entered once.
    """
    made: list[AbstractContextManager[ModelProcess]] = []

    def enter() -> ModelProcess:
        try:
            made.append(start())
            return made[0].__enter__()
        except ModelProcessError:
            raise
        except Exception as error:  # whatever a module's copy may raise: the attack goes on
            raise ModelProcessError(f"no fresh model could be started: {first_line(error)}") from error

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(enter)
        try:
            yield lambda: _Started(running)
        finally:
            while not running.done():  # until it is closed: it may not have begun yet
                for process in made:
                    process.__exit__(None, None, None)
                wait([running], timeout=0.1)
            with suppress(ModelProcessError):
                running.result().close()


class _Started(AbstractContextManager[ModelProcess]):
    def __init__(self, running: Future[ModelProcess]) -> None:
        self.running = running

    def __enter__(self) -> ModelProcess:
        return self.running.result()

    def __exit__(self, *_: object) -> None:
        self.running.result().close()


def start_of_module(classifier: Classifier) -> Start:
    """Starts a copy of a module that was handed over, as it is now.

    To be called before the module is asked anything: right after the classifier is made and before the preflight, whose
    questions a module could remember. What it returns raises ModelProcessError where the module cannot be pickled.
    """
    try:
        blueprint = Blueprint.of_module(classifier)
    except ModelProcessError as error:
        failure = error

        def fail() -> ModelProcess:
            raise failure

        return fail
    return lambda: ModelProcess(blueprint)
