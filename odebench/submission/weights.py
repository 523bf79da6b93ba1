"""The weights that an entry lists, checked against the files and against the recipe that they must come from."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from odebench.errors import WeightError
from odebench.io.files import sha256_file
from odebench.io.https import RemoteError
from odebench.io.remote_weights import fetch
from odebench.io.safetensors_file import Header, read_header, unfit_tensor
from odebench.io.yaml_document import Document, Where
from odebench.progress import SILENT, Progress
from odebench.protocol.recipe import Recipe
from odebench.submission.entry import Entry, Use, Weights, shared_weights
from odebench.submission.file_kind import hidden_kind, zip_kind
from odebench.submission.finding import Finding, finding, finding_at
from odebench.submission.folder import WEIGHTS_SUFFIX, Contents, weights_header
from odebench.submission.limits import MAX_WEIGHTS_BYTES

MAX_REMOTE_BYTES = 2_000_000_000
MAX_REMOTE_TOTAL_BYTES = 10_000_000_000
"""The most bytes of all files of an entry that lie elsewhere: whoever verifies it fetches them all."""
_HTTPS = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?/[!-?A-~]*")
_HUB = re.compile(r"hf://[\w.-]+/[\w.-]+/[\w./-]+@[\w./-]+")

_FILE_OR_URL = "weights have either a file or a url; give one of the two"

RecipeOf = Callable[[Use, Weights], Recipe | None]
Fetch = Callable[[Weights], Path | None]
"""Fetches listed weights and returns their path, or None if they are to stay where they are."""


def fetching(progress: Progress = SILENT, *, dataset: str | None = None, seconds: float | None = None) -> Fetch:
    """A function that fetches listed weights to the cache folder, all or those for one `dataset`, and checks their
    sha256; all together take `seconds` at most. It raises RemoteError, FileError and UsageError."""
    began = time.monotonic()

    def fetched(weights: Weights) -> Path | None:
        if dataset not in (None, weights.dataset):
            return None
        left = None if seconds is None else seconds - (time.monotonic() - began)
        return fetch(str(weights.url), sha256=weights.sha256, bytes=weights.bytes, seconds=left, progress=progress)

    return fetched


def weights_findings(
    folder: Path,
    entry: Entry,
    document: Document,
    contents: Contents,
    recipe_of: RecipeOf,
    *,
    fetch: Fetch | None = None,
) -> Iterator[Finding]:
    """All that is wrong with the list of weights. `recipe_of` returns the recipe of a registered model's weights;
    weights that lie elsewhere are checked if `fetch` fetches them."""
    seen: dict[tuple[str, float | None, int], Where] = {}
    files: dict[tuple[str, float | None, str], tuple[Where, int]] = {}
    for index, weights in enumerate(entry.weights):
        where: Where = ("weights", index)
        identity = (weights.dataset, weights.horizon, weights.train_seed)
        if identity in seen:
            first = document.line(seen[identity])
            said = f"these are weights for the data set, horizon and train seed of line {first} again; remove one"
            yield finding_at(document, where, "weights", said)
        seen.setdefault(identity, where)
        same = (weights.dataset, weights.horizon, weights.sha256)
        if same in files and files[same][1] != weights.train_seed:
            said = (
                f"train seed {weights.train_seed} has the file of train seed {files[same][1]} in line "
                f"{document.line(files[same][0])}; two seeds are two trainings: list its own, or remove one"
            )
            yield finding_at(document, (*where, "sha256"), "weights", said)
        files.setdefault(same, (where, weights.train_seed))
        use = entry.use(weights.dataset)
        if use is None:
            known = ", ".join(each.name for each in entry.datasets)
            said = f"dataset {weights.dataset!r} is not among the entry's data sets: {known}; add it there"
            yield finding_at(document, (*where, "dataset"), "dataset", said)
        elif (said_of_horizon := horizon_problem(use, weights.horizon)) is not None:
            yield finding_at(document, (*where, "horizon"), "horizon", said_of_horizon)
        else:
            listed = _Listed(folder, document, where, weights, use, recipe_of(use, weights))
            yield from listed.in_repository(contents) if weights.url is None else listed.elsewhere(fetch)
    total = sum(weights.bytes for weights in entry.weights if weights.url is not None)
    if total > MAX_REMOTE_TOTAL_BYTES:
        said = f"{total:,} bytes elsewhere are more than the {MAX_REMOTE_TOTAL_BYTES:,} of an entry; list fewer"
        yield finding_at(document, ("weights",), "size", said)
    listed_files = {weights.file for weights in entry.weights}
    for name in contents.headers:
        if name not in listed_files:
            said = "is not listed under weights in entry.yaml; list or delete it"
            yield finding(str(folder / name), None, "weights", said)
    there = {(weights.dataset, weights.horizon) for weights in entry.weights}
    for index, use in enumerate(entry.datasets if entry.contributed is not None else ()):
        for horizon in use.horizons or (None,):
            if (use.name, horizon) not in there:
                at = "" if horizon is None else f" at horizon {horizon:g}"
                said = f"there are no weights for {use.name}{at}; list them under weights"
                yield finding_at(document, ("datasets", index), "weights", said)


def horizon_problem(use: Use, horizon: float | None) -> str | None:
    """Why nothing can be listed at `horizon` for a data set; None if something can."""
    if horizon in (use.horizons or (None,)):
        return None
    if not use.horizons:
        return f"the entry has no horizons on {use.name}; remove the line, or give the data set horizons"
    known = ", ".join(f"{each:g}" for each in use.horizons)
    given = "no horizon is given" if horizon is None else f"horizon {horizon:g} is not one of the entry's"
    return f"{given}, which has on {use.name}: {known}"


@dataclass(frozen=True)
class _Listed:
    """One item of the list of weights, with its location in the document and the recipe that it must come from."""

    folder: Path
    document: Document
    where: Where
    weights: Weights
    use: Use
    recipe: Recipe | None

    def finding(self, key: str, rule: str, message: str) -> Finding:
        """A finding about one key of the item."""
        return finding_at(self.document, (*self.where, key), rule, message)

    def elsewhere(self, fetch: Fetch | None) -> Iterator[Finding]:
        """What is wrong with weights that have a url; the file is checked if `fetch` fetches it."""
        weights, fit = self.weights, True
        if weights.file is not None:
            yield finding_at(self.document, self.where, "weights", _FILE_OR_URL)
            return
        if not _HTTPS.fullmatch(str(weights.url)) and not _HUB.fullmatch(str(weights.url)):
            fit = False
            form = "like https://host/path or hf://owner/name/file@revision, without user or password"
            yield self.finding("url", "url", f"url {weights.url!r} must be {form}")
        if weights.bytes > MAX_REMOTE_BYTES:
            fit = False
            said = f"{weights.bytes:,} bytes are more than the {MAX_REMOTE_BYTES:,} that weights may have"
            yield self.finding("bytes", "size", said)
        if not fit or fetch is None:
            return
        try:
            path = fetch(weights)
        except RemoteError as error:
            yield self.finding("url", "url", str(error))
        else:
            yield from () if path is None else self._fetched(path)

    def _fetched(self, path: Path) -> Iterator[Finding]:
        try:
            header = read_header(path)
        except WeightError as error:
            yield self.finding("url", "weights", f"{self.weights.url} {error}; publish a whole one")
            return
        small = self.weights.bytes <= MAX_WEIGHTS_BYTES
        with path.open("rb") as file:
            kind = hidden_kind(file.read(MAX_WEIGHTS_BYTES)) if small else zip_kind(path)
        if kind is not None:
            said = f"{self.weights.url} can be read as {kind}, too; save the weights afresh"
            yield self.finding("url", "weights", said)
        yield from self._compared(path, header)

    def in_repository(self, contents: Contents) -> Iterator[Finding]:
        """What is wrong with weights that lie in the folder or among the published weights."""
        if self.weights.file is None:
            yield finding_at(self.document, self.where, "weights", _FILE_OR_URL)
            return
        file, problem = self.weights.file, None
        path, header = self.folder / file, contents.headers.get(file)
        if (shared := shared_weights(self.folder, file)) is not None:
            path = shared
            header, problem = _shared_header(shared)
        elif header is None and (".." in Path(file).parts or Path(file).is_absolute()):
            problem = "lies outside the folder; name a file in it, or ../../weights/<64 hexadecimal digits>.safetensors"
        elif header is None and not file.endswith(WEIGHTS_SUFFIX):
            problem = f"must be a safetensors file whose name ends in {WEIGHTS_SUFFIX}"
        elif header is None:
            problem = "is not there as a whole safetensors file; put it there, or correct the name"
        if problem is not None:
            yield self.finding("file", "weights", f"{file} {problem}")
        elif header is not None:
            yield from self._compared(path, header)

    def _compared(self, path: Path, header: Header) -> Iterator[Finding]:
        """Where a file is not what the entry says of it."""
        weights, use, size, sha256 = self.weights, self.use, path.stat().st_size, sha256_file(path)
        key, name = ("url", weights.url) if weights.file is None else ("file", weights.file)
        if weights.bytes != size:
            yield self.finding("bytes", "bytes", f"{name} has {size} bytes; write bytes: {size}")
        if weights.sha256 != sha256:
            said = f"{name} has another sha256 than {weights.sha256[:12]}...; write sha256: {sha256}"
            yield self.finding("sha256", "sha256", said)
        if header.numbers != use.parameters:
            said = (
                f"{name} holds {header.numbers} numbers in {len(header.shapes)} tensors, the entry says "
                f"{use.parameters} parameters on {use.name}; write parameters: {header.numbers}, or list the right file"
            )
            yield self.finding(key, "parameters", said)
        if (unfit := unfit_tensor(path)) is not None:
            yield self.finding(key, "weights", f"{name}: {unfit}")
        if self.recipe is not None and header.metadata.get("recipe") != self.recipe.model_dump(mode="json"):
            said = (
                f"{name} does not come from the recipe of this model, data set, horizon, train seed and "
                "arguments (odebench train writes such files); list the right file"
            )
            yield self.finding(key, "recipe", said)


def _shared_header(path: Path) -> tuple[Header | None, str | None]:
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        return None, "is not there as a plain file; put it there, or correct the name"
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        return None, f"is larger than the {MAX_WEIGHTS_BYTES:,} bytes that a published file may have"
    return weights_header(path, path.read_bytes())
