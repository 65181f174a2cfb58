"""Whether a folder holds the files that its manifest lists, and nothing else.

The folder may come from anybody: links are not followed, and no name leads out of it (`manifest.check_filename`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deploy.digest import file_digest
from service.delivery import runners
from service.delivery.checks import Check, failed, ok, skipped
from service.delivery.manifest import FILENAME, FileEntry, Manifest

MAX_ENTRIES = 10_000
"""Of the folder; no more are listed."""

_SHOWN = 100


def check_files(folder: Path, manifest: Manifest) -> list[Check]:
    """Returns one check for each file that is listed, and one for each that is there and is not."""
    return [
        *(_check_file(folder / entry.filename, entry) for entry in manifest.files),
        *_check_others(folder, manifest),
    ]


def _check_file(path: Path, wanted: FileEntry) -> Check:
    name = wanted.filename
    try:
        found = path.lstat()
    except OSError:
        return failed("file", name, "is missing", "no file", f"{wanted.size_bytes} bytes")
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "a folder or device"
        return failed("file", name, "is no plain file and was not opened", what, "a plain file")
    if found.st_size != wanted.size_bytes:
        return failed("file", name, "has another size", f"{found.st_size} bytes", f"{wanted.size_bytes} bytes")
    try:
        digest = file_digest(path)
    except OSError as exc:
        return failed("file", name, f"cannot be read: {exc.strerror}")
    if digest != wanted.sha256:
        return failed("file", name, "was changed: its SHA-256 is another", digest, wanted.sha256)
    return ok("file", name, f"{wanted.size_bytes} bytes, SHA-256 {digest[:12]}...")


def _check_others(folder: Path, manifest: Manifest) -> Iterator[Check]:
    known = {FILENAME, *manifest.digests}
    for count, entry in enumerate(os.scandir(folder)):
        if count >= MAX_ENTRIES:
            yield failed("file", "...", f"the folder holds more than {MAX_ENTRIES} files; the rest was not looked at")
            return
        if entry.name == runners.KEPT and entry.is_dir(follow_symlinks=False):
            yield skipped("file", entry.name, "was made where run.py ran, and is no part of what was delivered")
        elif entry.name not in known:
            what = "a link" if entry.is_symlink() else "a folder" if entry.is_dir() else "a file"
            yield failed("file", entry.name[:_SHOWN], "is not in the manifest", what, "nothing")


def check_runner(manifest: Manifest) -> Check:
    """Returns whether `run.py` is a program of ours and nobody else's, so that it may be run.

    Args:
        manifest: That of a folder whose files are those that it lists.
    """
    name = runners.FILENAME
    entry = manifest.digests.get(name)
    if entry is None:
        return failed(name, name, "is not in the manifest", "no file", "the program that belongs to every folder")
    published = runners.PUBLISHED.get(manifest.schema_version)
    if published is None:
        known = ", ".join(runners.PUBLISHED)
        return failed(name, name, "is of a version that this program does not know", manifest.schema_version, known)
    if entry.sha256 not in published:
        return failed(
            name, name, "is none of Shoal's programs: read it before you run it", entry.sha256, ", ".join(published)
        )
    return ok(name, name, f"is Shoal's program for manifests of version {manifest.schema_version}")
