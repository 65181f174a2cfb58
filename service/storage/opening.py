"""Opening a place by its URL: with which library and options, and what to tell an operator where that fails."""

from __future__ import annotations

from typing import Any, Final

import fsspec

from service.errors import DiskFullError, StorageSettingError, StorageUnavailableError
from service.storage.disk import FULL_ERRORS

_AHEAD: Final = 4 << 20
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}

# Listings that were kept would hide what other servers do. An instance that fsspec kept would go on with credentials
# and an endpoint that are not those of the surroundings any more.
_ANY_REMOTE: Final[dict[str, Any]] = {"use_listings_cache": False, "skip_instance_cache": True}
_S3: Final[dict[str, Any]] = {
    "default_block_size": _AHEAD,
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"mode": "standard", "max_attempts": 3},
    },
}


def open_files(url: str, protocol: str) -> tuple[Any, str]:
    """Returns what fsspec opens a URL with, and the path of the place in it.

    Args:
        url: The place.
        protocol: The URL's scheme.

    Raises:
        StorageSettingError: There is no such kind of place, or its library is missing.
    """
    options = {} if protocol in {"file", "local"} else _ANY_REMOTE
    if protocol in {"s3", "s3a"}:
        options = options | _S3
    try:
        files, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as exc:
        extra = _EXTRAS.get(protocol)
        hint = f"install shoal[{extra}]" if extra else str(exc)
        raise StorageSettingError(f"storage_url {shown(url)}: the library for it is missing; {hint}") from exc
    except ValueError as exc:
        raise StorageSettingError(f"storage_url {shown(url)}: {exc}") from exc
    return files, str(root)


def explain(error: Exception, place: str) -> Exception:
    """Returns what to raise for an error at the start, where an operator reads it; `place` is the URL as shown."""
    if isinstance(error, OSError) and error.errno in FULL_ERRORS:
        return DiskFullError("the disk that holds the artifact folder is full; free some space on the server")
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) or _is_credentials(error):
        return StorageSettingError(
            f"storage_url {place}: it cannot be used: {one_line(error)}; check the setting, and the "
            "credentials in the surroundings"
        )
    if is_ours(error):
        return error
    return StorageUnavailableError(
        f"storage_url {place}: it does not answer: {one_line(error)}; check the setting, and the endpoint "
        "in the surroundings"
    )


def is_ours(error: Exception) -> bool:
    """Returns whether an exception tells of us rather than of a place: libraries of stores have their own."""
    package = type(error).__module__.partition(".")[0]
    return package == "service" or (package == "builtins" and not isinstance(error, OSError))


def _is_credentials(error: Exception) -> bool:
    return "Credentials" in type(error).__name__ or "RefreshError" in type(error).__name__


def one_line(error: BaseException) -> str:
    """Returns what an exception says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(url: str) -> str:
    """Returns a URL without what may be secret in it."""
    protocol, mark, rest = url.partition("://")
    rest = rest.partition("?")[0]
    return protocol + mark + rest.rpartition("@")[2]
