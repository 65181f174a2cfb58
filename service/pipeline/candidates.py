"""What could be done to a model, in the words of the API: one entry per stretch, with all that may replace it."""

from __future__ import annotations

from compressors.analysis import Analysis, MergeOption, MergeRegion, MergeSpace, Padding, Segment
from service.worker.messages import SegmentFacts

_EXACT = {
    Padding.KEEP: "",
    Padding.BIAS_MAP: ", with a bias by position",
    Padding.FIRST: ", padding moved to the front",
}


def candidates(analysis: Analysis, space: MergeSpace) -> tuple[SegmentFacts, ...]:
    """Returns every stretch that may be replaced, removed or merged, each once."""
    found = {(segment.entry, segment.exit): _replaced(segment) for segment in analysis.segments}
    for region in space.regions:
        if region.changes_nothing:
            continue
        key = (region.entry, region.exit)
        facts = found.get(key) or _merged(region)
        merges = tuple(_merge(option, region) for option in region.options)
        found[key] = facts.model_copy(update={"candidates": (*facts.candidates, *merges)})
    return tuple(found.values())


def _replaced(segment: Segment) -> SegmentFacts:
    kernels = [f"regress {_kernel(kernel)}" for kernel in segment.kernels]
    return SegmentFacts(
        name=segment.name,
        entry=segment.entry,
        exit=segment.exit,
        candidates=(*kernels, *(["remove"] if segment.removable else [])),
        sites=segment.sites,
        operators=len(segment.operators),
    )


def _merged(region: MergeRegion) -> SegmentFacts:
    return SegmentFacts(
        name=region.name,
        entry=region.entry,
        exit=region.exit,
        candidates=(),
        sites=region.sites,
        operators=len(region.operators),
    )


def _merge(option: MergeOption, region: MergeRegion) -> str:
    """Returns e.g. `merge 5x5` or `merge 3x3 (2 of 4 operators, padding moved to the front)`."""
    kept = len(region.operators) - len(option.pruned)
    some = f"{kept} of {len(region.operators)} operators" if option.pruned else ""
    how = (some + _EXACT[option.padding]).removeprefix(", ")
    return f"merge {_kernel(option.kernel)}" + (f" ({how})" if how else "")


def _kernel(kernel: tuple[int, ...]) -> str:
    return "x".join(map(str, kernel)) or "linear"
