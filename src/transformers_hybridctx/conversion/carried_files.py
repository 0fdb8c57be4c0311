# SPDX-License-Identifier: Apache-2.0
"""Which files of a source may be read, and those that go along with its weights as they are: licences and settings."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from .tensor_files import CheckpointError

GENERATION = "generation_config.json"
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_SETTINGS = ("video_preprocessor_config.json", GENERATION)


def check_file(file: Path, folder: Path) -> None:
    """
    See that a file of a source can be read, and lies in it.

    Args:
        file: that is to be read.
        folder: the source's. One of the Hub's cache holds links to its own `blobs`, and to nothing else.

    Raises:
        CheckpointError: a link that leads out of the folder or nowhere, no regular file, or one that cannot be read.
    """
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parent.parent / "blobs")
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a link in a circle, before Python 3.13
        raise CheckpointError(f"{file} leads nowhere ({error}); copy the file in its place") from error
    if not any(real.is_relative_to(root) for root in roots):
        raise CheckpointError(
            f"{file} is a link to {real}, out of the folder: nothing is read from there; copy the file in its place"
        )
    if not stat.S_ISREG(real.stat().st_mode):
        what = "a folder" if real.is_dir() else "no regular file"
        raise CheckpointError(f"{file} is {what}, where a file is due; move it away")
    try:
        with open(real, "rb") as stream:
            stream.read(1)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}); make it readable") from error


def carried_files(folder: Path) -> dict[str, Path]:
    """
    Licences and notices, whole folders of them too, and settings that no part of a conversion changes.

    Args:
        folder: the source's.

    Returns:
        Where each file goes in the target, and where it lies.

    Raises:
        CheckpointError: see [`check_file`]; or names that differ in case alone, of which many disks keep one.
    """
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        is_licence = entry.name.upper().startswith(_LICENCES)
        if is_licence and entry.is_dir() and not entry.is_symlink():
            if not os.access(entry, os.R_OK | os.X_OK):
                raise CheckpointError(f"{entry} cannot be read; make it readable")
            found: Iterable[Path] = sorted(path for path in entry.rglob("*") if path.is_symlink() or not path.is_dir())
        else:
            found = [entry] if is_licence or entry.name in _SETTINGS else []
        for file in found:
            check_file(file, folder)
            files[file.relative_to(folder).as_posix()] = file
    known: dict[str, str] = {}
    for name in files:
        if (other := known.setdefault(name.casefold(), name)) != name:
            raise CheckpointError(
                f"{folder} has {other} and {name}, which are one file on disks that do not tell case; rename one"
            )
    return files


def copy_files(files: Mapping[str, Path], target: Path) -> None:
    """Copy what [`carried_files`] found to a folder."""
    for name, file in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / name)
