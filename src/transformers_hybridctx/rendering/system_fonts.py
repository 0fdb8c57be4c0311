# SPDX-License-Identifier: Apache-2.0
"""Fonts of this machine for what a config's own fonts lack, found by fontconfig, which most systems but Windows have."""

from __future__ import annotations

import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .characters import MISSING_GLYPH, code_points
from .font_files import with_face
from .fonts import FontChain, load_face
from .settings import RenderConfig

_SECONDS = 60
_MOST_ASKED_FOR = 400  # characters
_MOST_LOOKED_AT = 200  # fonts
_MOST_TAKEN = 16  # fonts: more than 32 faces are not kept loaded
_NO_FONT_HAS = frozenset(("Cc", "Cs", "Cn", "Co"))
# Han characters have other forms in these languages, whose own letters tell them.
_LANGUAGES = {"HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko"}


class SystemFont(NamedTuple):
    """A font, and how many of the characters that were lacking it has.

    `path`: as `RenderConfig` takes it; `family`: its name.
    """

    path: str
    family: str
    characters: int


def lacking(text: str, config: RenderConfig) -> Counter[str]:
    """How often each character stands in a text that no font of a config has, but another font may have."""
    chain = FontChain(config)
    codes, counts = np.unique(code_points(text), return_counts=True)
    chain.learn(codes)
    is_missing = chain.keys.take(codes) == MISSING_GLYPH
    return Counter(
        {
            chr(code): count
            for code, count in zip(codes[is_missing].tolist(), counts[is_missing].tolist(), strict=True)
            if unicodedata.category(chr(code)) not in _NO_FONT_HAS
        }
    )


def all_characters() -> str:
    """Every character that a font may have, for who does not know yet which texts will come."""
    characters = map(chr, range(sys.maxunicode + 1))
    return "".join(char for char in characters if unicodedata.category(char) not in _NO_FONT_HAS)


def with_system_fonts(config: RenderConfig, text: str) -> tuple[RenderConfig, list[SystemFont]]:
    """
    The config with fonts of this machine behind its own, for the characters of a text that those lack.

    The font that has most of them comes first, then the one that has most of what is left, and so on, no more than
    `_MOST_TAKEN`; fontconfig's order decides between equals. Pages that are drawn with them depend on the machine: where
    that matters, name the fonts.

    Raises:
        ValueError: fontconfig is not installed.
    """
    left = lacking(text, config)
    found: list[SystemFont] = []
    candidates = _candidates(left) if left else []
    while left and candidates and len(found) < _MOST_TAKEN:
        counts = [sum(left[char] for char in left.keys() & characters) for _, _, characters in candidates]
        best = max(range(len(candidates)), key=lambda index: (counts[index], -index))
        if not counts[best]:
            break
        path, family, characters = candidates.pop(best)
        found.append(SystemFont(path, family, counts[best]))
        left = Counter({char: count for char, count in left.items() if char not in characters})
    paths = (*config.fallback_font_paths, *(font.path for font in found))
    return replace(config, fallback_font_paths=paths), found


def _candidates(needed: Counter[str]) -> list[tuple[str, str, frozenset[str]]]:
    """(path, family, characters) of fonts with outlines that have some of the characters, in fontconfig's order."""
    program = shutil.which("fc-match")
    if program is None:
        raise ValueError(
            "fonts of this machine are found by fontconfig, which is not installed: apt install fontconfig, or name a "
            "font file"
        )
    asked = " ".join(f"{ord(char):x}" for char, _ in needed.most_common(_MOST_ASKED_FOR))
    words = {unicodedata.name(char, "").split(" ")[0] for char in needed}
    language = next((f":lang={code}" for word, code in _LANGUAGES.items() if word in words), "")
    command = [program, "--sort", "--format", "%{file}\t%{index}\t%{family[0]}\t%{outline}\n"]
    done = subprocess.run([*command, f":charset={asked}{language}"], capture_output=True, timeout=_SECONDS)
    if done.returncode:
        raise ValueError(f"fontconfig failed: {done.stderr.decode('utf-8', 'replace').strip()[:200]}")
    fonts = []
    for line in done.stdout.decode("utf-8", "replace").splitlines()[:_MOST_LOOKED_AT]:
        file, index, family, has_outlines = line.split("\t")
        if has_outlines != "True" or int(index) >> 16:  # an instance of a variable font
            continue
        path = with_face(file, int(index))
        try:
            own = load_face(path).characters
        except (ValueError, OSError):  # a bitmap font, or one of an old format
            continue
        if has := frozenset(char for char in needed if ord(char) in own):
            fonts.append((path, family, has))
    return fonts
