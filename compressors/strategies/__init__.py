"""All strategies by name. A new one is one file here and one line in `STRATEGIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from compressors.errors import OptionError
from compressors.problem import Problem, Search
from compressors.strategies import auto, easier, layer_collapse, layer_folding, layer_merge, layerfit, tlc
from compressors.strategies.options import Options


@dataclass(frozen=True)
class Strategy:
    """A way to make a network shallower.

    Attributes:
        name: What users write.
        summary: One sentence for users.
        options: What may be set; every field has a description, bounds and a default.
        begin: Starts a search from a problem and checked options; measures what it needs, fits nothing yet.
    """

    name: str
    summary: str
    options: type[Options]
    begin: Callable[[Problem, Any], Search]

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
        return self.begin(problem, options or self.options())


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "layerfit": Strategy("layerfit", layerfit.SUMMARY, layerfit.LayerfitOptions, layerfit.begin),
        "auto": Strategy("auto", auto.SUMMARY, auto.AutoOptions, auto.begin),
        "layer_merge": Strategy("layer_merge", layer_merge.SUMMARY, layer_merge.LayerMergeOptions, layer_merge.begin),
        "layer_folding": Strategy(
            "layer_folding", layer_folding.SUMMARY, layer_folding.LayerFoldingOptions, layer_folding.begin
        ),
        "layer_collapse": Strategy(
            "layer_collapse", layer_collapse.SUMMARY, layer_collapse.LayerCollapseOptions, layer_collapse.begin
        ),
        "easier": Strategy("easier", easier.SUMMARY, easier.EasierOptions, easier.begin),
        "tlc": Strategy("tlc", tlc.SUMMARY, tlc.TlcOptions, tlc.begin),
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
