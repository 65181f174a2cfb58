"""All strategies by name. A new one is one file here, its options in `options`, and one line in `STRATEGIES`.

What may be set is known without the engine; a strategy's own module is loaded when a search begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from compressors.errors import OptionError
from compressors.strategies import options as of
from compressors.strategies.options import Options

if TYPE_CHECKING:
    from compressors.problem import Problem, Search


@dataclass(frozen=True)
class Strategy:
    """A way to make a network shallower.

    Attributes:
        name: What users write; the module of that name here has `begin`, which starts a search from a problem and
            checked options; it measures what it needs, and fits nothing yet.
        options: What may be set.
    """

    name: str
    options: type[Options]

    @property
    def summary(self) -> str:
        """One sentence for users."""
        return self.options.summary

    def parse(self, given: Mapping[str, object]) -> Options:
        """Returns checked options.

        Raises:
            OptionError: An option is unknown or out of bounds; `field` names it.
        """
        try:
            return self.options.model_validate(dict(given))
        except ValidationError as exc:
            raise _refusal(self, exc) from exc

    def schema(self) -> dict[str, Any]:
        """Returns the options as JSON schema: names, types, bounds, defaults and descriptions."""
        return self.options.model_json_schema()

    def start(self, problem: Problem, options: Options | None = None) -> Search:
        """Returns a search on the problem; options are the defaults where none are given."""
        begin: Callable[[Problem, Options], Search] = import_module(f"compressors.strategies.{self.name}").begin
        return begin(problem, options or self.options())


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "layerfit": Strategy("layerfit", of.LayerfitOptions),
        "auto": Strategy("auto", of.AutoOptions),
        "layer_merge": Strategy("layer_merge", of.LayerMergeOptions),
        "layer_folding": Strategy("layer_folding", of.LayerFoldingOptions),
        "layer_collapse": Strategy("layer_collapse", of.LayerCollapseOptions),
        "easier": Strategy("easier", of.EasierOptions),
        "tlc": Strategy("tlc", of.TlcOptions),
    }
)


def find(name: str) -> Strategy:
    """Returns the strategy of that name.

    Raises:
        OptionError: There is none.
    """
    if name not in STRATEGIES:
        raise OptionError("strategy", f"There is no strategy {name!r}; there are: {', '.join(sorted(STRATEGIES))}.")
    return STRATEGIES[name]


def _refusal(strategy: Strategy, error: ValidationError) -> OptionError:
    """Returns the first thing that is wrong, in one sentence."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "options"
    if first["type"] == "extra_forbidden":
        known = ", ".join(strategy.options.model_fields)
        return OptionError(field, f"Strategy {strategy.name} has no option {field!r}; it has: {known}.")
    return OptionError(field, f"Strategy {strategy.name}, option {field}: {first['msg']}; got {first['input']!r}.")
