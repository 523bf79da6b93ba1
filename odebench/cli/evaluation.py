"""What `odebench run`, `diagnose` and `judge` share: from a request to its result, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from odebench.cli.console import ScreenProgress, write_text
from odebench.cli.trust import trusted_model
from odebench.cli.verbosity import Verbosity, verbosity
from odebench.cli.warnings import before_run, few_images
from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.model_reference import ModelReference
from odebench.evaluation.plan import DEFAULT_N, EvaluationRequest, Split, plan, threat_model
from odebench.io.remote_weights import weights_file
from odebench.result.file import result_path

if TYPE_CHECKING:
    from odebench.attack.candidate_file import Candidates
    from odebench.dataset import DatasetDefinition
    from odebench.result.schema import Result


@dataclass(frozen=True)
class Evaluated:
    """A result, its file, and whether it is new."""

    result: Result
    path: Path
    new: bool

    def show(self, show: Callable[[Result], None], *, as_json: bool, again: str = "runs it again") -> None:
        """Prints the result as JSON, else with `show` and the path of its file."""
        if as_json:
            from odebench.result.file import result_json

            write_text(result_json(self.result))
            return
        show(self.result)
        print(f"result: {self.path}" if self.new else f"result: {self.path} (there already; --force {again})")


@dataclass(frozen=True)
class Evaluator:
    """Evaluates on one data set and device, with a bar on the screen, and writes results below a folder."""

    dataset: str
    data_dir: Path | None
    device: str
    results: Path
    force: bool
    progress: ScreenProgress

    def model(self, name: str, weights: str | None, *, trust: bool) -> ModelReference:
        """The model that a name stands for, with weights from a file or address. Raises UsageError, RemoteError."""
        file = None if weights is None else weights_file(weights, progress=self.progress)
        return trusted_model(name, weights=file, trust=trust)

    def describe(self) -> DatasetDefinition:
        """What is known of the data set before it is loaded. Raises UsageError, DatasetError."""
        return describe_dataset(self.dataset, data_dir=self.data_dir, progress=self.progress)

    def images(self, described: DatasetDefinition, split: Split) -> int:
        """How many images a split has: as its definition says, else by loading it. Raises DatasetError."""
        if split in described.sizes:
            return described.sizes[split]
        from odebench.evaluation.evaluate import data_split

        data = load_dataset(self.dataset, data_dir=self.data_dir, progress=self.progress)
        return len(data_split(data, split))

    def checked(self, request: EvaluationRequest) -> DatasetDefinition:
        """What is known of the data set, for which norm and epsilons of the request are checked."""
        described = self.describe()
        threat_model(request.attack, described, norm=request.norm, epsilons=request.epsilons)
        return described

    def run(
        self,
        request: EvaluationRequest,
        described: DatasetDefinition,
        *,
        candidates: Candidates | None = None,
        address: str | None = None,
        save_candidates: Path | None = None,
        default_n: int = DEFAULT_N,
    ) -> Evaluated:
        """Runs a request. Torch is imported here, after everything in the options has been checked."""
        images = request.images
        total = self.images(described, images.split)
        chosen = images.n is not None
        if images.n is None and 0 <= images.offset < total:
            request = replace(request, images=replace(images, n=min(default_n, total - images.offset)))
        planned = plan(request, described, total=total)
        from odebench.evaluation.environment import one_thread_if_small, usable_device
        from odebench.evaluation.evaluate import run

        usable_device(self.device)
        one_thread_if_small(described.image_shape)
        data = load_dataset(self.dataset, data_dir=self.data_dir, progress=self.progress)
        if self.force or not result_path(self.results, planned.evaluation).exists():
            for line in before_run(planned):
                self.progress.warn(line)
        result, path, new = run(
            planned,
            data,
            results=self.results,
            force=self.force,
            candidates=candidates,
            address=address,
            save_candidates=save_candidates,
            device=self.device,
            progress=self.progress,
        )
        for line in few_images(planned.evaluation.dataset.n, total=total) if new and chosen else ():
            self.progress.warn(line)
        if verbosity() is Verbosity.VERBOSE:
            for stage in result.cost.stages:
                passes = f"{stage.forward:.4g} forward and {stage.backward:.4g} backward passes per image"
                self.progress.say(f"{stage.name}: {passes}, {stage.seconds:.3g} s")
            self.progress.say(f"weights: sha256 {result.found.weights_sha256}")
        return Evaluated(result, path, new)
