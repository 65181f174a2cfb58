"""What a client says of a file before it sends it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from service.access.principal import LOCAL_NAME
from service.errors import InvalidRequestError, Violation
from service.storage.artifacts import ArtifactKind, safe_filename

_UPLOAD_ID = re.compile(r"[a-z0-9-]{8,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Announcement:
    """What a client says that it will send, and whose it is; `kind` is None if it named none."""

    upload_id: str
    kind: ArtifactKind | None
    filename: str
    size_bytes: int
    sha256: str
    principal: str = LOCAL_NAME

    @property
    def key(self) -> str:
        """What the upload is known by."""
        return upload_key(self.principal, self.upload_id)


def checked(announced: Announcement) -> tuple[Announcement, ArtifactKind]:
    """Returns an announcement with a harmless file name, and its kind.

    Raises:
        InvalidRequestError: It breaks a rule; all violations at once.
    """
    filename, sha256 = safe_filename(announced.filename), announced.sha256.lower()
    rules = {
        "metadata.upload_id": (_UPLOAD_ID.fullmatch(announced.upload_id), "must be 8 to 64 of [a-z0-9-]"),
        "metadata.kind": (
            announced.kind not in {None, ArtifactKind.RESULT},
            "must be ARTIFACT_KIND_MODEL, _WEIGHTS or _DATA",
        ),
        "metadata.filename": (filename and len(announced.filename) <= 1024, "must be a file name"),
        "metadata.size_bytes": (announced.size_bytes > 0, "must be the size of the whole file, at least 1"),
        "metadata.sha256": (_SHA256.fullmatch(sha256), "must be 64 hexadecimal digits"),
    }
    if broken := [Violation(field, rule) for field, (holds, rule) in rules.items() if not holds]:
        raise InvalidRequestError(broken)
    assert announced.kind is not None
    cleaned = replace(announced, filename=filename, sha256=sha256)
    return cleaned, announced.kind


def upload_key(principal: str, upload_id: str) -> str:
    """Returns what an upload is known by.

    Clients make ids of what they send, so two principals may well use the same one.
    """
    if principal == LOCAL_NAME:
        return upload_id
    # `_` is in no upload id, so no key of `local` is ever one of these.
    return "_" + hashlib.sha256(f"{principal}/{upload_id}".encode()).hexdigest()[:60]
