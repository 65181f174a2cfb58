from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.data import Columns, DataError, Split, check_against, open_split
from tests.service.data.made import PLAIN, pixels, png, tar_of, write_shard, write_tar

ANY = "FORMAT_UNSPECIFIED"


def opened(path: Path, tmp_path: Path, columns: Columns | None = None, stored_as: Any = ANY) -> Split:
    return open_split(path, stored_as, PLAIN, tmp_path, "data.train", columns)


def refusal(path: Path, tmp_path: Path, stored_as: Any = ANY) -> str:
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path, stored_as=stored_as)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def truth(*seeds: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(seed)).permute(2, 0, 1) / 255 for seed in seeds])


def labelled(count: int, first: int = 0) -> list[dict[str, bytes]]:
    return [{"png": png(pixels(first + index)), "cls": str((first + index) % 3).encode()} for index in range(count)]


def test_one_shard_with_cls_labels(tmp_path: Path):
    split = opened(write_shard(tmp_path / "blob", labelled(5)), tmp_path)
    assert split.labels().tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(split.batch([4, 0, 2])[0][0], truth(4, 0, 2))


def test_nothing_is_unpacked(tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    opened(write_shard(tmp_path / "blob", labelled(5)), work)
    assert not [file for file in work.rglob("*") if file.is_file()]


@pytest.mark.parametrize("packed", [False, True])
def test_shards_follow_each_other_in_the_order_of_their_names(tmp_path: Path, packed: bool):
    folder = tmp_path / "d"
    folder.mkdir()
    for shard in (1, 0, 2):
        write_shard(folder / f"train-{shard:06}.tar", labelled(4, 4 * shard), first=4 * shard)
    split = opened(tar_of(folder, tmp_path / "blob") if packed else folder, tmp_path)
    assert torch.equal(split.batch([11, 0, 5, 5])[0][0], truth(11, 0, 5, 5))


def test_only_the_shards_of_the_wanted_split_are_read(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    write_shard(folder / "train-000000.tar", labelled(4))
    write_shard(folder / "val-000000.tar", labelled(3, 50))
    split = open_split(folder, ANY, PLAIN, tmp_path, "data.validation")
    assert torch.equal(split.batch([0, 1, 2])[0][0], truth(50, 51, 52))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_shard(tmp_path: Path, mode: str):
    with tarfile.open(tmp_path / "blob", mode) as archive:  # type: ignore[call-overload]
        for number, sample in enumerate(labelled(4)):
            for kind, content in sample.items():
                info = tarfile.TarInfo(f"{number}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert opened(tmp_path / "blob", tmp_path).labels().tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_every_kind_of_image(tmp_path: Path, kind: str):
    out = io.BytesIO()
    Image.fromarray(pixels(3)).save(out, kind)
    extension = {"JPEG": "jpg", "WEBP": "webp", "PNG": "PNG"}[kind]
    samples = [{extension: out.getvalue(), "cls": str(index).encode()} for index in range(2)]
    decoded = np.array(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))
    (inputs,), _ = opened(write_shard(tmp_path / "blob", samples), tmp_path).batch([0])
    assert torch.equal(inputs[0], torch.from_numpy(decoded).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("key", ["label", "labels", "cls"])
def test_json_labels(tmp_path: Path, key: str):
    samples = [{"png": png(pixels(i)), "json": json.dumps({"id": "x", key: i}).encode()} for i in range(3)]
    assert opened(write_shard(tmp_path / "blob", samples), tmp_path).labels().tolist() == [0, 1, 2]


def test_a_json_label_under_the_name_that_the_caller_gives(tmp_path: Path):
    samples = [{"png": png(pixels(i)), "json": json.dumps({"label": 0, "species": i}).encode()} for i in range(3)]
    split = opened(write_shard(tmp_path / "blob", samples), tmp_path, Columns(label="species"))
    assert split.labels().tolist() == [0, 1, 2]


def test_names_as_labels_and_names_of_samples_with_folders_and_dots(tmp_path: Path):
    members = [
        (tarfile.TarInfo(f"shard.dir/{name}.{kind}"), content)
        for name, label in (("a", b"dog"), ("b", b"cat\n"))
        for kind, content in (("seg.png", b"?"), ("png", png(pixels(1))), ("cls", label))
    ]
    split = opened(write_tar(tmp_path / "blob", members), tmp_path)
    assert split.classes == ("cat", "dog")
    assert split.labels().tolist() == [1, 0]


def test_json_lists_are_several_labels(tmp_path: Path):
    samples = [
        {"png": png(pixels(i)), "json": json.dumps({"labels": label}).encode()}
        for i, label in enumerate([[0, 4], [], [2]])
    ]
    split = opened(write_shard(tmp_path / "blob", samples), tmp_path).widened(6)
    assert split.batch([0, 1, 2])[1].tolist() == [[1, 0, 0, 0, 1, 0], [0] * 6, [0, 0, 1, 0, 0, 0]]


def test_broken_and_missing_images_are_counted_by_name(tmp_path: Path):
    samples = labelled(60)
    samples[7]["png"] = b"torn"
    samples[9] = {"cls": b"0"}
    split = opened(write_shard(tmp_path / "blob", samples), tmp_path)
    assert (len(split), split.broken) == (58, 2)
    assert split.broken_names[0].startswith("blob/0007.png: ")
    assert split.broken_names[1].startswith("blob/0009.cls: the sample holds no image")


@pytest.mark.parametrize("kind", ["pyd", "pickle", "pkl", "pth"])
def test_pickles_are_refused_by_name_and_never_read(tmp_path: Path, kind: str):
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    samples = [{"png": png(pixels(0)), kind: pickle.dumps(Bomb())}]
    assert f"0000.{kind}, which would have to be unpickled" in refusal(
        write_shard(tmp_path / "blob", samples), tmp_path
    )
    assert not (tmp_path / "exploded").exists()


def test_other_members_are_left_alone(tmp_path: Path):
    samples = [{**sample, "npy": b"\x93NUMPY?", "txt": b"a dog"} for sample in labelled(3)]
    assert opened(write_shard(tmp_path / "blob", samples), tmp_path).labels().tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png"])
def test_climbing_names_are_refused(tmp_path: Path, name: str):
    members = [(tarfile.TarInfo(f"0.{kind}"), content) for kind, content in labelled(1)[0].items()]
    file = write_tar(tmp_path / "blob", [*members, (tarfile.TarInfo(name), b"x")])
    assert "lies outside" in refusal(file, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("1.png")
    info.type, info.linkname = kind, "/etc/passwd"
    members = [(tarfile.TarInfo(f"0.{kind}"), content) for kind, content in labelled(1)[0].items()]
    assert "a link, a device" in refusal(write_tar(tmp_path / "blob", [*members, (info, b"")]), tmp_path)


def test_a_truncated_shard_is_refused(tmp_path: Path):
    file = write_shard(tmp_path / "blob", [{"png": png(pixels(0, 64, 64)), "cls": b"0"} for _ in range(9)])
    file.write_bytes(file.read_bytes()[:20_000])
    assert "cannot read blob as a tar archive" in refusal(file, tmp_path)


def test_a_header_that_states_gigabytes_is_not_believed(tmp_path: Path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 * 2**30
    file = write_shard(tmp_path / "blob", labelled(2))
    content = file.read_bytes()
    with file.open("wb") as out:
        out.write(content[: content.rindex(b"0001.cls")] + info.tobuf(tarfile.GNU_FORMAT))
        out.truncate(9 * 2**30)  # a hole: the file takes no room
    assert "a header of 8589934592 bytes" in refusal(file, tmp_path, "FORMAT_WEBDATASET")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"json": b"{"}, "is no JSON"),
        ({"json": b'{"label": {"a": 1}}'}, "has the label {'a': 1}"),
        ({"json": b'{"label": 0.5}'}, "has the label 0.5"),
        ({"cls": b"\xff\xfe"}, "is no text"),
        ({"cls": b"-7"}, "has the label -7"),
        ({"json": b" " * 2**20 + b"1"}, "at most 1048576 are read"),
    ],
)
def test_labels_that_are_none_are_refused_with_the_sample(tmp_path: Path, label: dict[str, bytes], said: str):
    samples = [*labelled(3), {"png": png(pixels(0)), **label}]
    message = refusal(write_shard(tmp_path / "blob", samples), tmp_path)
    assert said in message
    assert "blob/0003" in message


def test_labels_beyond_the_outputs_are_refused(tmp_path: Path):
    split = opened(write_shard(tmp_path / "blob", labelled(4)), tmp_path)
    with pytest.raises(DataError, match="highest 2"):
        check_against(split, 2)


def test_class_folders_with_the_same_names_inside_are_no_shard(tmp_path: Path):
    members = [(tarfile.TarInfo(f"{name}/0.png"), png(pixels(0))) for name in ("a", "b")]
    assert opened(write_tar(tmp_path / "blob", members), tmp_path).classes == ("a", "b")
