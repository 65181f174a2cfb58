from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.data import DataError, ResolvedPreprocessing, Split, check_against, check_same_classes, open_split
from tests.service.data.made import PLAIN, encoded, pixels, png, tar_of, write_folders, write_parquet, write_tar, zip_of

RAW = ResolvedPreprocessing((3, 8, 8), raw=True)
ANY = "FORMAT_UNSPECIFIED"


def opened(path: Path, tmp_path: Path, recipe: ResolvedPreprocessing = PLAIN, stored_as: Any = ANY) -> Split:
    return open_split(path, stored_as, recipe, tmp_path, "data.train")


def refusal(path: Path, tmp_path: Path, recipe: ResolvedPreprocessing = PLAIN, stored_as: Any = ANY) -> str:
    with pytest.raises(DataError) as caught:
        opened(path, tmp_path, recipe, stored_as)
    assert caught.value.field == "data.train"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected(seeds: list[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(seed)).permute(2, 0, 1) / 255 for seed in seeds])


def save(file: Path, **arrays: Any) -> Path:
    with file.open("wb") as out:
        np.savez(out, **arrays)
    return file


def stack(count: int, **shape: int) -> Any:
    return np.stack([pixels(seed, **shape) for seed in range(count)])


# Class folders


def test_class_folders_are_numbered_by_name(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"b": 2, "a": 3}), tmp_path)
    assert split.classes == ("a", "b")
    assert split.labels().tolist() == [0, 0, 0, 1, 1]
    (inputs,), labels = split.batch([0, 4])
    assert torch.equal(inputs, expected([2, 1]))
    assert labels.tolist() == [0, 1]


def test_folders_inside_a_class_count_to_it_and_hidden_files_do_not(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    (root / "a" / "more").mkdir()
    (root / "a" / "more" / "x.png").write_bytes(png(pixels(9)))
    (root / "a" / ".DS_Store").write_bytes(b"?")
    (root / ".git").mkdir()
    assert opened(root, tmp_path).labels().tolist() == [0, 0, 1]


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(pixels(9)))
    (root / "a" / "link.png").symlink_to(secret)
    assert len(opened(root, tmp_path)) == 2


def test_a_flat_folder_is_unlabelled(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"a": 3}) / "a", tmp_path)
    assert split.labels().tolist() == [-1, -1, -1]
    assert split.classes is None
    assert not split.labelled


def test_one_class_is_refused(tmp_path: Path):
    message = refusal(write_folders(tmp_path / "d", {"cat": 3}), tmp_path)
    assert "one class (cat)" in message


def test_an_empty_folder_is_refused(tmp_path: Path):
    (tmp_path / "d").mkdir()
    assert "is empty" in refusal(tmp_path / "d", tmp_path)


@pytest.mark.parametrize(("field", "classes"), [("data.train", ("a", "b")), ("data.validation", ("c", "d"))])
def test_of_several_splits_the_right_one_is_taken(tmp_path: Path, field: str, classes: tuple[str, ...]):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / "val", {"c": 1, "d": 1})
    write_folders(tmp_path / "d" / "test", {"e": 1, "f": 1})
    assert open_split(tmp_path / "d", ANY, PLAIN, tmp_path, field).classes == classes


def test_the_test_split_validates_where_there_is_no_other(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / "test", {"e": 1, "f": 1})
    assert open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation").classes == ("e", "f")


def test_training_samples_never_validate(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"another split \(train\); wanted validation or test"):
        open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")


def test_two_folders_for_one_split_are_refused(tmp_path: Path):
    message = refusal(write_folders(tmp_path / "d", {"train-1": 1, "train-2": 1}), tmp_path)
    assert "train-1, train-2, which could all be the split" in message


def test_a_class_may_be_called_train(tmp_path: Path):
    assert opened(write_folders(tmp_path / "d", {"bus": 1, "train": 1}), tmp_path).classes == ("bus", "train")


def test_a_missing_path_is_refused(tmp_path: Path):
    assert "cannot read nowhere: No such file or directory" in refusal(tmp_path / "nowhere", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_refused(tmp_path: Path):
    folder = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    (folder / "a").chmod(0)
    assert "cannot read" in refusal(folder, tmp_path)


# Broken images


def test_a_few_broken_images_are_counted_named_and_skipped(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 20, "b": 21})
    (root / "a" / "007.png").write_bytes(png(pixels(7))[:60])
    (root / "b" / "000.png").write_bytes(b"not an image")
    split = opened(root, tmp_path)
    assert (len(split), split.broken) == (39, 2)
    assert split.broken_names[0].startswith("a/007.png: ")
    assert split.labels().tolist() == [0] * 19 + [1] * 20


