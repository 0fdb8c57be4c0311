# SPDX-License-Identifier: Apache-2.0
"""Fonts are part of a model: they are saved with its checkpoint, and a checkpoint draws with no others."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from transformers.utils import cached_file

from .font_files import file_and_face, with_face
from .settings import RenderConfig


def font_files(config: RenderConfig) -> dict[str, str]:
    """All fonts that a config draws with, in order of preference: name in a checkpoint -> file at hand.

    Of a collection, both name the face, as in `font_files`.
    """
    fonts: dict[str, str] = {}
    known: dict[str, str] = {}
    for font in config.font_paths:
        path, face = file_and_face(font)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"font file {path!r} does not exist; give its path in render_config, or None")
        digest = file_sha256(path)
        if digest not in known:
            name = f"fonts/{os.path.basename(path)}"
            if name in known.values():
                stem, ending = os.path.splitext(name)
                name = f"{stem}-{digest[:8]}{ending}"
            known[digest] = name
        fonts.setdefault(with_face(known[digest], face), with_face(path, face))
    return fonts


def portable_config(config: RenderConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """(a config whose fonts are named as in a checkpoint, the sha256 of each font by that name)."""
    fonts = font_files(config)
    first, *others = fonts
    values = {**config.to_dict(), "font_path": first, "fallback_font_paths": others}
    files = {file_and_face(name)[0]: file_and_face(path)[0] for name, path in fonts.items()}
    return values, {name: file_sha256(path) for name, path in files.items()}


def save_fonts(config: RenderConfig, folder: str | os.PathLike) -> None:
    """Copy a config's fonts into `folder`/fonts, with the licence files that lie beside them.

    Licences of one name and different text are all kept: the later ones get a part of their sha256 in their names.
    """
    os.makedirs(os.path.join(folder, "fonts"), exist_ok=True)
    licences: dict[str, str] = {}
    for name, font in font_files(config).items():
        name, path = file_and_face(name)[0], file_and_face(font)[0]
        _copy(path, os.path.join(folder, *name.split("/")))
        for licence, file in _licences_beside(path):
            digest = file_sha256(file)
            if licences.setdefault(licence, digest) != digest:
                stem, ending = os.path.splitext(licence)
                licence = f"{stem}-{digest[:8]}{ending}"
            _copy(file, os.path.join(folder, "fonts", licence))


def _licences_beside(font: str) -> Iterator[tuple[str, str]]:
    """(name, file) of each licence in a font's folder, or in a folder `LICENSES` there; none that lies elsewhere."""
    folder = os.path.realpath(os.path.dirname(font))
    roots = {folder, os.path.dirname(os.path.realpath(font))}  # in the Hub's cache, all files are links to one folder
    for name in sorted(os.listdir(folder)):
        if name.upper().startswith(("LICENSE", "LICENCE")):
            path = os.path.join(folder, name)
            inside = sorted(os.listdir(path)) if os.path.isdir(path) and not os.path.islink(path) else [""]
            for entry in inside:
                file = os.path.join(path, entry) if entry else path
                if os.path.isfile(file) and any(os.path.realpath(file).startswith(root + os.sep) for root in roots):
                    yield (f"{name}-{entry}" if entry else name), file


def _copy(source: str, target: str) -> None:
    if not (os.path.exists(target) and os.path.samefile(source, target)):
        shutil.copyfile(source, target)


def with_loaded_fonts(values: dict[str, Any], load: Callable[[str], str]) -> dict[str, Any]:
    """A checkpoint's render config, its font names replaced by the files that `load` finds for them."""
    first = values.get("font_path")
    return {
        **values,
        "font_path": None if first is None else load(first),
        "fallback_font_paths": tuple(load(name) for name in values.get("fallback_font_paths", ())),
    }


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as font:
        return hashlib.file_digest(font, "sha256").hexdigest()


def file_sha256(path: str) -> str:
    status = os.stat(path)
    return _digest(path, status.st_size, status.st_mtime_ns)


def checkpoint_font_loader(name_or_path: str, digests: dict[str, str], kwargs: dict[str, Any]) -> Callable[[str], str]:
    """A function from a font's name in a checkpoint to a file at hand that has the promised bytes.

    Args:
        name_or_path: a folder, or a repository on the Hub.
        digests: sha256 of each font by name, as saved.
        kwargs: those of `from_pretrained`, some of which say where and how to fetch files.
    """
    how = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
    hub_kwargs = {key: kwargs[key] for key in how if kwargs.get(key) is not None}

    def load(font: str) -> str:
        name, face = file_and_face(font)
        if name not in digests or not name.startswith("fonts/") or "/" in name[6:] or "\\" in name or ".." in name:
            raise ValueError(
                f"the processor config of {name_or_path!r} names the font {name!r}, which is not a font of the "
                "checkpoint (fonts/<name> with its sha256); save the processor again with save_pretrained"
            )
        try:
            path = cached_file(name_or_path, name, **hub_kwargs)
        except OSError as error:
            raise FileNotFoundError(
                f"the font {name!r} of the checkpoint {name_or_path!r} is missing; pages must be drawn with the font "
                "that the model was trained on: copy the file back or fetch the checkpoint again"
            ) from error
        if file_sha256(path) != digests[name]:
            raise ValueError(
                f"the font {name!r} of the checkpoint {name_or_path!r} is not the file that it was saved with "
                f"(sha256 {file_sha256(path)[:12]}… instead of {digests[name][:12]}…); fetch the checkpoint again"
            )
        return with_face(path, face)

    return load
