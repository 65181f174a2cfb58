"""Opens a split, whatever it is stored as."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from service.data import arrays, tables
from service.data.checks import check_labels
from service.data.columns import Columns
from service.data.delimited import open_delimited
from service.data.errors import DataError, machine_is_to_blame
from service.data.images import Images, open_folder
from service.data.jsonl import open_jsonl
from service.data.labels import Labelling
from service.data.preprocessing import ResolvedPreprocessing
from service.data.split import Split
from service.data.store import ArrayStore, ImageStore, Store
from service.data.telling import STORED_AS, Format, Told, tell
from service.data.texts import TextStore
from service.data.tokens import TokenRecipe
from service.data.webdataset import open_shards
from service.wording import reason

Recipe = ResolvedPreprocessing | TokenRecipe


def open_split(
    path: Path,
    format: Format,  # noqa: A002  # the name of the field in the API
    preprocessing: Recipe,
    work: Path,
    field: str = "data",
    columns: Columns | None = None,
) -> Split:
    """Opens the samples of one split.

    Args:
        path: A folder, or a file. What a file is, its content tells; its name does not matter.
        format: What the caller says it is; `FORMAT_UNSPECIFIED` to be told by the content.
        preprocessing: How samples become model inputs.
        work: An existing folder for what must be unpacked; it must live as long as the split.
        field: The job spec's field to blame, `data.train` or `data.validation`. Where the path holds several splits, it
            says which.
        columns: Columns that the caller names.

    Raises:
        DataError: The samples cannot be used; the message says why.
        OSError: The machine is to blame: the disk is full, say.
    """
    own = Path(tempfile.mkdtemp(dir=work, prefix="split-"))
    try:
        told = tell(path, format, own, field)
        if format not in ("FORMAT_UNSPECIFIED", told.format):
            raise DataError(
                field,
                f"{path.name} was said to be {STORED_AS[format]} and is {STORED_AS[told.format]}; correct one of them",
            )
        reading = _Reading(told, columns or Columns(), own, field)
        store, labelling = (
            reading.images(preprocessing)
            if isinstance(preprocessing, ResolvedPreprocessing)
            else reading.feeds(preprocessing)
        )
    except OSError as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {path.name}: {reason(exc)}; check that it exists and is readable") from exc
    split = Split(store, labelling, preprocessing, field)
    check_labels(split)
    return split


@dataclass(frozen=True)
class _Reading:
    """Samples that were found, about to be read."""

    told: Told
    columns: Columns
    work: Path
    field: str

    def images(self, recipe: ResolvedPreprocessing) -> tuple[Store, Labelling]:
        """Returns samples for a network that takes one image, or one array."""
        found, files = self.told.format, self.told.files
        self._require_images(recipe)
        samples: Images
        if found == "FORMAT_NPZ":
            values, labelling = arrays.open_npz(files[0], self.work, recipe, self.field)
            if not isinstance(values, Images):
                return ArrayStore(values, recipe), labelling
            samples = values
        elif found in ("FORMAT_PARQUET", "FORMAT_ARROW"):
            samples, labelling = tables.open_images(files, recipe, self.columns, self.work, self.field)
        elif found == "FORMAT_WEBDATASET":
            samples, labelling = open_shards(files, recipe, self.columns, self.field)
        else:
            samples, labelling = open_folder(files[0], recipe, self.field)
        return ImageStore(samples, recipe, self.field), labelling

    def feeds(self, recipe: TokenRecipe) -> tuple[Store, Labelling]:
        """Returns samples for a network that takes texts, or several inputs."""
        found, files = self.told.format, self.told.files
        if found == "FORMAT_NPZ":
            return arrays.open_feeds(files[0], self.work, recipe, self.field)
        self._require_texts(recipe)
        if found in ("FORMAT_PARQUET", "FORMAT_ARROW"):
            texts, labelling = tables.open_texts(files, self.columns, self.work, self.field)
            return TextStore(texts, recipe, self.field), labelling
        read = open_jsonl if found == "FORMAT_JSONL" else open_delimited
        records, labelling = read(files, self.columns, self.field)
        return TextStore(records, recipe, self.field), labelling

    def _require_images(self, recipe: ResolvedPreprocessing) -> None:
        found = self.told.format
        if found in ("FORMAT_CSV", "FORMAT_JSONL"):
            raise DataError(
                self.field,
                f"{STORED_AS[found]} holds texts, and the model takes samples of shape "
                f"{list(recipe.sample_shape)}; give images in class folders, WebDataset shards, Parquet or Arrow, "
                "or arrays in a .npz",
            )
        if found != "FORMAT_NPZ" and (recipe.raw or recipe.channels not in (1, 3)):
            raise DataError(
                self.field,
                f"{STORED_AS[found]} holds images, and the model takes samples of shape {list(recipe.sample_shape)}"
                f"{' as they are (preprocessing.raw)' if recipe.raw else ''}; give a .npz with ready model inputs",
            )

    def _require_texts(self, recipe: TokenRecipe) -> None:
        found = self.told.format
        names = ", ".join(spec.name for spec in recipe.inputs)
        if found in ("FORMAT_CLASS_FOLDERS", "FORMAT_WEBDATASET"):
            raise DataError(
                self.field,
                f"{STORED_AS[found]} holds images, and the model takes {names}; give texts as CSV, TSV, JSON "
                f"lines, Parquet or Arrow, or a .npz with the arrays {names}",
            )
        if recipe.tokenizer is None:
            raise DataError(
                self.field,
                f"{STORED_AS[found]} holds texts, and there is no tokenizer for them; give the model as its "
                f"folder with tokenizer.json in it, as save_pretrained writes it, or ready inputs: a .npz with "
                f"the arrays {names}",
            )
