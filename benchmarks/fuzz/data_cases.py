"""Broken data: files of every format, archives around them, samples in them, and what a job says about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.fuzz.archive_cases import NAMES, broken_archive
from benchmarks.fuzz.array_cases import broken_arrays
from benchmarks.fuzz.data_opening import HOW, RECIPES
from benchmarks.fuzz.data_seeds import Seed, folder_entries, seeds, shard_entries, split_entries, tar_of, zip_of
from benchmarks.fuzz.picture_cases import hostile_picture
from benchmarks.fuzz.table_cases import broken_table
from benchmarks.fuzz.text_cases import broken_texts, lies_about_labels
from benchmarks.fuzz.values import STRINGS, Random, chance, mangle, pick

_FORMATS = ("CLASS_FOLDERS", "PARQUET", "NPZ", "ARROW", "WEBDATASET", "CSV", "JSONL", "UNSPECIFIED")
_FIELDS = ("data.train", "data.train", "data.validation", "data")


def build(random: Random) -> dict[str, bytes]:
    """Returns one case: files by name; the first is the upload, the other what the job says about it."""
    seed = pick(random, _WAYS)(random)
    return {"upload": seed.data, HOW: _how(random, seed)}


def whole() -> list[dict[str, bytes]]:
    """Returns the seeds as cases, unbroken."""
    return [{"upload": seed.data, HOW: _asked(recipe=seed.recipe)} for seed in seeds()]


def _asked(**changes: Any) -> bytes:
    how = {"format": "FORMAT_UNSPECIFIED", "field": "data.train", "text": [], "image": "", "label": ""}
    return json.dumps(how | changes).encode()


def _how(random: Random, seed: Seed) -> bytes:
    changes: dict[str, Any] = {"recipe": seed.recipe, "field": pick(random, _FIELDS)}
    if chance(random, 0.1):
        changes["recipe"] = pick(random, list(RECIPES))
    if chance(random, 0.1):
        changes["format"] = f"FORMAT_{pick(random, _FORMATS)}"
    if chance(random, 0.1):
        names = ("text", "label", "image", "labels", "sentence1", *STRINGS)
        changes |= {"text": [pick(random, names)], "image": pick(random, names), "label": pick(random, names)}
    return _asked(**changes)


def _mangled(random: Random) -> Seed:
    seed, other = pick(random, seeds()), pick(random, seeds())
    return Seed(seed.recipe, mangle(random, seed.data, other.data))


def _archive(random: Random) -> Seed:
    """An archive that lies, of class folders, of shards, or of any other file."""
    kind = int(random.integers(5))
    if kind == 0:
        inner = pick(random, seeds())
        name = pick(random, ("data", "train.parquet", "val.csv", "a/b.npz", "train.jsonl", "train/x.arrow"))
        return Seed(inner.recipe, broken_archive(random, [(name, inner.data)]))
    return Seed(
        "images", broken_archive(random, (folder_entries, split_entries, shard_entries, folder_entries)[kind - 1]())
    )


def _folders(random: Random) -> Seed:
    """Class folders with images that are none."""
    entries = list(folder_entries())
    for _ in range(int(pick(random, (1, 1, 1, 2, len(entries))))):
        place = int(random.integers(len(entries)))
        entries[place] = (entries[place][0], hostile_picture(random))
    return Seed(pick(random, ("images", "gray", "larger")), pick(random, (zip_of, tar_of))(entries))


def _shard(random: Random) -> Seed:
    """Shards with images and labels that are none, and members nobody asked for."""
    entries = list(shard_entries())
    for _ in range(int(pick(random, (1, 1, 2, 20)))):
        place = int(random.integers(len(entries) // 2)) * 2
        if chance(random, 0.4):
            entries[place] = (entries[place][0], hostile_picture(random))
        elif chance(random, 0.7):
            kind, content = lies_about_labels(random)
            entries[place + 1] = (f"{entries[place][0][:-4]}.{kind}", content)
        else:
            entries.insert(place, (_name(random), b"1"))
    return Seed(pick(random, ("images", "gray")), tar_of(entries))


def _name(random: Random) -> str:
    names = ("0000.pyd", "0001.pkl", ".png", "a.b.c.png", "0002.PNG", "0003", "0004.cls", "./0005.png", *NAMES)
    return str(pick(random, names)).encode("utf-8", "ignore").decode() + pick(random, ("", ".png", ".cls", ".json"))


def _arrays(random: Random) -> Seed:
    return Seed(*broken_arrays(random))


def _tables(random: Random) -> Seed:
    return Seed(*broken_table(random))


def _texts(random: Random) -> Seed:
    return Seed("texts", broken_texts(random))


def _whole(random: Random) -> Seed:
    return pick(random, seeds())


_WAYS: tuple[Callable[[Random], Seed], ...] = (
    *(_mangled, _mangled, _archive, _archive, _archive, _folders, _shard, _arrays, _arrays, _tables, _tables, _tables),
    *(_texts, _texts, _whole),
)
