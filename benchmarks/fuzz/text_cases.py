"""Broken texts: CSV, TSV and JSON lines with fields, lines, quotes, encodings and labels that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.fuzz.data_seeds import SAMPLES, sentences
from benchmarks.fuzz.values import FLOATS, INTEGERS, STRINGS, Random, chance, mangle, pick

_LABELS = (
    *(
        "0",
        "1",
        "-1",
        "-2",
        "1.0",
        "1.5",
        "nan",
        "inf",
        "1e400",
        "1e3",
        "true",
        "null",
        "",
        " ",
        '"',
        "[0, 1]",
        "cat",
        "+1",
    ),
    *(
        "9" * 18,
        "9" * 30,
        "0x1",
        "1_000",
        "\u0661",
        "a\u202eb",
        "A" * 70_000,
        "999999",
        "1000000",
        "1e18",
        ".5",
        "5.",
        "--1",
    ),
)
_RAW = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"true",
        b"null",
        b"[]",
        b"[0, 1]",
        b"[[0]]",
        b"{}",
        b'""',
        b'"cat"',
    ),
    *(b"1.5", b"-1", b"-2", b"[null]", b"[1e999]", b"[true, 0]", b'["a", 1]', b'"\\ud800"', b'"\\u0000"', b'"a\\nb"'),
    *(
        b"[-1]",
        b"[999999]",
        b"[1000000]",
        b"1e18",
        b"1e3",
        b"[0.5]",
        b"0",
        b"1",
        b"[1, 1]",
        b'["a", "a"]',
        b"'a'",
        b"01",
    ),
)
_KEYS = ("text", "label", "sentence1", "sentence2", "content", "target", "\ud800", "", "a" * 3000, "a\nb", "__class__")


def broken_texts(random: Random) -> bytes:
    """Returns a file of texts."""
    data = pick(random, _WAYS)(random)
    if chance(random, 0.25):
        data = mangle(random, data, random.bytes(300))
    return _encoded(random, data) if chance(random, 0.15) else data


def _encoded(random: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    code = pick(random, ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp1252", "utf-7"))
    return text.encode(code, "replace")


@cache
def _endless(kind: int) -> bytes:
    """Returns something that is too much of one thing."""
    return (
        b"a" * (1 << 20) + b"b",
        b"word " * 400_000,
        b"x" * (17 << 20),
        b"9" * 1_000_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' * 100_001,
        b"," * 300_000,
        b"\0" * 1000,
        "é".encode() * 600_000,
        "\u202e\ufeff\u0301".encode() * 1000,
        b"\\u0041" * 10_000,
    )[kind]


def _too_much(random: Random) -> bytes:
    return _endless(int(random.integers(12)))


def _table(random: Random) -> bytes:
    """CSV or TSV."""
    separator = pick(random, (",", "\t", ";"))
    header = separator.join(
        pick(random, (("text", "label"), ("label", "text"), ("sentence1", "sentence2", "label"), ("text",)))
    )
    end = pick(random, ("\n", "\r\n", "\r", "\n\n"))
    rows: list[bytes] = [_header(random, header, separator).encode("utf-8", "surrogateescape")]
    for index, text in enumerate(sentences()):
        fields = [f'"{text.replace(chr(34), chr(34) * 2)}"', str(index % 2)]
        if "sentence1" in header:
            fields.insert(0, f"first {index}")
        elif header.startswith("label"):
            fields.reverse()
        rows.append(separator.join(fields).encode())
    broken = [_row(random, separator) for _ in range(int(pick(random, (0, 1, 1, 2, SAMPLES))))]
    for row in broken:
        rows.insert(int(random.integers(1, len(rows) + 1)), row)
    return end.encode().join(rows)


def _header(random: Random, header: str, separator: str) -> str:
    if chance(random, 0.75):
        return header
    odd = (
        header.upper(),
        f'"{header}"',
        header + separator,
        header + separator + "text",
        separator * 9,
        "",
        "a" * 70_000,
    )
    return str(
        pick(random, (*odd, *(separator.join((name, "label")) for name in STRINGS), "\ufeff" + header, header + "\0"))
    )


def _row(random: Random, separator: str) -> bytes:
    mark = separator.encode()
    text = pick(random, (*STRINGS, "good", "bad")).encode("utf-8", "surrogatepass")
    label = pick(random, _LABELS).encode()
    rows: tuple[Callable[[], bytes], ...] = (
        lambda: _too_much(random),
        lambda: b'"' + _too_much(random) + b'"' + mark + b"1",
        lambda: b'"never closed' + mark + b"1",
        lambda: mark.join([b"x"] * int(random.integers(6))),
        lambda: b'"a"b"c' + mark + b'"1"x',
        lambda: random.bytes(40),
        lambda: text + mark + label,
        lambda: label + mark + text,
    )
    return pick(random, rows)()


def _lines(random: Random) -> bytes:
    """JSON lines."""
    rows = [json.dumps({"text": text, "label": index % 2}).encode() for index, text in enumerate(sentences())]
    if chance(random, 0.3):
        rows = [json.dumps({"text": text, "label": [index % 3, 2]}).encode() for index, text in enumerate(sentences())]
    for _ in range(int(pick(random, (0, 1, 1, 2, SAMPLES)))):
        rows.insert(int(random.integers(len(rows) + 1)), _object(random))
    end = pick(random, (b"\n", b"\r\n", b"\r", b"\n\n", b",\n"))
    return pick(random, (b"", b"", b"[", b"\xef\xbb\xbf", b"\n")) + end.join(rows)


def _object(random: Random) -> bytes:
    values = (*STRINGS, *FLOATS, *INTEGERS, None, [], {})
    odd = (b"", b"{}", b"[]", b"3", b'"x"', b'{"text": "a", "text": "b"}', b"{'text': 'a'}", b"{,}", b"\xff\xfe{")
    objects: tuple[Callable[[], bytes], ...] = (
        lambda: _too_much(random),
        lambda: b'{"text": ' + _too_much(random) + b', "label": 1}',
        lambda: b'{"text": "' + _too_much(random) + b'", "label": 1}',
        lambda: b'{"text": "a", "label": ' + _too_much(random) + b"}",
        lambda: b'{"text": "good", "label": ' + pick(random, _RAW) + b"}",
        lambda: b'{"text": "good", "label": ' + pick(random, _RAW) + b"}",
        lambda: b'{"text": ' + pick(random, _RAW) + b', "label": 0}',
        lambda: pick(random, odd),
        lambda: json.dumps({pick(random, _KEYS): pick(random, values) for _ in range(3)}).encode(),
    )
    return pick(random, objects)()


_WAYS: tuple[Callable[[Random], bytes], ...] = (_table, _lines)


def lies_about_labels(random: Random) -> Any:
    """Returns the content of a sample's label file in a shard, and what it is called after."""
    kind = pick(random, ("cls", "json", "json"))
    if kind == "cls":
        return kind, pick(
            random, (*(label.encode() for label in _LABELS), b"\xff", random.bytes(20), b"\0", _endless(3))
        )
    raw = pick(random, (*_RAW, _endless(3), _endless(4), _endless(5)))
    return kind, raw if chance(random, 0.3) else b'{"label": ' + raw + b"}"