def test_many_broken_images_are_refused(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 10, "b": 10})
    for index in (1, 2):
        (root / "a" / f"{index:03}.png").write_bytes(b"")
    message = refusal(root, tmp_path)
    assert "2 of 20 images cannot be decoded" in message
    assert "a/001.png" in message


def test_a_decompression_bomb_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    root = write_folders(tmp_path / "d", {"a": 30, "b": 30})
    for name, size in (("warned.png", 11), ("refused.png", 30)):
        (root / "a" / name).write_bytes(png(pixels(1, size, size)))
    split = opened(root, tmp_path)
    assert split.broken == 2
    assert len(split) == 60


def test_postscript_is_not_decoded(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 20, "b": 20})
    out = io.BytesIO()
    Image.fromarray(pixels(1)).save(out, "EPS")
    (root / "a" / "999.png").write_bytes(out.getvalue())
    assert opened(root, tmp_path).broken == 1


# Tar


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_of_class_folders(tmp_path: Path, mode: str):
    split = opened(tar_of(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path / "blob", mode), tmp_path)
    assert split.classes == ("a", "b")
    assert torch.equal(split.batch([3])[0][0], expected([3]))


def test_a_tar_that_wraps_everything_in_one_folder(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 2, "b": 2})
    assert opened(tar_of(tmp_path / "d", tmp_path / "blob"), tmp_path).classes == ("a", "b")


def test_a_tar_of_one_class_is_refused(tmp_path: Path):
    assert "one class" in refusal(tar_of(write_folders(tmp_path / "d", {"a": 2}), tmp_path / "blob"), tmp_path)


def test_a_tar_of_parquet_shards(tmp_path: Path):
    (tmp_path / "d").mkdir()
    write_parquet(tmp_path / "d" / "0.parquet", {"image": encoded(3), "label": [0, 1, 0]})
    write_parquet(tmp_path / "d" / "1.parquet", {"image": encoded(2), "label": [1, 1]})
    assert opened(tar_of(tmp_path / "d", tmp_path / "blob"), tmp_path).labels().tolist() == [0, 1, 0, 1, 1]


