# SPDX-License-Identifier: Apache-2.0
"""RTF before pandoc reads it: tables taken apart, footnotes, headers, footers and comments put where it reads them.

pandoc drops headers, footers, comments, footnotes that are marked as optional, and rows of nested tables.
Words follow the Rich Text Format Specification 1.9.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .hidden_words import warn_of_hidden
from .marked_tables import mark

_TOKEN = re.compile(
    rb"\\(?P<word>[A-Za-z]{1,32})(?P<number>-?\d{1,10})? ?|\\'(?P<hex>[0-9A-Fa-f]{2})|\\[^A-Za-z]|[{}]|[^\\{}]+|\\",
    re.S,
)
_MOVED = {
    **dict.fromkeys((b"header", b"headerl", b"headerr", b"headerf"), b"header"),
    **dict.fromkeys((b"footer", b"footerl", b"footerr", b"footerf"), b"footer"),
    b"annotation": b"comment",
}
# Destinations whose text is none of the cell or paragraph in which they stand.
_ASIDE = frozenset(
    (b"footnote", b"shp", b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"listtable", b"nonesttables")
)
_OF_TABLES = frozenset((b"trowd", b"cellx", b"intbl", b"itap", b"cell", b"row", b"nestcell", b"nestrow"))
_BREAKS = frozenset((b"par", b"line", b"tab", b"cell", b"row", b"nestcell", b"sect", b"page"))
_CHARACTERS = frozenset((b"u", b"bullet", b"emdash", b"endash", b"lquote", b"rquote", b"ldblquote", b"rdblquote"))
# pandoc's own files have rows in the cells of rows, which the format says otherwise (`\nestcell`).
_ROWS_NEST = re.compile(rb"\\trkeep\\intbl\s*\{")
_CODE_PAGE = re.compile(rb"\\ansicpg(\d{3,5})")


@dataclass(frozen=True)
class _Group:
    """What holds within a group of braces."""

    is_aside: bool = False
    is_optional: bool = False
    is_hidden: bool = False
    is_in_table: bool = False
    depth: int = 0


def prepared_rtf(data: bytes, name: str) -> bytes:
    """
    The file with all that pandoc would lose, as far as it is written by the rules.

    Warns:
        UserWarning: it has hidden text, which is not read.
    """
    rewriter = _Rewriter(bool(_ROWS_NEST.search(data)), _codec_of(data))
    position = 0
    while match := _TOKEN.match(data, position):
        position = match.end()
        if match["word"] == b"bin":  # so many bytes of anything
            position += max(0, int(match["number"] or 0))
            rewriter.out.append(data[match.start() : position])
            continue
        rewriter.add(match)
    warn_of_hidden(name, rewriter.hidden)
    return rewriter.whole()


def _codec_of(data: bytes) -> str:
    found = _CODE_PAGE.search(data[:4096])
    try:
        return "cp" + (found[1].decode() if found and "".encode(f"cp{found[1].decode()}") == b"" else "1252")
    except LookupError:
        return "cp1252"


class _Rewriter:
    """Writes the tokens of a file anew.

    Attributes:
        out: what is written so far.
        hidden: the words of hidden text.
    """

    def __init__(self, rows_nest: bool, codec: str) -> None:
        self.out: list[bytes] = []
        self.hidden: list[str] = []
        self._rows_nest, self._codec = rows_nest, codec
        self._groups = [_Group()]
        self._tables: list[list[bool]] = []  # of each open table, outer ones first: whether a row is open, and a cell
        self._in_row = 0  # rows whose definition has begun
        self._moved: dict[bytes, None] = {}
        self._moving: tuple[int, bytes, list[bytes]] | None = None  # groups that were open, what it is, its tokens
        self._hidden_bytes = bytearray()

    def add(self, match: re.Match[bytes]) -> None:
        """Take the next token."""
        token, word = match[0], match["word"]
        if token == b"{":
            self._groups.append(replace(self._groups[-1], is_optional=False))
        elif token == b"}":
            if len(self._groups) <= 2 and self._moving is None:
                self._end()
            elif len(self._groups) > 1:
                self._groups.pop()
            if self._moving is not None and len(self._groups) <= self._moving[0]:
                self._end_moving()
                return
        elif token == b"\\*":
            self._groups[-1] = replace(self._groups[-1], is_optional=True)
        elif word is None:
            self._text(token, match["hex"])
        elif self._word(word, match["number"]):
            out = self.out if self._moving is None else self._moving[2]
            if out and (before := _TOKEN.fullmatch(out[-1])) and before["word"] and not out[-1].endswith(b" "):
                out.append(b" ")  # else the word before would go on with the text behind
            return
        if word == b"u" and not token.endswith(b" "):
            token += b" "  # else pandoc drops what follows the character's substitute, too
        if self._moving is not None:
            self._moving[2].append(b" " if word in _BREAKS else token)
        else:
            self.out.append(token)

    def whole(self) -> bytes:
        if self._moving is not None:
            self._end_moving()
        self._note_hidden()
        return b"".join(self.out)

    def _word(self, word: bytes, number: bytes | None) -> bool:
        """Take a control word; whether it is not to be written."""
        group = self._groups[-1]
        if self._moving is not None:
            return word in (b"pard", b"plain") or (word in _OF_TABLES and word not in _BREAKS)
        if word in _MOVED:
            self._moving = (len(self._groups) - 1, _MOVED[word], [])
            if group.is_optional:
                self.out.pop()  # the mark of what is optional
            return True
        if word == b"footnote" and group.is_optional and self.out[-1:] == [b"\\*"]:
            self.out.pop()
        if word in _ASIDE or (group.is_optional and word != b"nesttableprops"):
            self._groups[-1] = replace(group, is_aside=True, is_optional=False)
        elif word == b"v":
            self._note_hidden()
            self._groups[-1] = replace(group, is_hidden=number != b"0")
        elif word == b"plain":
            self._groups[-1] = replace(group, is_hidden=False)
        elif word in _CHARACTERS and not (group.is_aside or group.is_hidden):
            self._open_cell(self._level())
        return self._of_tables(word, int(number or 0))

    def _of_tables(self, word: bytes, number: int) -> bool:
        group = self._groups[-1]
        if word == b"pard":
            self._groups[-1] = replace(group, is_in_table=False, depth=0)
        elif word == b"intbl":
            self._groups[-1] = replace(group, is_in_table=True)
        elif word == b"itap":
            self._groups[-1] = replace(group, depth=number)
        elif word == b"trowd" and not group.is_optional:
            self._in_row = self._in_row + 1 if self._rows_nest else 1
        elif word in (b"cell", b"nestcell"):
            self._end_cell(self._level(is_inner=word == b"nestcell"))
        elif word in (b"row", b"nestrow"):
            self._end_row(self._level(is_inner=word == b"nestrow"))
            if word == b"row":
                self._in_row = max(0, self._in_row - 1)
        return word in _OF_TABLES

    def _level(self, is_inner: bool | None = None) -> int:
        """In how many tables what follows stands: text (None), or the end of a cell or row."""
        if self._rows_nest:
            return self._in_row
        if is_inner is None:
            group = self._groups[-1]
            return max(group.depth, int(group.is_in_table), min(self._in_row, 1))
        return max(2, self._groups[-1].depth, len(self._tables)) if is_inner else 1

    def _text(self, token: bytes, code: bytes | None) -> None:
        group = self._groups[-1]
        if group.is_aside or self._moving is not None or not token.strip():
            return
        if group.is_hidden:
            self._hidden_bytes += token if code is None else bytes.fromhex(code.decode())
            return
        self._open_cell(self._level())

    def _open_cell(self, level: int) -> None:
        """Begin the table, row and cell that what follows stands in, where they have not begun."""
        while len(self._tables) > level:
            self._close_table()
        for number in range(level):
            if number == len(self._tables):
                self._write("table")
                self._tables.append([False, False])
            table = self._tables[number]
            for part, tag in enumerate(("tr", "td")):
                if not table[part]:
                    self._write(tag)
                    table[part] = True

    def _end_cell(self, level: int) -> None:
        if self._groups[-1].is_aside:
            return
        self._open_cell(level)
        if self._tables:
            self._write("/td")
            self._tables[-1][1] = False

    def _end_row(self, level: int) -> None:
        while len(self._tables) > level:
            self._close_table()
        if self._tables and len(self._tables) == level:
            self._close_row()

    def _close_row(self) -> None:
        row = self._tables[-1]
        for part, tag in ((1, "/td"), (0, "/tr")):
            if row[part]:
                self._write(tag)
                row[part] = False

    def _close_table(self) -> None:
        self._close_row()
        self._write("/table")
        self._tables.pop()

    def _write(self, tag: str) -> None:
        """A paragraph of its own that stands for a tag."""
        codes = "".join(f"\\u{ord(one) - 0x10000} ?" if ord(one) > 0x7FFF else one for one in mark(tag))
        self.out.append(b"\\par{\\pard\\plain\\uc1 " + codes.encode() + b"\\par}")

    def _note_hidden(self) -> None:
        if words := " ".join(self._hidden_bytes.decode(self._codec, "replace").split()):
            self.hidden.append(words)
        self._hidden_bytes.clear()

    def _end_moving(self) -> None:
        assert self._moving is not None
        _, what, tokens = self._moving
        self._moving = None
        while tokens and not tokens[-1].strip():
            tokens.pop()
        words = b"".join(tokens)
        if re.sub(_TOKEN, lambda match: b"" if match["word"] or match[0] in b"{}" else match[0], words).strip():
            self._moved[b"{\\pard\\plain [" + what + b": " + words + b"]\\par}"] = None
        self.out.append(b"}")

    def _end(self) -> None:
        """Before the file's last brace: what is still open, and what was moved to its end."""
        while self._tables:
            self._close_table()
        if self._moved:
            self.out.append(b"\\par")
        self.out += self._moved
        self._moved.clear()


__all__ = ["prepared_rtf"]
