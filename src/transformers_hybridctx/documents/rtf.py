# SPDX-License-Identifier: Apache-2.0
"""RTF before pandoc reads it: characters as UTF-8, tables taken apart, footnotes, headers, footers and comments put where
it reads them.

pandoc drops headers, footers, comments, footnotes that are marked as optional, and rows of nested tables, and knows no
code pages, and no characters above U+FFFF.
Words follow the Rich Text Format Specification 1.9.1.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace

from .hidden_words import warn_of_hidden
from .rtf_characters import CodePages
from .rtf_tables import RtfTables

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
    (
        *(b"footnote", b"fldinst", b"shp", b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"listtable"),
        b"nonesttables",
    )
)
_OF_TABLES = frozenset(
    (b"trowd", b"cellx", b"clmrg", b"clvmrg", b"intbl", b"itap", b"cell", b"row", b"nestcell", b"nestrow")
)
_BREAKS = frozenset((b"par", b"line", b"tab", b"cell", b"row", b"nestcell", b"sect", b"page"))
_CHARACTERS = frozenset((b"bullet", b"emdash", b"endash", b"lquote", b"rquote", b"ldblquote", b"rdblquote"))
# pandoc's own files have rows in the cells of rows, which the format says otherwise (`\nestcell`).
_ROWS_NEST = re.compile(rb"\\trkeep\\intbl\s*\{")
_SYMBOLS = frozenset((b"\\~", b"\\_", b"\\-"))
_LINE_ENDS = dict.fromkeys(map(ord, "\r\n"))
_LITERAL = frozenset((b"\\\\", b"\\{", b"\\}"))
_ESCAPED = str.maketrans({one: f"\\{one}" for one in "\\{}"})


@dataclass(frozen=True)
class _Group:
    """What holds within a group of braces."""

    is_aside: bool = False
    is_optional: bool = False
    is_hidden: bool = False
    is_in_table: bool = False
    is_font_table: bool = False
    is_field: bool = False
    depth: int = 0
    font: int | None = None
    substitutes: int = 1


def prepared_rtf(data: bytes, name: str) -> bytes:
    """
    The file with all that pandoc would lose, as far as it is written by the rules.

    Warns:
        UserWarning: it has hidden text, which is not read.
    """
    rewriter = _Rewriter(bool(_ROWS_NEST.search(data)), _is_utf8(data))
    position = 0
    while match := _TOKEN.match(data, position):
        position = match.end()
        if match["word"] == b"bin":  # so many bytes of a picture
            position += max(0, int(match["number"] or 0))
        else:
            rewriter.add(match)
    warn_of_hidden(name, rewriter.hidden)
    return rewriter.whole()


def _is_utf8(data: bytes) -> bool:
    """Whether a file has characters of UTF-8 in it, which the format does not know, and some programs write."""
    try:
        return not data.isascii() and bool(data.decode())
    except UnicodeDecodeError:
        return False


class _Rewriter:
    """Writes the tokens of a file anew.

    Attributes:
        out: what is written so far.
        hidden: the words of hidden text.
    """

    def __init__(self, rows_nest: bool, is_utf8: bool) -> None:
        self.out: list[bytes] = []
        self.hidden: list[str] = []
        self._rows_nest, self._is_utf8 = rows_nest, is_utf8
        self._groups = [_Group()]
        self._tables = RtfTables(self.out)
        self._in_row = 0  # rows whose definition has begun
        self._moved: dict[bytes, None] = {}
        self._moving: tuple[int, bytes, list[bytes]] | None = None  # groups that were open, what it is, its tokens
        self._code_pages = CodePages()
        self._run = bytearray()  # characters that are not yet written
        self._to_skip = 0  # characters that stand in place of one of Unicode, for older programs
        self._surrogate = 0
        self._hidden_words = ""

    def add(self, match: re.Match[bytes]) -> None:
        """Take the next token."""
        token, word, code = match[0], match["word"], match["hex"]
        if code:
            self._characters(bytes.fromhex(code.decode()))
        elif token in _LITERAL or (token.startswith(b"\\") and not token.isascii()):
            self._characters(token[1:])
        elif token.startswith((b"\\", b"{", b"}")):
            self._end_run()
            if self._to_skip and (word in _CHARACTERS or token in _SYMBOLS):
                self._to_skip -= 1
                return
            self._to_skip = 0
            self._control(token, word, match["number"])
        elif self._is_utf8 and not token.isascii():
            self._end_run()
            self._say(token.decode(errors="replace").translate(_LINE_ENDS)[self._to_skip :])
            self._to_skip = 0
        else:
            self._characters(token.translate(None, b"\r\n"))

    def whole(self) -> bytes:
        self._end_run()
        if self._moving is not None:
            self._end_moving()
        self._note_hidden()
        return b"".join(self.out)

    def _characters(self, data: bytes) -> None:
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        self._run += data[skipped:]

    def _end_run(self) -> None:
        if self._run:
            self._say(self._code_pages.text_of(bytes(self._run), self._font))
            self._run.clear()

    @property
    def _font(self) -> int:
        font = self._groups[-1].font
        return self._code_pages.default_font if font is None else font

    def _say(self, text: str) -> None:
        """Write characters, in the cell where they stand."""
        group = self._groups[-1]
        if group.is_font_table:
            self._code_pages.note_name(text)
        if text.strip() and not (group.is_aside or self._moving is not None):
            if group.is_hidden:
                self._hidden_words += text
            else:
                self._tables.open_cell(self._level())
        self._write(text.translate(_ESCAPED).encode("utf-8", "replace"))

    def _write(self, token: bytes) -> None:
        out = self.out if self._moving is None else self._moving[2]
        before = _TOKEN.fullmatch(out[-1]) if out else None
        if before and before["word"] and not out[-1].endswith(b" ") and not token.startswith((b"\\", b"{", b"}")):
            out.append(b" ")  # else the word before would go on with the text
        out.append(token)

    def _control(self, token: bytes, word: bytes | None, number: bytes | None) -> None:
        if token == b"{":
            self._groups.append(replace(self._groups[-1], is_optional=False, is_field=False))
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
        elif word is not None and (self._of_characters(word, int(number or 0)) or self._word(word, number)):
            return
        self._write(b" " if self._moving is not None and word in _BREAKS else token)

    def _of_characters(self, word: bytes, number: int) -> bool:
        """Take a control word that says which characters there are; whether it is not to be written."""
        group = self._groups[-1]
        self._code_pages.note(word, number, group.is_font_table)
        if word == b"u":
            self._unicode(number % 0x10000 if number < 0 else number)
            self._to_skip = group.substitutes
        elif word == b"uc":
            self._groups[-1] = replace(group, substitutes=max(0, number))
        elif word == b"fonttbl":
            self._groups[-1] = replace(group, is_font_table=True)
        elif word == b"f" and not group.is_font_table:
            self._groups[-1] = replace(group, font=number)
        elif word == b"plain":
            self._groups[-1] = replace(group, font=None)
        return word in (b"u", b"uc")

    def _unicode(self, code: int) -> None:
        if 0xD800 <= code < 0xDC00:
            self._surrogate = code
            return
        if 0xDC00 <= code < 0xE000 and self._surrogate:
            code += 0x10000 - 0xDC00 + (self._surrogate - 0xD800) * 0x400
        self._surrogate = 0
        self._say(self._code_pages.character(code, self._font) if code <= sys.maxunicode else "\ufffd")

    def _word(self, word: bytes, number: bytes | None) -> bool:
        """Take a control word; whether it is not to be written."""
        group = self._groups[-1]
        if group.is_field:  # beside what it says and how it is counted, where pandoc drops it for any word
            return True
        if word == b"field":
            self._groups[-1] = replace(group, is_field=True)
            return False
        if word == b"fldinst" and not group.is_optional:
            self._write(b"\\*")
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
            self._tables.open_cell(self._level())
        return self._of_tables(word, int(number or 0))

    def _of_tables(self, word: bytes, number: int) -> bool:
        group = self._groups[-1]
        if word == b"pard":
            self._groups[-1] = replace(group, is_in_table=False, depth=0)
        elif word == b"intbl":
            self._groups[-1] = replace(group, is_in_table=True)
        elif word == b"itap":
            self._groups[-1] = replace(group, depth=number)
        self._tables.define(word, number)
        if word == b"trowd" and not group.is_optional:
            self._in_row = self._in_row + 1 if self._rows_nest else 1
        elif word in (b"cell", b"nestcell") and not group.is_aside:
            self._tables.end_cell(self._level(is_inner=word == b"nestcell"))
        elif word in (b"row", b"nestrow"):
            self._tables.end_row(self._level(is_inner=word == b"nestrow"))
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
        return max(2, self._groups[-1].depth, self._tables.depth) if is_inner else 1

    def _note_hidden(self) -> None:
        if words := " ".join(self._hidden_words.split()):
            self.hidden.append(words)
        self._hidden_words = ""

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
        self._tables.close()
        if self._moved:
            self.out.append(b"\\par")
        self.out += self._moved
        self._moved.clear()


__all__ = ["prepared_rtf"]