def hostile(kind: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("../../shoal-escaped" if kind == "outside" else "a/link")
    if kind in ("symlink", "hardlink"):
        info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        info.linkname = "/etc/passwd"
    if kind == "device":
        info.type = tarfile.CHRTYPE
    return info


@pytest.mark.parametrize("kind", ["outside", "symlink", "hardlink", "device"])
def test_a_hostile_tar_is_refused_and_writes_nothing_outside(tmp_path: Path, kind: str):
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    image = png(pixels(0))
    members = [(tarfile.TarInfo("a/0.png"), image), (tarfile.TarInfo("b/0.png"), image), (hostile(kind), b"")]
    file = write_tar(tmp_path / "blob", members)
    refusal(file, work)
    assert not list(tmp_path.rglob("shoal-escaped"))


def test_a_truncated_tar_is_refused(tmp_path: Path):
    file = tar_of(write_folders(tmp_path / "d", {"a": 4, "b": 4}, size=64), tmp_path / "blob", "w:gz")
    file.write_bytes(file.read_bytes()[:-3000])
    assert "tar archive" in refusal(file, tmp_path)


# Zip


def test_a_zip_of_class_folders(tmp_path: Path):
    split = opened(zip_of(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path / "blob"), tmp_path)
    assert split.classes == ("a", "b")
    assert torch.equal(split.batch([3])[0][0], expected([3]))


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize("wrapped", ["", "everything"])
def test_splits_in_an_archive(tmp_path: Path, pack: Any, wrapped: str):
    write_folders(tmp_path / "d" / wrapped / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / wrapped / "val", {"a": 2, "b": 3})
    archive = pack(tmp_path / "d", tmp_path / "blob")
    for field, count in (("data.train", 2), ("data.validation", 5)):
        assert len(open_split(archive, ANY, PLAIN, tmp_path, field)) == count


def test_archives_of_splits_in_a_folder(tmp_path: Path):
    (tmp_path / "d").mkdir()
    zip_of(write_folders(tmp_path / "t", {"a": 1, "b": 1}), tmp_path / "d" / "train.zip")
    zip_of(write_folders(tmp_path / "v", {"a": 2, "b": 3}), tmp_path / "d" / "val.zip")
    assert len(open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")) == 5


def test_a_zip_that_climbs_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        archive.writestr("../../escaped.png", b"x")
    assert "its name is unsafe" in refusal(tmp_path / "blob", tmp_path)


# Parquet

CLASS_LABEL = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def test_parquet_with_hugging_face_columns(tmp_path: Path):
    table = {"image": encoded(20), "label": [0, 1] * 10}
    split = opened(write_parquet(tmp_path / "x", table, CLASS_LABEL), tmp_path)
    assert split.classes == ("cat", "dog")
    (inputs,), labels = split.batch([19, 4, 4])
    assert torch.equal(inputs, expected([19, 4, 4]))
    assert labels.tolist() == [1, 0, 0]


def test_parquet_with_plain_bytes_and_other_names(tmp_path: Path):
    table = {"img": [cell["bytes"] for cell in encoded(4)], "labels": [3, 1, None, 1]}
    split = opened(write_parquet(tmp_path / "x", table), tmp_path)
    assert split.labels().tolist() == [3, 1, -1, 1]
    assert torch.equal(split[1][0][0], expected([1])[0])


def test_parquet_with_names_as_labels(tmp_path: Path):
    split = opened(write_parquet(tmp_path / "x", {"image": encoded(3), "label": ["dog", "cat", "dog"]}), tmp_path)
    assert split.classes == ("cat", "dog")
    assert split.labels().tolist() == [1, 0, 1]


def test_parquet_without_labels(tmp_path: Path):
    assert opened(write_parquet(tmp_path / "x", {"image": encoded(3)}), tmp_path).labels().tolist() == [-1] * 3


def test_parquet_in_a_folder_whose_name_is_a_pattern(tmp_path: Path):
    folder = tmp_path / "we[i]rd*"
    folder.mkdir()
    write_parquet(folder / "a.parquet", {"image": encoded(2), "label": [0, 1]})
    assert len(opened(folder, tmp_path)) == 2


def test_parquet_never_opens_the_path_that_a_row_names(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(png(pixels(0)))
    rows = [*encoded(40), {"bytes": None, "path": str(tmp_path / "secret.png")}]
    split = opened(write_parquet(tmp_path / "x", {"image": rows}), tmp_path)
    assert split.broken == 1
    assert "embed" in split.broken_names[0]


def test_parquet_without_an_image_column_names_what_it_found(tmp_path: Path):
    message = refusal(write_parquet(tmp_path / "x", {"picture": [b"1"], "label": [0]}), tmp_path)
    assert "picture (binary)" in message
    assert "'image'" in message


def test_parquet_with_fractional_labels_is_refused(tmp_path: Path):
    message = refusal(write_parquet(tmp_path / "x", {"image": encoded(2), "label": [0.5, 1.0]}), tmp_path)
    assert "double" in message


def test_empty_parquet_is_refused(tmp_path: Path):
    import pyarrow as pa

    message = refusal(write_parquet(tmp_path / "x", {"image": pa.array([], pa.binary())}), tmp_path)
    assert "no rows" in message


def test_truncated_parquet_is_refused(tmp_path: Path):
    file = write_parquet(tmp_path / "x", {"image": encoded(20), "label": [0, 1] * 10})
    file.write_bytes(file.read_bytes()[:2000])
    assert "cannot read Parquet" in refusal(file, tmp_path)


def test_of_a_folder_with_several_splits_of_parquet_the_right_files_are_taken(tmp_path: Path):
    (tmp_path / "d").mkdir()
    for name, count in (("train-00000-of-00002", 2), ("train-00001-of-00002", 3), ("test", 4)):
        table = {"image": encoded(count), "label": [0, *[1] * (count - 1)]}
        write_parquet(tmp_path / "d" / f"{name}.parquet", table)
    assert len(opened(tmp_path / "d", tmp_path)) == 5
    assert len(open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")) == 4
    with pytest.raises(DataError, match=r"several splits \(test, train\); give the files of one"):
        open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data")


# NumPy archives


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)])
@pytest.mark.parametrize(("image", "label"), [("images", "labels"), ("x", "y")])
def test_npz_in_either_layout(tmp_path: Path, order: tuple[int, ...], image: str, label: str):
    file = save(tmp_path / "blob", **{image: stack(4).transpose(order), label: np.array([0, 1, 1, 0])})
    split = opened(file, tmp_path)
    assert torch.equal(split.batch(range(4))[0][0], expected([0, 1, 2, 3]))
    assert split.labels().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float32])
