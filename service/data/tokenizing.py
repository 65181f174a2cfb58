"""The tokenizer of a model's folder, loaded as data: no code of a model's author ever runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from service.data.errors import DataError
from service.wording import reason

if TYPE_CHECKING:
    from service.data.texts import Text
    from service.data.tokens import Tokenizer

VOCABULARIES: Final = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
FIELD: Final = "model"

_MAX_BYTES = 128 * 2**20
_CHARACTERS: Final = 64
"""Of a text for each token of the input; words have a tenth of that."""
_MARGIN: Final = 1024
_PADDING: Final = ("[PAD]", "<pad>", "<|pad|>", "<PAD>", "<|endoftext|>", "</s>")
_SIDES: Final = ("left", "right")
_CODE: Final = ("auto_map", "trust_remote_code")


def load_tokenizer(folder: Path, length: int) -> Tokenizer | None:
    """Returns the tokenizer of a model's folder, None where there is none.

    Args:
        folder: Holds `tokenizer.json`, or the vocabulary files of a tokenizer that transformers knows; and the settings
            beside it.
        length: What texts are cut and padded to, in tokens.

    Raises:
        DataError: It is damaged, or asks for code of its own.
    """
    settings = _settings(folder)
    if (folder / "tokenizer.json").is_file():
        return _Fast(folder / "tokenizer.json", settings, length)
    if any((folder / name).is_file() for name in VOCABULARIES):
        return _OfTransformers(folder, settings, length)
    return None


@final
class _Fast:
    """A `tokenizer.json`, read by the tokenizers library: a description of steps, with no code in it."""

    def __init__(self, file: Path, settings: Mapping[str, Any], length: int) -> None:
        from tokenizers import Tokenizer as Library

        self._file = file
        self._length = length
        text = _read(file)
        self._sha256 = hashlib.sha256(text).hexdigest()
        with _loading(file.name):
            self._library = Library.from_str(text.decode())
            before: Mapping[str, Any] = self._library.padding or {}
            token, number = _padding(self._library, settings, before)
            side = _side(settings, "padding_side", before.get("direction", "right"))
            self._cut = _side(settings, "truncation_side", (self._library.truncation or {}).get("direction", "right"))
            self._library.enable_truncation(max_length=length, strategy="longest_first", direction=self._cut)
            self._library.enable_padding(
                direction=side, pad_id=number, pad_type_id=before.get("pad_type_id", 0), pad_token=token, length=length
            )

    @property
    def fingerprint(self) -> str:
        """Says which one it is."""
        return f"{self._file.name} {self._sha256[:16]}, {self._library.get_vocab_size()} tokens"

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        """Returns ids, attention masks and segments, each (texts, length)."""
        found = _shortened(texts, self._length, self._cut, self._encode)
        if any(len(one.ids) != self._length for one in found):
            raise DataError(
                FIELD, f"{self._file.name} does not keep to {self._length} tokens; save the tokenizer again"
            )
        return [one.ids for one in found], [one.mask for one in found], [one.segments for one in found]

    def _encode(self, texts: Sequence[Text]) -> list[_Encoded]:
        with _loading(self._file.name):
            found = self._library.encode_batch([text[0] if len(text) == 1 else (text[0], text[1]) for text in texts])
            return [_Encoded(one.ids, one.attention_mask, one.type_ids) for one in found]


@final
class _OfTransformers:
    """A tokenizer of the transformers library, from vocabulary files; its class is one of the library's own."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], length: int) -> None:
        try:
            from transformers import AutoTokenizer
        except ModuleNotFoundError as exc:
            raise DataError(
                FIELD, f"the model's folder has no tokenizer.json, and without it {exc.name} is needed; save one"
            ) from exc
        self._length = length
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(prefix="shoal-tokenizer-") as place:
            for name in VOCABULARIES:
                if (folder / name).is_file():
                    digest.update(_read(folder / name))
                    shutil.copyfile(folder / name, Path(place) / name)
            _write_settings(Path(place), settings)
            with _loading("the vocabulary"):
                self._library: Any = AutoTokenizer.from_pretrained(
                    place, trust_remote_code=False, local_files_only=True
                )
        if self._library.pad_token is None:
            self._library.pad_token = self._library.eos_token or self._library.unk_token
        self._sha256 = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Says which one it is."""
        return f"{type(self._library).__name__} {self._sha256[:16]}, {len(self._library)} tokens"

    def encode(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        """Returns ids, attention masks and segments, each (texts, length)."""
        found = _shortened(texts, self._length, self._library.truncation_side, self._encode)
        return [one.ids for one in found], [one.mask for one in found], [one.segments for one in found]

    def _encode(self, texts: Sequence[Text]) -> list[_Encoded]:
        pairs = [text[1] if len(text) > 1 else "" for text in texts] if any(len(text) > 1 for text in texts) else None
        with _loading("the vocabulary"):
            found = self._library(
                [text[0] for text in texts],
                pairs,
                padding="max_length",
                truncation=True,
                max_length=self._length,
                return_token_type_ids=True,
                return_attention_mask=True,
            )
            rows = zip(found["input_ids"], found["attention_mask"], found["token_type_ids"], strict=True)
            return [_Encoded(*row) for row in rows]


@dataclass(frozen=True)
class _Encoded:
    """One text as token ids, attention mask and segments, each as long as the input."""

    ids: list[int]
    mask: list[int]
    segments: list[int]


def _shortened(
    texts: Sequence[Text], length: int, side: str, encode: Callable[[Sequence[Text]], list[_Encoded]]
) -> list[_Encoded]:
    """Encodes the part of long texts that can matter, and the whole where that did not fill the input.

    Tokenizers read all of a text and keep what they cut off, which takes a thousand times the memory of what is used.
    """
    limit = _MARGIN + _CHARACTERS * length
    parts = [tuple(_part(text, limit, side) for text in each) for each in texts]
    found = encode(parts)
    for place, (part, text) in enumerate(zip(parts, texts, strict=True)):
        if part != text and not all(found[place].mask):
            found[place] = encode([text])[0]
    return found


def _part(text: str, limit: int, side: str) -> str:
    """Returns about `limit` characters from the kept end of a text, divided at a space where there is one."""
    if len(text) <= limit:
        return text
    if side == "left":
        start = text.find(" ", len(text) - limit, len(text) - limit // 2)
        return text[start if start >= 0 else len(text) - limit :]
    stop = text.rfind(" ", limit // 2, limit)
    return text[: stop if stop >= 0 else limit]


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Raises what a library stumbles over as ours; a panic of compiled code is no `Exception`."""
    try:
        yield
    except BaseException as exc:  # everything else is raised again
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        raise DataError(
            FIELD, f"the tokenizer in the model's folder cannot be used ({name}: {reason(exc)}); save it again"
        ) from exc


