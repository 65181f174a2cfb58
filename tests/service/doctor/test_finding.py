from __future__ import annotations

from collections.abc import Iterator

from service.doctor.finding import Finding, Level, examine, needing


def test_a_check_that_breaks_is_a_finding_and_keeps_what_it_had_found() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("some", "first", Level.OK, "fine")
        raise RuntimeError("two\nlines")

    first, second = examine("some", check)

    assert first.level is Level.OK
    assert (second.area, second.level, second.found) == ("some", Level.FAIL, "RuntimeError: two lines")


def test_a_package_that_is_missing_names_the_extra() -> None:
    def check() -> Iterator[Finding]:
        with needing("some", "thing", Level.WARN, "server"):
            import no_such_package  # noqa: F401
        yield Finding("some", "never", Level.OK, "")

    (found,) = examine("some", check)

    assert (found.level, found.found, found.advice) == (
        Level.WARN,
        "no_such_package is not installed",
        "install shoal[server]",
    )
