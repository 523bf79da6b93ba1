"""The parts of results that tables are made of, so that thousands of results fit into little memory."""

from __future__ import annotations

from typing import TypeVar

from odebench.protocol.spec import Evaluation, Spec
from odebench.result.schema import Check, EpsilonResult, Found, Nfe, Result

S = TypeVar("S", bound=Spec)


class TableParts:
    """Keeps of each result what tables show; parts that are equal in several results are held once.

    What tables do not need is gone from a result that was kept: its figures, the stages that succeeded, its cost, the
    evidence of its checks. Asking for it is an AttributeError.
    """

    def __init__(self) -> None:
        self._held: dict[str, Spec] = {}
        self._fields: dict[tuple[str, ...], set[str]] = {}

    def of(self, result: Result) -> Result:
        """The parts of one result."""
        found = result.found
        return self._part(
            Result,
            schema_version=result.schema_version,
            run_key=result.run_key,
            evaluation=self._evaluation(result.evaluation),
            found=self._part(
                Found,
                dataset_sha256=found.dataset_sha256,
                weights_sha256=found.weights_sha256,
                candidates=found.candidates,
            ),
            epsilons=tuple(
                self._part(EpsilonResult, epsilon=item.epsilon, outcomes=item.outcomes) for item in result.epsilons
            ),
            nfe=self._part(Nfe, clean=self._once(result.nfe.clean), adversarial=self._once(result.nfe.adversarial)),
            checks=tuple(self._check(check) for check in result.checks),
            flags=result.flags,
            outcomes_sha256=result.outcomes_sha256,
            created=result.created,
        )

    def _evaluation(self, whole: Evaluation) -> Evaluation:
        parts = {name: self._once(getattr(whole, name)) for name in Evaluation.model_fields}
        return self._part(Evaluation, **parts)

    def _check(self, check: Check) -> Check:
        why = check.why if check.status == "flag" else ""  # tables tell why a check is a flag
        name = f"{check.id} {check.name!r} {check.status} {check.speaks_of} {why!r}"
        if name not in self._held:
            self._held[name] = self._part(
                Check, id=check.id, name=check.name, status=check.status, speaks_of=check.speaks_of, why=why
            )
        return self._held[name]  # type: ignore[return-value]

    def _once(self, part: object) -> object:
        return self._held.setdefault(repr(part), part) if isinstance(part, Spec) else part

    def _part(self, kind: type[S], **fields: object) -> S:
        names = self._fields.setdefault(tuple(fields), set(fields))
        return kind.model_construct(_fields_set=names, **fields)
