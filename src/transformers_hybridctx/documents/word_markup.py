# SPDX-License-Identifier: Apache-2.0
"""Word's markup that pandoc drops with the words in it, written anew as such that it reads.

That are simple fields (cross-references, numbers of captions), ruby, text in another direction, custom XML, alternatives
for programs of different age, form fields of before 2007, cells that are left out at the beginning of a row or stand
beyond the columns that a table counts, some blanks, text in one run with the mark of a note, a picture or the border of a
field, and paragraphs to which a text box is tied. The rest of a part stays as it is, to the byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from .archives import Archive, Package, part_of
from .hidden_words import OFF, WORD_PARTS, take_out_hidden
from .html_lists import number_in
from .markup_edits import MarkupEdits, OpenElement

_MOST_COLUMNS = 1000  # Word has 63
_BLANKS = {"cr": "br", "ptab": "tab"}
_CHOSEN = "\0"  # before the number of the chosen one among the entries of a list
# Where a run holds one of them, pandoc reads nothing else in it.
_ALONE = (
    "footnoteReference",
    "endnoteReference",
    "drawing",
    "pict",
    "object",
    "fldChar",
    "instrText",
    "AlternateContent",
)
_CHANGED = re.compile(
    rf"[<:](?:fldSimple|bdo|dir|customXml|ins|moveTo|ruby|cr|ptab|gridBefore|hidden|tbl|{'|'.join(_ALONE)})[\s/>]".encode()
)


def write_plain_markup(package: Package, name: str) -> None:
    """
    Write the parts of a Word file as pandoc reads them without loss.

    Warns:
        UserWarning: rows of its tables are hidden, which are not read.
    """
    take_out_hidden(package, name, _in_plain_markup)


def _in_plain_markup(archive: Archive) -> tuple[dict[str, bytes], list[str]]:
    changed: dict[str, bytes] = {}
    hidden: list[str] = []
    for part in filter(WORD_PARTS.fullmatch, archive.namelist()):
        content = part_of(archive, part)
        if _CHANGED.search(content):
            edits = _Edits(content)
            if (plain := edits.applied()) != content:
                changed[part] = plain
            hidden += edits.hidden
    return changed, hidden


@dataclass
class _Run:
    """An open run: where its properties end, and how many elements follow them."""

    begins: int
    contents: int = 0
    cuts: list[tuple[int, str]] = field(default_factory=list)
    """Where it is cut in two, and the runs that stand between the two."""


@dataclass
class _Table:
    """An open table: the columns that it says it has, where it says so, and those of its rows, with their ends."""

    columns: int = 0
    said: tuple[int, int] | None = None
    row: int = 0
    rows: list[tuple[int, int]] = field(default_factory=list)


class _Edits(MarkupEdits):
    """Finds what of a part is written anew."""

    unwrapped = MarkupEdits.unwrapped | {"fldSimple", "bdo", "dir", "customXml", "ins", "moveTo"}
    dropped_within = MarkupEdits.dropped_within | {"customXmlPr", "fldData"}

    def __init__(self, content: bytes) -> None:
        self._fields: list[str] = []  # of open form fields, what they show
        self._shown = ""  # what fields that have ended show
        self._runs: list[_Run] = []
        self._boxes: list[list[bytes]] = []  # of open paragraphs, the text boxes that are tied to them
        self._tables: list[_Table] = []
        self._codes: list[bool] = []  # of open fields, whether what stands there says how to make them
        super().__init__(content)

    def is_unwrapped(self, tag: str, around: str) -> bool:
        # In a run, alternatives are drawings, which are looked through elsewhere; among properties, marks of changes.
        return tag in self.unwrapped and not around.endswith("Pr") and (tag, around) != ("AlternateContent", "r")

    def begins(self, tag: str, said: dict[str, str], around: str) -> None:
        value = said.get("val", "1")
        if tag == "r":
            self._runs.append(_Run(self.open[-1].inside))
        elif tag == "p":
            self._boxes.append([])
        elif tag == "tbl":
            self._tables.append(_Table())
        elif self._tables and tag in ("gridCol", "tr", "tc", "gridSpan"):
            self._is_of_table(tag, said, around)
        elif tag == "fldChar":
            self._borders_field(said.get("fldCharType", ""))
        elif around == "checkBox" and tag in ("default", "checked") and self._fields:
            self._fields[-1] = "☐" if value in OFF else "☒"
        elif around == "ddList" and tag in ("result", "listEntry"):
            self.open[-2].text.append(value if tag == "listEntry" else f"{_CHOSEN}{value}")
        elif around == "trPr" and tag == "gridBefore":
            self.open[-2].text.append(value)
            if self._tables:
                self._tables[-1].row += number_in(value, 0)
        elif around == "trPr" and tag == "hidden" and value not in OFF and len(self.open) > 2:
            self.open[-3].is_hidden = True

    def _borders_field(self, kind: str) -> None:
        if kind == "begin":
            self._fields.append("")
            self._codes.append(True)
        elif kind == "separate" and self._codes:
            self._codes[-1] = False
        elif kind == "end" and self._fields:
            self._shown += self._fields.pop()
            self._codes.pop()

    def _is_of_table(self, tag: str, said: dict[str, str], around: str) -> None:
        table = self._tables[-1]
        if tag == "gridCol" and around == "tblGrid" and len(self.open) > 2 and self.open[-3].tag == "tbl":
            table.columns += "w" in said
        elif tag == "tr":
            table.row = 0
        elif tag == "tc" or around == "tcPr":
            table.row += 1 if tag == "tc" else number_in(said.get("val"), 1) - 1

    def ends(self, one: OpenElement, end: int) -> None:
        around = self.open[-1].tag if self.open else ""
        if around == "r":
            self._is_in_run(one, end)
        if around == "r" and one.tag == "AlternateContent" and self._boxes:
            self._untie(one, end)
        elif one.tag == "p":
            self.replace(end, end, b"".join(self._boxes.pop()))
            self._codes = [False] * len(self._codes)  # as one that never ends is none
        elif one.tag == "t" and around == "r" and any(self._codes):
            self.replace(one.start, end)  # a value of which another field makes its own
        if one.tag in ("rt", "rubyBase") and around == "ruby":
            self.open[-1].text.append("".join(one.text))
        elif one.tag == "ruby":
            above, base = ([*one.text, "", ""])[:2]
            self.replace(one.start, end, self._words(f"{base}({above})" if above else base))
        elif one.tag in _BLANKS and around == "r":
            self.replace(one.start, end, f"<{self.prefix}{_BLANKS[one.tag]}/>")
        elif one.tag == "ddList" and self._fields:
            self._fields[-1] = _chosen(one.text)
        elif one.tag == "r":
            self._cut(one, self._runs.pop())
        elif one.tag == "tblGrid" and around == "tbl" and self._tables:
            self._tables[-1].said = one.start, end
        elif one.tag == "tbl":
            self._count_columns(one, self._tables.pop())
        elif one.tag == "trPr" and one.text:
            self.replace(end, end, self._cell(one.text[0]))
        elif one.tag == "tr" and one.is_hidden:
            self.replace(one.start, end)
            self.hidden.append(" ".join(" ".join(one.text).split()))
        elif one.tag == "tr" and self._tables and self._tables[-1].row:
            self._tables[-1].rows.append((self._tables[-1].row, self.content.rindex(b"<", one.start, end)))

    def characters(self, text: str) -> None:
        if self.open[-1].tag == "t":
            for one in self.open:
                if one.is_hidden or one.tag in ("rt", "rubyBase"):
                    one.text.append(text)

    def _is_in_run(self, one: OpenElement, end: int) -> None:
        run = self._runs[-1]
        if one.tag == "rPr" and not run.contents:
            run.begins = end
            return
        run.contents += 1
        if one.tag in _ALONE:
            shown = f"<{self.prefix}r>{self._words(self._shown)}</{self.prefix}r>" if self._shown else ""
            run.cuts += ((one.start, ""), (end, shown))
            self._shown = ""

    def _cut(self, one: OpenElement, run: _Run) -> None:
        """Give each part of a run a run of its own with the same properties, where it is to be alone."""
        begin = self.content[one.start : run.begins]
        if run.contents > 1 or any(between for _, between in run.cuts):
            name = begin[1:].split(b">")[0].split()[0]
            for at, between in run.cuts:
                self.replace(at, at, b"</" + name + b">" + between.encode() + begin)

    def _count_columns(self, one: OpenElement, table: _Table) -> None:
        """Make all rows as long as the longest: pandoc drops cells beyond the first row, or the columns that are said."""
        widest = max((columns for columns, _ in table.rows), default=0)
        if widest > _MOST_COLUMNS:
            return
        if table.columns < widest:
            word = self.prefix
            columns = f'<{word}gridCol {word}w="1"/>' * widest
            self.replace(*(table.said or (one.inside, one.inside)), f"<{word}tblGrid>{columns}</{word}tblGrid>")
        for columns_of_row, end in table.rows:
            if columns_of_row < widest:
                self.replace(end, end, self._cell(str(widest - columns_of_row)))

    def _untie(self, one: OpenElement, end: int) -> None:
        """Put a text box behind its paragraph, in whose place pandoc reads it."""
        box = self.content[one.start : end]
        if b"txbxContent" in box:
            word = self.prefix.encode()
            inner = _Edits(b"<%br>%b</%br>" % (word, box, word))
            self.replace(one.start, end)
            self._boxes[-1].append(b"<%bp>%b</%bp>" % (word, inner.applied(), word))

    def _words(self, text: str) -> str:
        return f'<{self.prefix}t xml:space="preserve">{escape(text)}</{self.prefix}t>'

    def _cell(self, columns: str) -> str:
        """An empty cell that spans columns."""
        word = self.prefix
        span = f'<{word}gridSpan {word}val="{escape(columns)}"/>'
        return f"<{word}tc><{word}tcPr>{span}</{word}tcPr><{word}p/></{word}tc>"


def _chosen(said: list[str]) -> str:
    """The entry of a list that is chosen: the first one, unless a number says which."""
    entries = [one for one in said if not one.startswith(_CHOSEN)]
    number = next((one[1:] for one in said if one.startswith(_CHOSEN)), "0")
    return entries[int(number)] if number.isdecimal() and int(number) < len(entries) else ""


__all__ = ["write_plain_markup"]
