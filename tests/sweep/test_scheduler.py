"""Sweeps on real clusters: what is done, what is not done twice, who may die, and what is said of failures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from cpu_time import seconds_of_children
from result_factory import without_times
from rich.console import Console
from sweep_desk import GOOD, Desk, contents, desk, own_grid, place_in, wait_for, workers_of

from odebench.cli import _exit_code
from odebench.cli.console import duration
from odebench.cli.sweep import conclude
from odebench.cli.watch import Watch
from odebench.errors import OdebenchError
from odebench.io.versions import package_versions
from odebench.protocol.recipe import weights_path
from odebench.result.file import read_result, result_json
from odebench.sweep.cluster import local_cluster, remote_cluster
from odebench.sweep.protocol_cells import read_grid
from odebench.sweep.scheduler import Cluster, State, SweepError, Task, _conduct, sweep, tasks_of, workspace_of
from odebench.sweep.task import TaskError, evaluate, prepare, train

psutil = pytest.importorskip("psutil")

BAD = """\
  - name: broken
    models: [ode-stemless]
    horizons: [0.5]
    train_seeds: [0]
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: fgsm}, {name: noise}]
"""
LONGER = GOOD.replace("[0.5]", "[0.5, 1, 2]").replace("train_seeds: [0]", "train_seeds: [0, 1]").replace("noise", "pgd")


# --- a sweep in which some things fail ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Swept:
    desk: Desk
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep with a model that diverges and a result that is torn."""
    place = desk(tmp_path_factory.mktemp("sweep"))
    protocol = place.protocol(GOOD, BAD)
    torn = place.results / "ode-ablated"
    torn.mkdir(parents=True)
    (cell,) = (cell for cell in read_grid(protocol).cells if cell.title == "ode-ablated seed 0, noise in linf")
    (torn / f"digits-noise-linf-{cell.run_key[:16]}.json").write_text('{"schema_version": 1, "run', encoding="utf-8")
    return Swept(place, *place.type("sweep", protocol, "--workers", "2"))


