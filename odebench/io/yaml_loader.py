"""Loaders of YAML that count the values of a file before they make them, and refuse too many."""

from __future__ import annotations

from typing import Any, cast

import yaml
from yaml.composer import Composer

MAX_VALUES = 20_000
"""The most values of a file, counted again where an alias repeats them: a few lines of aliases can mean billions."""


class _Counting(Composer):
    """Counts the values of a node before they are made, and refuses too many."""

    def begin(self) -> None:
        Composer.__init__(self)
        self._values: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[attr-defined]
        mark = cast(yaml.Mark, event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._values:
            raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=mark)
        if node is not None and id(node) not in self._values:
            inner = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
            children = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            self._values[id(node)] = 1 + sum(self._values[id(child)] for child in children)
            if max(self._values[id(node)], len(self._values)) > MAX_VALUES:
                said = f"more than {MAX_VALUES} values, those repeated by aliases included"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=mark)
        return node


class Loader(_Counting, yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)
        self.begin()


QuickLoader: Any = None
"""Reads events by libyaml, which is faster; None where PyYAML was built without it."""

if yaml.__with_libyaml__:

    class _Quick(_Counting, yaml.CSafeLoader):
        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            self.begin()

    QuickLoader = _Quick
