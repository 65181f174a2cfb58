"""Renders the chart without Helm: the part of Go's template language that the chart uses, and nothing more.

Helm is no Python package, so this stands in for `helm template` in tests. Whatever it does not know is an error, so
that the chart cannot come to use something that was never checked.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "shoal"
RELEASE = {"Name": "my-shoal", "Namespace": "vision", "Service": "Helm"}

_ACTION = re.compile(r"\{\{(-)?\s*(.*?)\s*(-)?\}\}", re.DOTALL)
_BLOCKS = ("if", "with", "define")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "default": lambda instead, value: value or instead,
    "nindent": lambda size, value: "".join(f"\n{' ' * size}{line}" for line in value.splitlines()),
    "printf": lambda pattern, *values: pattern % values,
    "quote": lambda value: json.dumps(str(value)),
    "toYaml": lambda value: yaml.safe_dump(value, sort_keys=False).rstrip("\n"),
    "trimSuffix": lambda suffix, value: value.removesuffix(suffix),
    "trunc": lambda size, value: value[:size],
}


@dataclass
class Block:
    """A stretch of a template: text, or an action with what it encloses."""

    action: str = ""
    body: list[Block | str] = field(default_factory=list)
    otherwise: list[Block | str] = field(default_factory=list)


class Chart:
    """A chart that can be rendered.

    Args:
        values: Changes to its `values.yaml`.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        about = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.values = merge(yaml.safe_load((CHART / "values.yaml").read_text()), values or {})
        chart = {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]}
        self.root = {"Values": self.values, "Release": RELEASE, "Chart": chart}
        self.named: dict[str, list[Block | str]] = {}
        for path in sorted((CHART / "templates").glob("*.tpl")):
            self._write(parse(path.read_text()), self.root)

    def manifests(self) -> Iterator[dict[str, Any]]:
        """Yields every object that the chart makes."""
        for path in sorted((CHART / "templates").glob("*.yaml")):
            yield from (each for each in yaml.safe_load_all(self.render(path)) if each)

    def render(self, path: Path) -> str:
        """Returns what a template comes to."""
        return self._write(parse(path.read_text()), self.root)

    def _write(self, parts: list[Block | str], dot: Any) -> str:
        return "".join(part if isinstance(part, str) else self._act(part, dot) for part in parts)

    def _act(self, block: Block, dot: Any) -> str:
        word, _, rest = block.action.partition(" ")
        if word == "define":
            self.named[json.loads(rest)] = block.body
            return ""
        if word not in _BLOCKS:
            value = self._pipe(block.action, dot)
            return str(value).lower() if isinstance(value, bool) else str(value)
        value = self._pipe(rest, dot)
        if value:
            return self._write(block.body, value if word == "with" else dot)
        return self._write(block.otherwise, dot)

    def _pipe(self, text: str, dot: Any) -> Any:
        value: list[Any] = []
        for call in text.split("|"):
            words = [self._value(word, dot) for word in shlex.split(call.strip(), posix=False)]
            value = [self._call(words + value)]
        return value[0]

    def _call(self, words: list[Any]) -> Any:
        name, *arguments = words
        if not isinstance(name, Function):
            assert not arguments, f"not a function: {name!r}"
            return name
        if name.name == "include":
            template, dot = arguments
            return self._write(self.named[template], dot)
        assert name.name in _FUNCTIONS, f"the chart uses {name.name}, which is not known here"
        return _FUNCTIONS[name.name](*arguments)

    def _value(self, word: str, dot: Any) -> Any:
        if word.startswith('"'):
            return json.loads(word)
        if re.fullmatch(r"\d+", word):
            return int(word)
        if not word.startswith("."):
            return Function(word)
        for name in word.split(".")[1:]:
            dot = dot[name] if name else dot
        return dot


@dataclass(frozen=True)
class Function:
    """A function's name."""

    name: str


def parse(text: str) -> list[Block | str]:
    """Returns a template's parts, with white space trimmed where its actions say so."""
    root = Block()
    stack, target = [root], [root.body]
    end, trim = 0, False
    for found in _ACTION.finditer(text):
        before = text[end : found.start()]
        before = before.lstrip() if trim else before
        target[-1].append(before.rstrip() if found[1] else before)
        end, trim = found.end(), bool(found[3])
        action = found[2]
        if action == "else":
            target[-1] = stack[-1].otherwise
        elif action == "end":
            stack.pop()
            target.pop()
        else:
            block = Block(action)
            target[-1].append(block)
            if action.split()[0] in _BLOCKS:
                stack.append(block)
                target.append(block.body)
    assert len(stack) == 1, f"{stack[-1].action} has no end"
    root.body.append(text[end:].lstrip() if trim else text[end:])
    return root.body


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with changes, as Helm lays one file over the other."""
    result = copy.deepcopy(values)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merge(result[name], value) if both else value
    return result
