from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from service.watching.logs import JsonFormatter, TextFormatter
from service.watching.spans import spanning
from service.watching.surroundings import surrounded

SECRETS = (
    "Bearer abc.DEF-123_~+/=",
    "bearer abcdef",
    "shoal-agent-Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFy",
    "postgresql://shoal:hunter2@db.example/shoal",
)


def record(message: str, *args: object, **changes: Any) -> logging.LogRecord:
    return logging.LogRecord("service.some", logging.INFO, "some.py", 1, message, args, None, **changes)


def told(*args: object) -> dict[str, Any]:
    return json.loads(JsonFormatter().format(record(*args)))


def test_a_line_is_one_object_that_says_what_it_belongs_to() -> None:
    with surrounded(job="optimizationJobs/some"), surrounded(phase="plan"), spanning("plan") as span:
        line = JsonFormatter().format(record("two\nlines of %s", "text"))

    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "INFO",
        "logger": "service.some",
        "message": "two\nlines of text",
        "job": "optimizationJobs/some",
        "phase": "plan",
        "trace_id": span.place.trace_id,
        "span_id": span.place.span_id,
    }


def test_what_is_not_known_is_left_out() -> None:
    assert told("a line").keys() == {"time", "level", "logger", "message"}


def test_an_exception_is_in_the_same_line() -> None:
    error = ValueError("with Bearer abcdef in it")
    entry = record("failed")
    entry.exc_info = (type(error), error, None)
    fields = json.loads(JsonFormatter().format(entry))

    assert "ValueError" in fields["exception"]
    assert "abcdef" not in fields["exception"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("%(message)s")])
@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_taken_out(secret: str, formatter: logging.Formatter) -> None:
    line = formatter.format(record("metadata is %s", (("authorization", secret),)))

    assert "[hidden]" in line
    for part in ("abc", "Zm9v", "hunter2"):
        assert part not in line


def test_what_only_looks_like_a_secret_stays() -> None:
    assert told("bearers of shoal-agent-x at https://example.org:80/a@b")["message"].endswith(":80/a@b")
