"""A plain function as an attack: named by its qualified name and a digest of its source. Imports no torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from types import CodeType, FunctionType
from typing import Any

from pydantic import JsonValue

from odebench.attack.definition import AttackDefinition, Parameters
from odebench.errors import UsageError
from odebench.protocol.spec import FUNCTION_DIGEST, NAME_PATTERN

_GIVEN = ("norm", "epsilon", "seed", "fallen")
_SHAPE = "my_attack(model, images, labels, *, epsilon, steps=10)"


@dataclass(frozen=True)
class FunctionAttack(AttackDefinition):
    """An attack that was handed over in Python. `called` gets of norm, epsilon, seed and fallen what it `takes`.

    Its parameters are its keyword arguments with a default that is a number, a text or a boolean, and the digest of its
    source.
    """

    _: KW_ONLY
    called: Callable[..., Any]
    takes: tuple[str, ...]

    def complete(self, given: Mapping[str, JsonValue] | None = None) -> Parameters:
        found = super().complete(given)
        return {**found, FUNCTION_DIGEST: self.parameters[FUNCTION_DIGEST]}

    def load(self) -> Callable[..., Any]:
        """The function, called as a registered attack is."""

        def attack(model: Any, images: Any, labels: Any, **arguments: Any) -> Any:
            passed = {name: value for name, value in arguments.items() if name in self.takes or name in self.parameters}
            passed.pop(FUNCTION_DIGEST)
            return self.called(model, images, labels, **passed)

        return attack


def function_attack(function: object) -> FunctionAttack:
    """The attack that a plain function is: function(model, images, labels, *, epsilon, ...) -> adversarial images.

    Raises UsageError for anything that cannot be called so, or that has no name.
    """
    if not isinstance(function, FunctionType):
        kind = function.__name__ if isinstance(function, type) else type(function).__name__
        raise UsageError(f"an attack is a name, such as 'pgd', or a function {_SHAPE}, not {kind}")
    if function.__closure__ or hasattr(function, "__wrapped__"):
        raise UsageError(
            f"the attack {function.__qualname__} holds values of another function, which no result would tell; pass "
            "them as keyword arguments with defaults"
        )
    name = f"{function.__module__}.{function.__qualname__}".replace("<locals>.", "")
    if "<" in name or not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"the attack {name!r} has no name to be stored under; write it as def {_SHAPE}")
    parameters = inspect.signature(function).parameters
    keywords = {key: one for key, one in list(parameters.items())[3:] if one.kind in (one.KEYWORD_ONLY, _EITHER)}
    needed = [key for key, one in keywords.items() if one.default is one.empty and key not in _GIVEN]
    if len(parameters) < 3 or "epsilon" not in keywords or needed:
        also = f", and {', '.join(needed)} needs a default" if needed else ""
        raise UsageError(f"the attack {name} cannot be called; it must be of the form {_SHAPE}{also}")
    defaults = {
        key: one.default
        for key, one in keywords.items()
        if key not in _GIVEN and isinstance(one.default, bool | int | float | str)
    }
    return FunctionAttack(
        name,
        "",
        ("linf", "l2"),
        {**defaults, FUNCTION_DIGEST: source_digest(function)},
        summary="a function that was handed over in Python",
        verifies_falls="fallen" in keywords,
        called=function,
        takes=tuple(key for key in _GIVEN if key in keywords),
    )


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


def source_digest(function: FunctionType) -> str:
    """The sha256 of a function's source; of its compiled code where no source is at hand, as in a console."""
    try:
        code = inspect.getsource(function).encode()
    except (OSError, TypeError):
        code = _compiled(function.__code__)
    defaults = {"positional": function.__defaults__, **(function.__kwdefaults__ or {})}
    return sha256(code + repr(defaults).encode()).hexdigest()


def _compiled(code: CodeType) -> bytes:
    constants = [_constant(one) for one in code.co_consts]
    return b"/".join([code.co_code, *constants, *(name.encode() for name in code.co_names)])


def _constant(value: object) -> bytes:
    if isinstance(value, CodeType):
        return _compiled(value)
    # the order of a set is another in every process
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value).encode()
