# SPDX-License-Identifier: Apache-2.0
"""Files that commands write: whole or not at all, and beside nothing that an earlier call left there."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, in a new folder beside `path`; what is there at the end takes the place of `path`.

    An error or Ctrl-C leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".hybridctx-", dir=path.parent))
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_output(path: Path, option: str, is_folder: bool = False) -> None:
    """
    What would keep a file or folder from being written, told before anything takes long.

    Args:
        option: what it was given by, such as `--out`.

    Raises:
        OSError: it is a folder where a file is meant, or a file where a folder is; it has no such place, or may not be
            written there.
    """
    if is_folder and path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{option} {path} is a file, and a folder is needed: name another one")
    if not is_folder and path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder, and a file is needed: name one in it")
    place = next(one for one in (path, *path.absolute().parents) if one.is_dir() or (one.exists() and one != path))
    if not place.is_dir():
        raise NotADirectoryError(f"{option} {path}: {place} is a file, and no folder: name another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{option} {path}: nothing may be written into {place}: name another place")


def write_json(path: Path, value: Any) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextmanager
def folder_written_whole(folder: Path, pattern: str, mark: str) -> Iterator[Path]:
    """A new folder to write files into, which at the end replace those that an earlier call wrote into `folder`.

    Args:
        pattern: regular expression of the names of such files.
        mark: the file that stands in a folder that was written this way.

    Raises:
        ValueError: `folder` holds such files and no `mark`: they are somebody else's.
    """
    earlier = [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)] if folder.is_dir() else []
    if earlier and not (folder / mark).exists():
        raise ValueError(
            f"{folder} holds {min(earlier).name} and no {mark}, so another program wrote it; choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".hybridctx-", dir=folder))
    try:
        yield unfinished
        written = sorted(unfinished.iterdir(), key=lambda path: path.name == mark)  # the mark comes last
        for path in written:
            os.replace(path, folder / path.name)
        for path in set(earlier) - {folder / path.name for path in written}:
            path.unlink()
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