def test_npz_with_several_labels(tmp_path: Path, kind: Any):
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], kind)
    split = opened(save(tmp_path / "blob", x=stack(4), y=labels), tmp_path)
    check_against(split, 3)
    _, targets = split.batch([3, 1, 0])
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert split.labelled
    assert split.several
    with pytest.raises(DataError, match="vectors over 3 classes and the model has 4 outputs"):
        check_against(split, 4)


def test_npz_without_labels(tmp_path: Path):
    assert opened(save(tmp_path / "blob", images=stack(4)), tmp_path).labels().tolist() == [-1] * 4


def test_npz_of_gray_images_without_channel_axis(tmp_path: Path):
    recipe = ResolvedPreprocessing((1, 8, 8), (0.0,), (1.0,))
    file = save(tmp_path / "blob", images=stack(4, channels=1)[..., 0], labels=[0, 1, 0, 1])
    assert torch.equal(
        opened(file, tmp_path, recipe)[2][0][0], torch.from_numpy(pixels(2, channels=1)).permute(2, 0, 1) / 255
    )


def test_npz_images_of_another_size_are_resized_like_files(tmp_path: Path):
    large = opened(save(tmp_path / "blob", images=stack(2, height=20, width=30)), tmp_path)
    folder = tmp_path / "d"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(png(pixels(seed, 20, 30)))
    assert torch.equal(large.batch([0, 1])[0][0], opened(folder, tmp_path).batch([0, 1])[0][0])


def test_npz_of_floating_point_is_normalised_but_not_scaled(tmp_path: Path):
    recipe = ResolvedPreprocessing((3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    values = np.random.default_rng(0).random((4, 3, 8, 8))
    split = opened(save(tmp_path / "blob", images=values), tmp_path, recipe)
    np.testing.assert_allclose(split.batch([2])[0][0][0].numpy(), (values[2] - 0.5) / 0.25, atol=1e-6)


def test_npz_raw_passes_through(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32) * 50
    split = opened(save(tmp_path / "blob", x=values, y=[0, 1, 2, 0]), tmp_path, RAW)
    assert torch.equal(split.batch([3, 0])[0][0], torch.from_numpy(values[[3, 0]]))


@pytest.mark.parametrize(
    ("arrays", "recipe", "said"),
    [
        ({"x": np.zeros((4, 3, 9, 9), np.float32)}, RAW, "[3, 9, 9] (float32) and the model takes [3, 8, 8]"),
        ({"x": np.zeros((4, 3, 9, 9), np.float32)}, PLAIN, "[3, 9, 9] (float32) and the model takes [3, 8, 8]"),
        ({"x": np.zeros((4, 5, 9, 9), np.uint8)}, PLAIN, "[5, 9, 9] (uint8) and the model takes [3, 8, 8]"),
        ({"x": np.full((4, 3, 8, 8), 2.0)}, PLAIN, "from 2 to 2"),
        ({"x": np.full((4, 3, 8, 8), np.nan)}, RAW, "not finite"),
        ({"x": np.zeros((4, 3, 8, 8), np.int64)}, PLAIN, "of type int64"),
        ({"x": np.zeros((4, 3, 8, 8), np.complex64)}, RAW, "of type complex64"),
        ({"x": np.zeros((0, 3, 8, 8), np.uint8)}, PLAIN, "no samples"),
        ({"x": stack(4), "y": np.zeros(5, np.int64)}, PLAIN, "wanted 4 integers"),
        ({"x": stack(4), "y": np.zeros(4)}, PLAIN, "type float64"),
        ({"x": stack(4), "y": np.array([0, 1, -2, 0])}, PLAIN, "go down to -2"),
        ({"x": stack(4), "y": np.full((4, 3), 2)}, PLAIN, "other values than 0 and 1"),
        ({"x": stack(4), "y": np.full((4, 3), 0.5)}, PLAIN, "other values than 0 and 1"),
        ({"x": stack(4), "y": np.zeros((4, 3), np.int64)}, PLAIN, "no class applies to any of 4 samples"),
        ({"x": stack(4), "y": np.zeros((5, 3), np.int64)}, PLAIN, "wanted 4 integers"),
        ({"x": stack(4), "y": np.zeros(4, np.int64)}, PLAIN, "one class (0)"),
        ({"pictures": stack(4)}, PLAIN, "found pictures"),
        ({"x": np.array([{}, {}], dtype=object)}, RAW, "Python objects"),
        ({"x": stack(2), "y": np.array([{}, {}], dtype=object)}, PLAIN, "Python objects"),
    ],
)
def test_npz_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Any], recipe: ResolvedPreprocessing, said: str
):
    assert said in refusal(save(tmp_path / "blob", **arrays), tmp_path, recipe)


