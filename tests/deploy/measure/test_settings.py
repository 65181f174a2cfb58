from __future__ import annotations

import pytest

from deploy.errors import TimingSettingsError
from deploy.measure.settings import TimingSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("threads", 0),
        ("min_seconds", -1.0),
        ("max_seconds", 0.0),
        ("min_samples", 0),
        ("min_rounds", 1),
        ("warmup_seconds", -0.1),
        ("block_seconds", 11.0),
        ("timeout_seconds", 0.0),
        ("seed", -1),
        ("percentile", "p51"),
        ("device", "cuda"),
        ("device", "local/cpu"),
        ("min_seconds", float("nan")),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TimingSettingsError) as caught:
        TimingSettings(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert str(value) in str(caught.value)


def test_the_maximum_may_not_be_below_the_minimum() -> None:
    with pytest.raises(TimingSettingsError, match="below 'min_seconds'"):
        TimingSettings(min_seconds=5, max_seconds=4)