def _read(file: Path) -> bytes:
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(FIELD, f"{file.name} has {file.stat().st_size} bytes, at most {_MAX_BYTES} are read")
    return file.read_bytes()


def _settings(folder: Path) -> dict[str, Any]:
    """Returns what is said beside a tokenizer; later files win over earlier ones."""
    found: dict[str, Any] = {}
    for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            read = json.loads(_read(file))
        except (ValueError, RecursionError) as exc:
            raise DataError(FIELD, f"{name} in the model's folder is no JSON ({reason(exc)}); save it again") from exc
        if not isinstance(read, dict):
            raise DataError(FIELD, f"{name} in the model's folder is no JSON object; save it again")
        if name == "tokenizer_config.json" and (code := [key for key in _CODE if read.get(key)]):
            raise DataError(
                FIELD, f"{name} asks for code of its own ({code[0]}), which never runs here; save a tokenizer.json"
            )
        found |= {
            key: value for key, value in read.items() if name != "config.json" or key in ("pad_token_id", "model_type")
        }
    return found


def _write_settings(place: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings without those that name files: these would be opened, wherever they are."""
    kept = {
        key: value
        for key, value in settings.items()
        if not (key.endswith(("_file", "_path")) or key in ("name_or_path", "model_type", "pad_token_id"))
    }
    (place / "tokenizer_config.json").write_text(json.dumps(kept))
    (place / "config.json").write_text(json.dumps({"model_type": _model_type(settings)}))


def _model_type(settings: Mapping[str, Any]) -> str | None:
    """Returns the kind of network that a tokenizer is said to be for, None where transformers knows none of that name.

    Raises:
        DataError: Nothing says what class the tokenizer has; transformers would import all of its models to guess.
    """
    from transformers import CONFIG_MAPPING

    stated = settings.get("model_type")
    if isinstance(stated, str) and stated in CONFIG_MAPPING:
        return stated
    if not (isinstance(settings.get("tokenizer_class"), str) and settings["tokenizer_class"]):
        raise DataError(
            FIELD,
            "the tokenizer in the model's folder cannot be used: config.json states no model_type that is known, and "
            "tokenizer_config.json no tokenizer_class; save a tokenizer.json",
        )
    return None


def _side(settings: Mapping[str, Any], key: str, default: str) -> str:
    side = settings.get(key, default)
    return side if side in _SIDES else "right"


def _padding(library: Any, settings: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, int]:
    """Returns the token that fills short texts up, and its number: as it is stated, else what others take."""
    stated = settings.get("pad_token")
    stated = stated.get("content") if isinstance(stated, dict) else stated
    number = settings.get("pad_token_id")
    by_number = library.id_to_token(number) if isinstance(number, int) and 0 <= number < 2**31 else None
    for token in (stated, before.get("pad_token"), by_number, *_PADDING):
        if isinstance(token, str) and (found := library.token_to_id(token)) is not None:
            return token, found
    return library.id_to_token(0) or "", 0
