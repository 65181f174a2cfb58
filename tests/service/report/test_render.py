from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from service.report import formats
from service.report.render import render
from service.report.schema import Report
from tests.service.report import made

EVERY = [made.report, made.unimproved, made.unlabelled, made.bare, made.large, made.profiled]
VOID = {"meta", "link", "br", "img", "input", "hr", "col", "wbr"}
HOSTILE = "</title></style></svg>\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"


class Page(HTMLParser):
    """A strict reader: every element must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.text))

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def swapped(value: Any, text: Callable[[str], str]) -> Any:
    """Returns the value with every string in it replaced."""
    if isinstance(value, BaseModel):
        fixed = {"outcome"}
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return value.model_copy(
            update={name: item if name in fixed else swapped(item, text) for name, item in fields.items()}
        )
    if isinstance(value, str):
        return text(value)
    if isinstance(value, tuple):
        return tuple(swapped(item, text) for item in value)
    if isinstance(value, list):
        return [swapped(item, text) for item in value]
    if isinstance(value, dict):
        return {text(key) + str(index): swapped(item, text) for index, (key, item) in enumerate(value.items())}
    return value


@pytest.mark.parametrize("make", EVERY)
def test_every_element_is_closed_and_every_reference_has_its_target(make: Callable[[], Report]):
    page = Page(render(make()))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for value in page.values("aria-labelledby"):
        assert set(value.split()) <= set(ids)
    assert {value[1:] for value in page.values("href") if value.startswith("#")} <= set(ids)


@pytest.mark.parametrize("make", EVERY)
def test_drawings_and_tables_can_be_read_aloud(make: Callable[[], Report]):
    text = render(make())
    for drawing in re.findall(r"<svg [^>]*>", text):
        assert 'aria-hidden="true"' in drawing or ('role="img"' in drawing and "aria-labelledby" in drawing)
    for table in re.findall(r"<table>.*?</table>", text, re.DOTALL):
        assert "<th " in table or 'class="total"' in table
    assert '<html lang="en">' in text


@pytest.mark.parametrize("make", EVERY)
def test_nothing_is_fetched_and_nothing_runs(make: Callable[[], Report]):
    text = render(make())
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(page.tags)
    assert all(value.startswith("#") or value == "data:," for value in page.values("href"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    assert not re.search(r"https?://|@import|url\(|javascript:", text, re.IGNORECASE)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("make", EVERY)
def test_hostile_strings_are_inert(make: Callable[[], Report]):
    harmless, hostile = (Page(render(swapped(make(), lambda _, t=text: t))) for text in ("x", HOSTILE))  # type: ignore[misc]
    assert hostile.tags == harmless.tags
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [(tag, name) for tag, name, _ in harmless.attributes]
    assert "{{ 7*7 }}" in hostile.words


@pytest.mark.parametrize("make", EVERY)
def test_no_value_is_left_undrawn(make: Callable[[], Report]):
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", Page(render(make())).words)


def test_the_verdict_comes_first():
    words = Page(render(made.report())).words
    assert words.index("Budget met") < words.index(formats.factor(1.547)) < words.index("Networks tried")


def test_the_page_is_headed_by_the_name_that_the_caller_gave():
    named = made.report().model_copy(update={"display_name": "digits, version 3"})
    assert "<h1>digits, version 3</h1>" in render(named)
    assert f"<h1>{made.report().model_name}</h1>" in render(made.report())


@pytest.mark.parametrize(
    ("make", "headline"),
    [(made.report, "Budget met"), (made.unimproved, "No improvement"), (made.large, "Budget not met")],
)
def test_the_outcome_is_in_plain_words(make: Callable[[], Report], headline: str):
    page = render(make())
    assert f"<strong>{headline}</strong>" in page
    assert make().explanation in page


def test_every_fact_is_there():
    report = made.report()
    words = Page(render(report)).words
    data, tuning = report.data, report.tuning
    assert data is not None
    assert tuning is not None
    facts = [
        formats.milliseconds(report.result.latency.p50),
        formats.milliseconds(report.baseline.latency.p50),
        formats.milliseconds(report.budget.milliseconds),
        *(formats.significant(getattr(report.result.latency, name)) for name in ("p90", "p95", "p99", "mean", "min")),
        formats.factor(report.speedup.low),
        formats.factor(report.speedup.high),
        formats.percent(0.9172, 10_000),
        formats.percent(0.9105, 10_000),
        formats.percent(0.9050, 10_000),
        "Floor 90.00",
        *(step.label for step in report.steps),
        *(candidate.label for candidate in report.candidates),
        *(refusal.reason for refusal in report.refusals),
        *(refusal.where for refusal in report.refusals),
        *(layer.name for layer in (*report.baseline.layers, *report.result.layers)),
        *(formats.scientific(entry.max_abs_error) for entry in report.result.agreement),
        *(formats.integer(n) for n in (data.train, data.calibration, data.selection, data.validation)),
        *data.broken_examples,
        report.machine.description,
        *report.machine.warnings,
        "2099.9 to 2101.5",
        "1.02, 0.61, 0.47",
        *(artifact.sha256 for artifact in report.artifacts),
        str(report.model_sha256),
        *report.versions.values(),
        *report.versions,
        *report.phase_seconds,
        formats.duration(report.seconds),
        report.measure_command,
        str(report.seed),
        report.job,
        report.created,
        "bf16, channels last",
        "0.002, 0.004, 0.008",
        "0.485, 0.456, 0.406",
        "refit: yes",
        report.schema_version,
    ]
    assert [fact for fact in facts if fact not in words] == []


def test_refusals_are_grouped_by_their_code():
    text = render(made.report())
    assert text.count("not-shape-preserving") == 1
    assert "9 places" in text


def test_a_cut_layer_and_its_replacement_stand_in_one_row():
    row = re.search(r'<tr class="is-cut is-new">(.*?)</tr>', render(made.report()), re.DOTALL)
    assert row is not None
    assert "layer1.1.conv1" in row.group(1)
    assert "layer1.1.fitted" in row.group(1)


def test_many_candidates_are_folded_but_all_there():
    text = render(made.large())
    assert f"All {len(made.large().candidates)} networks" in text


def test_a_percentile_that_is_not_in_the_table_is_added():
    assert '<th scope="row">p75</th>' in render(made.bare())


def test_without_accuracy_the_agreement_is_told():
    words = Page(render(made.unlabelled())).words
    assert "There were no labelled validation samples. On 5,000 held-back samples" in words


def test_a_failed_agreement_stands_out():
    report = made.report()
    failed = report.result.agreement[0].model_copy(update={"passed": False})
    result = report.result.model_copy(update={"agreement": (failed, *report.result.agreement[1:])})
    assert '<td class="bad">no</td>' in render(made.report(result=result))


def test_the_same_report_gives_the_same_page():
    program = "import hashlib; from service.report.render import render; from tests.service.report import made; "
    program += "print(hashlib.sha256(render(made.report()).encode()).hexdigest())"
    root = Path(__file__).parents[3]
    pages = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(pages) == 1


def test_a_report_that_was_stored_gives_the_same_page():
    report = made.report()
    assert render(Report.model_validate_json(report.model_dump_json())) == render(report)


def test_times_of_layers_stand_beside_them():
    report = made.profiled()
    page = Page(render(report))
    assert "Where the time goes" in page.words
    assert "ReorderInput (3) 0.0210\N{NARROW NO-BREAK SPACE}ms" in page.words
    assert "Where the time goes" not in Page(render(made.large())).words


def test_a_report_without_times_is_still_read():
    """Reports of schema 1.2 have none."""
    document = made.report().model_dump(mode="json")
    for side in ("baseline", "result"):
        del document[side]["profile"]
        for layer in document[side]["layers"]:
            del layer["milliseconds"]
    assert Report.model_validate(document) == made.report()