def test_what_can_be_done_is_done_and_the_rest_named_with_its_reason(swept: Swept) -> None:
    assert swept.code == 1, swept.err
    assert swept.out == "tiny 1: 3 results written to results, 3 failed\n"
    last = [line for line in swept.err.splitlines() if line.startswith("odebench: failed: ")]
    assert len(last) == 3
    diverged = "training ode-stemless T=0.5 seed 0 failed: training OdeNet T=0.5 seed 0 diverged in epoch 1"
    assert {line.split(": ")[2] for line in last if diverged in line} == {
        "ode-stemless T=0.5 seed 0, noise in linf",
        "ode-stemless T=0.5 seed 0, fgsm in linf",
    }
    assert sum("ode-ablated seed 0, noise in linf: " in line and "is not whole JSON" in line for line in last) == 1
    assert "Traceback" not in swept.err
    left = [path.name for path in swept.desk.scratch.iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == [], "torch has one empty folder per user"


def test_progress_is_plain_lines_where_there_is_no_terminal(swept: Swept) -> None:
    lines = [line for line in swept.err.splitlines() if line.startswith("[")]
    assert len(lines) == 6 + 3 - 2, "what failed with its training has no line of its own"
    assert all(re.match(r"\[\d/6(, [\d.]+ (s|min) left)?\] [a-z].*: (done|failed: .*)$", line) for line in lines)
    assert sum("diverged" in line for line in lines) == 1
    others = [line for line in swept.err.splitlines() if not line.startswith(("[", "odebench: failed: "))]
    first = "6 evaluations to do; first 3 trainings: neither published nor cached"
    assert others == [first], "distributed says nothing of its own"


def test_a_reason_that_all_cells_share_is_said_once(tmp_path: Path) -> None:
    place = desk(tmp_path)
    code, out, err = place.type("sweep", "cifar10-jpeg", "--workers", "1", "--data-dir", "nothing-here")
    cells = len(read_grid("cifar10-jpeg").evaluations)
    assert (code, out) == (1, f"cifar10-jpeg 3: 0 results written to results, {cells} failed\n")
    said = [line for line in err.splitlines() if "nothing-here (--data-dir) does not exist" in line]
    assert len(said) == 2, err
    assert said[0].startswith(f"[0/{cells}] looking at cifar10-jpeg: failed: ")
    assert said[1].startswith(f"odebench: failed: all {cells} cells: looking at cifar10-jpeg failed: ")
    assert err.splitlines()[0].startswith(f"{cells} evaluations to do; first ")
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize(("there", "named"), [(0, ["all 2 cells"]), (79, ["cell a", "cell b"])])
def test_cells_are_named_unless_none_was_done(there: int, named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {key: Task(key, "evaluation", f"cell {key}", (), 1.0, ()) for key in "ab"}
    with pytest.raises(typer.Exit):
        conclude(State(tasks, there, failed={"a": "why", "b": "why"}), "tiny 1", Path("results"), publish=False)
    assert capsys.readouterr().err.splitlines() == [f"odebench: failed: {name}: why" for name in named]


def test_a_reason_does_not_hang_on_the_order_of_messages() -> None:
    """That a task has failed may be heard after the same was heard of one that needs it."""

    class Future:
        status = "error"

        def __init__(self, *answers: bool) -> None:
            self.answers = list(answers)

        def done(self) -> bool:
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        def exception(self, timeout: float) -> TaskError:
            return TaskError("no such data")

    class Client:
        status = "running"
        futures: ClassVar = [Future(False, True), Future(True)]

        def subscribe_topic(self, topic: str, call: object) -> None: ...

        def submit(self, *given: object, **more: object) -> Future:
            return self.futures.pop(0)

    class Silent:
        def look(self, state: State) -> None: ...

        def done(self, task: Task, state: State) -> None: ...

        def say(self, line: str) -> None: ...

    tasks = {
        "data": Task("data", "data", "looking at it", (), 0.0, (print,)),
        "cell": Task("cell", "evaluation", "a cell", ("data",), 1.0, (print,)),
    }
    state = State(tasks, 0)
    _conduct(Client(), state, Silent())
    assert state.failed == {"data": "no such data", "cell": "looking at it failed: no such data"}


def test_a_cell_is_what_run_makes_of_it(swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from odebench.dataset import load_dataset
    from odebench.evaluation.evaluate import run

    monkeypatch.setenv("ODEBENCH_CACHE", str(tmp_path / "other"))
    cell = read_grid(swept.desk.protocol(GOOD)).cells[0]
    result, path, new = run(cell.plan, load_dataset("digits"), results=tmp_path / "results")
    stored = read_result(swept.desk.results / path.relative_to(tmp_path / "results"))
    assert new
    # The sweep trained the weights, this run found them and knows it, too.
    assert result_json(without_times(stored)) == result_json(without_times(result))
    assert stored.found.threads == 1


def test_a_second_start_does_nothing_and_says_so_without_torch(swept: Swept) -> None:
    for path in (swept.desk.results / "ode-ablated").glob("digits-noise-*.json"):
        path.unlink()
    protocol = swept.desk.protocol(GOOD)
    assert swept.desk.type("sweep", protocol, "--workers", "1")[:2] == (
        0,
        "tiny 1: 1 result written to results, 3 were there\n",
    )
    before = {path: path.stat().st_mtime_ns for path in swept.desk.folder.rglob("*") if path.is_file()}
    code = (
        "import sys; from odebench.cli import _exit_code\n"
        f"sys.argv = ['odebench', 'sweep', {protocol!r}]\n"
        "code = _exit_code(); assert 'torch' not in sys.modules and 'distributed' not in sys.modules; sys.exit(code)"
    )
    before_it, began = seconds_of_children(), time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=swept.desk.folder,
        env=swept.desk.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert seconds_of_children() - before_it < 5
    assert time.monotonic() - began < 60, "it waits for something"
    assert (said.returncode, said.stdout, said.stderr) == (
        0,
        "tiny 1: nothing to do: all 4 results are in results\n",
        "",
    )
    after = {path: path.stat().st_mtime_ns for path in swept.desk.folder.rglob("*") if path.is_file()}
    assert after == before


def test_what_is_published_in_a_clone_is_not_done_again(swept: Swept, tmp_path: Path) -> None:
    clone = desk(tmp_path / "clone")
    shutil.copytree(swept.desk.results, clone.folder / "leaderboard" / "results")
    protocol = clone.protocol(GOOD)
    where = clone.folder / "leaderboard" / "results"
    assert clone.type("sweep", protocol) == (0, f"tiny 1: nothing to do: all 4 results are in {where}\n", "")
    lost = next(where.rglob("*fgsm*.json"))
    (clone.results / lost.parent.name).mkdir(parents=True)
    lost.rename(clone.results / lost.parent.name / lost.name)
    said = f"tiny 1: nothing to do: all 4 results are there, 3 of them in {where}\n"
    assert clone.type("sweep", protocol) == (0, said, "")


# --- the graph ---------------------------------------------------------------------------------------------------


DISTILLED = GOOD.replace("[ode, ode-ablated]", "[kd-ode]").replace("noise", "worst-case")


def test_a_student_waits_for_its_teacher_and_a_cell_for_all_its_weights(tmp_path: Path) -> None:
    tasks, there = tasks_of(own_grid(tmp_path, DISTILLED), place_in(tmp_path))
    titles = {task.key: task.title for task in tasks.values()}
    needs = {task.title: [titles[key] for key in task.needs] for task in tasks.values()}
    assert there == 0
    assert needs == {
        "looking at digits": [],
        "training the teacher of kd-ode seed 0": ["looking at digits"],
        "training kd-ode T=0.5 seed 0": ["training the teacher of kd-ode seed 0"],
        "kd-ode T=0.5 seed 0, fgsm in linf": ["training kd-ode T=0.5 seed 0"],
        "kd-ode T=0.5 seed 0, worst-case (fast-2) in linf": [
            "training kd-ode T=0.5 seed 0",
            "training the teacher of kd-ode seed 0",
        ],
    }
    assert list(tasks) == sorted(tasks, key=lambda key: max([list(tasks).index(n) for n in tasks[key].needs] + [-1]))


def test_weights_that_are_there_are_not_trained_nor_their_teacher(tmp_path: Path) -> None:
    grid, place = own_grid(tmp_path, DISTILLED.replace("worst-case", "pgd")), place_in(tmp_path)
    path = weights_path(grid.cells[0].plan.recipe, place.cache / "weights")
    path.parent.mkdir(parents=True)
    path.touch()
    tasks, _ = tasks_of(grid, place)
    assert [task.kind for task in tasks.values()] == ["data", "evaluation", "evaluation"]


def test_the_time_left_is_the_work_left() -> None:
    tasks = {key: Task(key, "evaluation", key, (), work, ()) for key, work in (("a", 1.0), ("b", 3.0), ("c", 5.0))}
    state = State(tasks, 0, began=time.monotonic() - 10)
    assert state.seconds_left is None
    state.done.add("a")
    state.failed["c"] = "why"
    assert state.seconds_left == pytest.approx(30, rel=0.05)
    tasks["b"] = replace(tasks["b"], work=19.1)
    assert state.seconds_left is None, "a twentieth of the work tells how long the rest takes"


def test_the_table_shows_how_far_it_is() -> None:
    tasks = {key: Task(key, "evaluation", f"cell {key}", (), 1.0, ()) for key in "abc"}
    state = State(tasks, 0, done={"a"}, running={"b"})
    console = Console(width=60, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115

    class Shown:
        def update(self, table: Any) -> None:
            console.print(table)

    Watch("tiny 1", console, Shown()).look(state)  # type: ignore[arg-type]
    text = console.export_text()
    console.file.close()
    assert re.search(r"cells +1 +1 +0 +3", text)
    assert "cell b" in text
    assert "time left" in text
    assert [duration(s) for s in (0.1, 40, 700, 9000, 300000)] == ["1 s", "40 s", "12 min", "2.5 h", "3.5 days"]


# --- what a worker does ------------------------------------------------------------------------------------------


def test_a_task_computes_with_its_threads_and_folders_and_trains_once(tmp_path: Path) -> None:
    grid, place = own_grid(tmp_path, GOOD), place_in(tmp_path)
    recipe = grid.cells[0].plan.recipe
    train(recipe, place)
    path = weights_path(recipe, place.cache / "weights")
    first = path.stat().st_mtime_ns
    train(recipe, place)
    assert path.stat().st_mtime_ns == first
    evaluate(grid.cells[0].plan, place)
    assert len(list(place.results.rglob("*.json"))) == 1


def test_data_that_are_not_as_the_protocol_says_are_refused(tmp_path: Path) -> None:
    grid, place = own_grid(tmp_path, GOOD), place_in(tmp_path)
    part = next(iter(tasks_of(grid, place)[0].values())).call[1]
    prepare(part, grid.dataset, place)
    with pytest.raises(TaskError, match=r"shape \[1, 8, 8\] in 10 classes, the protocol says \[1, 9, 9\]"):
        prepare(part, replace(grid.dataset, image_shape=(1, 9, 9)), place)
    with pytest.raises(TaskError, match="500 test images; 600 from 0 on cannot be taken"):
        prepare((replace(part[0], n=600),), grid.dataset, place)


def test_a_worker_with_other_packages_says_so(tmp_path: Path) -> None:
    grid = own_grid(tmp_path, GOOD)
    place = replace(place_in(tmp_path), versions=(("torch", "1.0"),))
    with pytest.raises(TaskError, match=r"a worker has torch [\d.+a-z]+, the sweep began with 1\.0"):
        train(grid.cells[0].plan.recipe, place)
    assert package_versions()["python"] == sys.version.split()[0]


def test_whatever_is_raised_travels_as_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no\nway")

    monkeypatch.setattr("odebench.model.training.find_or_train", broken)
    grid = own_grid(tmp_path, GOOD)
    with pytest.raises(TaskError, match=r"^ZeroDivisionError: no way$"):
        train(grid.cells[0].plan.recipe, place_in(tmp_path))


# --- schedulers that cannot be worked with -----------------------------------------------------------------------


@dataclass
class Listener:
    lines: list[str] = field(default_factory=list)

    def look(self, state: State) -> None:
        pass

    def done(self, task: Task, state: State) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # distributed's
def test_a_worker_keeps_the_memory_of_its_tensors() -> None:
    def faults() -> int:
        import resource

        import torch

        def count() -> int:
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        def work() -> int:
            before = count()
            for _ in range(20):
                torch.ones(2**20).sum()
            return count() - before

        work()
        return work()

    with local_cluster(1, threads=1) as client:
        # twenty tensors of 4 MiB: 1,024 pages each, where each is fetched anew
        assert client.submit(faults).result(timeout=60) < 1024


@dataclass
class Silent:
    """A watcher that keeps what ended."""

    ended: list[str] = field(default_factory=list)

    def look(self, state: State) -> None:
        pass

    def done(self, task: Task, state: State) -> None:
        self.ended.append(task.key)

    def say(self, line: str) -> None:
        pytest.fail(line)


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # distributed's
def test_a_worker_that_is_stopped_loses_its_task_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stops(mark: str) -> None:
        import os
        import signal
        from pathlib import Path

        with Path(mark).open("a", encoding="utf-8") as file:
            file.write("begun ")
        if Path(mark).read_text(encoding="utf-8") == "begun ":
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr("odebench.sweep.cluster.SILENT_SECONDS", 1)
    task = Task("one", "data", "one", (), 1.0, (stops, str(tmp_path / "mark")))
    state, watcher = State({"one": task}, 0), Silent()
    with local_cluster(1, threads=1) as client:
        _conduct(client, state, watcher)
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "begun begun "
    assert (state.done, state.failed, watcher.ended) == ({"one"}, {}, ["one"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_killed_or_stopped_is_one_line(
    how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("odebench.sweep.cluster.SILENT_SECONDS", 1)
    file = tmp_path / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    process = subprocess.Popen([sys.executable, "-m", "dask", "scheduler", *words], **quiet)  # type: ignore[call-overload]
    said: list[str] = []
    try:
        wait_for(lambda: file.exists() and file.stat().st_size > 0)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        state = State({"one": Task("one", "data", "one", (), 1.0, (print,))}, 0)
        with remote_cluster(address, tls=None, say=said.append) as client:
            process.send_signal(how)
            began = time.monotonic()
            with pytest.raises(
                SweepError, match=r"^the scheduler is gone; what is finished is kept: start a scheduler"
            ):
                _conduct(client, state, Silent())
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - began < SOON
    assert len(said) == 1, "that there is no worker yet"
    assert capfd.readouterr().err == ""


SOON = 20
"""Seconds in which a command begins, on a busy machine, and waits for a scheduler; distributed alone waits for 30."""


def test_what_is_no_scheduler_is_waited_for_less_than_ten_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with (
            pytest.raises(OdebenchError, match="no scheduler answers at"),
            remote_cluster(address, tls=None, say=pytest.fail),
        ):
            pass
    assert time.monotonic() - began < 10


def test_a_scheduler_that_is_not_there_is_said_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", desk(tmp_path).protocol(GOOD), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["odebench", *words, "--scheduler", "tcp://127.0.0.1:9"])
    began = time.monotonic()
    assert _exit_code() == 1
    assert time.monotonic() - began < SOON
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"odebench: no scheduler answers at tcp://127\.0\.0\.1:9 .*; start one with `dask scheduler`", err)
    assert err.count("\n") == 1


def test_what_listens_and_is_no_scheduler_is_said_soon(tmp_path: Path) -> None:
    protocol = desk(tmp_path).protocol(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        code, _, err = Desk(tmp_path).type("sweep", protocol, "--scheduler", address)
    assert time.monotonic() - began < SOON
    assert code == 1
    assert err.startswith(f"odebench: no scheduler answers at {address} ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(address="127.0.0.1:8786"), r"must begin with tcp:// or tls://"),
        (Cluster(address="tcp://127.0.0.1"), "no scheduler answers .*it names no host and port"),
        (Cluster(address="tcp://127.0.0.1:x"), "no scheduler answers"),
        (Cluster(address="tls://127.0.0.1:8786"), r"a tls:// scheduler needs --tls-ca, --tls-cert and --tls-key"),
        (
            Cluster(address="tls://127.0.0.1:8786", tls=(Path("a.pem"), Path("b.pem"), Path("c.pem"))),
            r"there is no file a\.pem for TLS",
        ),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, cluster: Cluster, message: str) -> None:
    grid, place = own_grid(tmp_path, GOOD), place_in(tmp_path)
    with pytest.raises(OdebenchError, match=message):
        sweep(grid, workspace=place, cluster=cluster, watcher=Listener())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tls-ca", "a.pem"], "go with a --scheduler tls://"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "a --scheduler has its own workers"),
        (["--scheduler", "tls://127.0.0.1:9", "--tls-ca", "a.pem"], "go together"),
        (["--workers", "0"], "Invalid value for '--workers': "),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["odebench", "sweep", desk(tmp_path).protocol(GOOD), *words])
    assert _exit_code() == 2
    assert message in capsys.readouterr().err


class FakeClient:
    """A client of a scheduler and workers with these packages."""

    def __init__(self, scheduler: Mapping[str, str], worker: Mapping[str, str]) -> None:
        mine = {"dask": "1", "distributed": "1", "python": "3", "torch": "2"}
        self.found = {
            "client": {"packages": mine},
            "scheduler": {"packages": {**mine, **scheduler}},
            "workers": {"tcp://w": {"packages": {**mine, **worker}}},
        }

    def get_versions(self, check: bool, packages: list[str]) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("scheduler", "worker", "message"),
    [
        ({"dask": "2"}, {}, "the scheduler at tcp://s has dask 2, here it is 1; run both in the same environment"),
        ({"torch": "9"}, {}, None),
        ({}, {"torch": "9"}, "the worker at tcp://w has torch 9, here it is 2"),
        ({}, {"odebench": "9"}, "the worker at tcp://w has odebench 9, here it is unknown or missing"),
    ],
)
def test_other_packages_are_said_in_one_line(
    scheduler: Mapping[str, str], worker: Mapping[str, str], message: str | None
) -> None:
    from odebench.sweep.cluster import ClusterError, _check_versions

    client = FakeClient(scheduler, worker)
    if message is None:
        _check_versions(client, "tcp://s")
        return
    with pytest.raises(ClusterError, match=message):
        _check_versions(client, "tcp://s")


def test_a_place_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = workspace_of(own_grid(tmp_path, GOOD), results=Path("results"), data_dir=Path("data"), device="cpu")
    assert (place.results, place.data_dir) == (tmp_path / "results", tmp_path / "data")
    assert place.cache.is_absolute()


# --- who may die -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a longer sweep that nothing happened to."""
    place = desk(tmp_path_factory.mktemp("undisturbed"))
    code, _, err = place.type("sweep", place.protocol(LONGER), "--workers", "2")
    assert code == 0, err
    return contents(place.results)


def some_results(place: Desk, count: int) -> Callable[[], bool]:
    return lambda: len(list(place.results.rglob("*.json"))) >= count


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_that_is_finished(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    place = desk(tmp_path)
    process = place.begin("sweep", place.protocol(LONGER), "--workers", "2")
    for count in (1, 4, 8):
        wait_for(some_results(place, count))
        victim = workers_of(process)[0]
        victim.send_signal(signal.SIGKILL)
        wait_for(lambda: len(workers_of(process)) == 2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out == f"tiny 1: {len(undisturbed)} results written to results\n"
    assert contents(place.results) == undisturbed


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    place = desk(tmp_path)
    protocol = place.protocol(LONGER)
    process = place.begin("sweep", protocol, "--workers", "2")
    wait_for(some_results(place, 3))
    workers = workers_of(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(worker.is_running() for worker in workers), seconds=20)
    there = {path: path.stat().st_mtime_ns for path in place.results.rglob("*.json")}
    code, out, err = place.type("sweep", protocol, "--workers", "2")
    assert code == 0, err
    assert f"{len(there)} were there" in out
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert contents(place.results) == undisturbed


@pytest.mark.slow
def test_an_interruption_ends_soon_and_leaves_nobody_behind(tmp_path: Path) -> None:
    place = desk(tmp_path)
    process = place.begin("sweep", place.protocol(LONGER), "--workers", "2")
    wait_for(some_results(place, 2))
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("odebench: interrupted")
    assert "Traceback" not in err
    wait_for(lambda: not any(worker.is_running() for worker in workers), seconds=10)


@dataclass(frozen=True)
class HandStarted:
    address: str
    scheduler: subprocess.Popen[bytes]
    words: tuple[str, ...]


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An authority and a certificate for loopback that it signed."""
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=odebench"]
    subprocess.run([*openssl, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    ca.write_bytes(certificate.read_bytes())
    return ca, certificate, key


@pytest.fixture(params=["tcp", "tls"])
def hand_started(
    request: pytest.FixtureRequest, tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> Iterator[Any]:
    """A scheduler and two workers in processes of their own."""
    place, kind = desk(tmp_path), request.param
    secure: list[str] = []
    if kind == "tls":
        names = ("--tls-ca-file", "--tls-cert", "--tls-key")
        secure = [word for name, path in zip(names, certificates, strict=True) for word in (name, str(path))]
    file = tmp_path / "scheduler.json"
    common = {"env": place.environment, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    more = ["--protocol", kind, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([*dask, "scheduler", *more, *secure], **common)  # type: ignore[call-overload]
    started = [scheduler]
    wait_for(file.exists)
    wait_for(lambda: file.stat().st_size > 0)
    address = json.loads(file.read_text(encoding="utf-8"))["address"]
    for _ in range(2):
        one = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", *secure]
        started.append(subprocess.Popen(one, **common))  # type: ignore[call-overload]
    words = ["--scheduler", address]
    if secure:
        words += [word.replace("-ca-file", "-ca") for word in secure]
    yield HandStarted(address, scheduler, tuple(words))
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_started_by_hand_computes_the_same(
    undisturbed: dict[str, Any], tmp_path: Path, hand_started: HandStarted
) -> None:
    place = desk(tmp_path)
    code, out, err = place.type("sweep", place.protocol(LONGER), *hand_started.words)
    assert code == 0, err
    assert contents(place.results) == undisturbed
    assert out.startswith("tiny 1: ")


@pytest.mark.slow
@pytest.mark.parametrize("hand_started", ["tcp"], indirect=True)
def test_a_scheduler_that_dies_is_said_soon_and_the_sweep_goes_on_elsewhere(
    tmp_path: Path, hand_started: HandStarted
) -> None:
    place = desk(tmp_path)
    protocol = place.protocol(LONGER)
    process = place.begin("sweep", protocol, *hand_started.words)
    wait_for(some_results(place, 2))
    hand_started.scheduler.kill()
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        "odebench: the scheduler is gone; what is finished is kept: start a scheduler and the sweep again"
    )