def test_a_damaged_npz_is_refused(tmp_path: Path):
    file = save(tmp_path / "blob", images=stack(50))
    content = bytearray(file.read_bytes())
    content[3000] ^= 0xFF
    file.write_bytes(content)
    assert "cannot read blob as .npz" in refusal(file, tmp_path)


def test_an_npz_whose_array_is_shorter_than_it_says_is_refused(tmp_path: Path):
    import zipfile

    out = io.BytesIO()
    np.save(out, stack(50))
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        archive.writestr("images.npy", out.getvalue()[:5000])
    assert "shape [50, 8, 8, 3] (uint8) and holds 4872 bytes" in refusal(tmp_path / "blob", tmp_path)


# Telling formats


def test_a_wrong_statement_about_the_format_is_refused(tmp_path: Path):
    message = refusal(save(tmp_path / "blob", images=stack(4)), tmp_path, stored_as="FORMAT_PARQUET")
    assert "said to be Parquet and is a NumPy archive" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 2000])
def test_unknown_content_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.parquet").write_bytes(content)
    refusal(tmp_path / "x.parquet", tmp_path)


@pytest.mark.parametrize("recipe", [RAW, ResolvedPreprocessing((4, 8, 8), (0.0,) * 4, (1.0,) * 4)])
def test_images_for_a_model_that_takes_none_are_refused(tmp_path: Path, recipe: ResolvedPreprocessing):
    assert ".npz" in refusal(write_folders(tmp_path / "d", {"a": 1, "b": 1}), tmp_path, recipe)


# Against the model and each other


def test_a_label_beyond_the_outputs_is_refused(tmp_path: Path):
    split = opened(save(tmp_path / "blob", x=stack(4), y=[0, 1, 2, 9]), tmp_path)
    check_against(split, 10)
    with pytest.raises(DataError, match="highest 9"):
        check_against(split, 9)


def test_folders_must_be_as_many_as_the_outputs(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path)
    check_against(split, 2)
    with pytest.raises(DataError, match=r"2 classes \('a', 'b'\) and the model has 1000 outputs"):
        check_against(split, 1000)


def test_numeric_labels_may_use_only_some_outputs(tmp_path: Path):
    check_against(opened(save(tmp_path / "blob", x=stack(4), y=[0, 1, 1, 0]), tmp_path), 1000)


def test_unlabelled_samples_fit_any_model(tmp_path: Path):
    check_against(opened(save(tmp_path / "blob", x=stack(4)), tmp_path), 7)


def test_one_class_in_one_split_and_several_in_the_other_are_refused(tmp_path: Path):
    one = opened(save(tmp_path / "one", x=stack(4), y=[0, 1, 2, 0]), tmp_path)
    several = opened(save(tmp_path / "several", x=stack(4), y=np.eye(4, 3)), tmp_path)
    check_same_classes(several, several)
    with pytest.raises(DataError, match="training has one class per sample and validation several"):
        check_same_classes(one, several)


def test_different_class_folders_are_refused(tmp_path: Path):
    train = opened(write_folders(tmp_path / "t", {"a": 1, "b": 1}), tmp_path)
    same = opened(write_folders(tmp_path / "s", {"a": 2, "b": 1}), tmp_path)
    other = open_split(write_folders(tmp_path / "o", {"a": 1, "c": 1}), ANY, PLAIN, tmp_path, "data.validation")
    check_same_classes(train, same)
    with pytest.raises(DataError, match="missing 'b'; unknown 'c'") as caught:
        check_same_classes(train, other)
    assert caught.value.field == "data.validation"
