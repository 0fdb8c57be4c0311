# SPDX-License-Identifier: Apache-2.0
"""HTML to text: what a reader sees, written down as Markdown writes it.

The parser is Lexbor (by selectolax): that of the HTML standard, in time that grows with the page and at any depth. What
else was tried loses text or hangs: lxml, and inscriptis on it, drops what is nested deeper than 255 elements; markdownify
ends in RecursionError on rows that are never closed; both put the cells of rows with spans into wrong columns and take 10
and 5 seconds for a row of 40,000 cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .hidden_words import warn_of_hidden
from .html_formulas import UNSEEN, closing, is_layout, opening
from .html_lists import ListMarks, number_in
from .html_nested_tables import NestedTables
from .html_nesting import parsed_quickly
from .html_styles import Appearance, Look
from .html_tables import TableRows


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_BLOCKS = _tags(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav noscript ol optgroup option p pre section "
    "select summary table tbody textarea tfoot thead title tr ul x-option"
)
_UNSEEN = _tags("script style noframes datalist colgroup col rp object head metadata") | UNSEEN
# Elements with a border or a margin of their own: what stands in them does not touch its neighbours.
_APART = _tags("button output meter progress input img video audio canvas kbd label text")
_OF_LINES = _tags("y dy")
_STRUCK = _tags("del s strike")
_OPENINGS = {"q": "“", "rt": "(", "sup": "^", "del": "~~", "s": "~~", "strike": "~~"} | {
    f"h{level}": "#" * level + " " for level in range(1, 7)
}
_CLOSINGS = {"q": "”", "rt": ")", "del": "~~", "s": "~~", "strike": "~~"}
_MOST_PAGES = 8
_BLANKS = re.compile(r"[ \t\n\f\r]+")
_SILENT_TARGETS = ("#", "javascript:", "data:")


class _Text:
    """Gathers text: white space between words collapses, blocks stand on lines of their own."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._waiting = ""  # white space that is written once something follows
        self._at_line_start = True
        self._marks: list[tuple[int, str, bool, int]] = []

    def words(self, text: str) -> None:
        collapsed = _BLANKS.sub(" ", text)
        if collapsed.startswith(" "):
            self.blank()
        if bare := collapsed.strip(" "):
            self.write(bare)
            if collapsed.endswith(" "):
                self.blank()

    def write(self, text: str) -> None:
        """Text as it is, after what white space is waiting."""
        if text:
            self.pieces += (self._waiting, text)
            self._waiting = ""
            self._at_line_start = text.endswith("\n")

    def blank(self) -> None:
        if not self._waiting and not self._at_line_start:
            self._waiting = " "

    def line(self) -> None:
        """Whatever follows stands on a new line."""
        self._waiting = "" if self._at_line_start else "\n"

    def line_break(self) -> None:
        self.pieces.append("\n")
        self._waiting, self._at_line_start = "", True

    def open_mark(self, mark: str) -> None:
        """A mark that the next word follows without a blank; each is closed again."""
        before = (len(self.pieces), self._waiting, self._at_line_start)
        self.write(mark)
        self._at_line_start = True
        self._marks.append((*before, len(self.pieces)))

    def close_mark(self, mark: str = "") -> None:
        """The mark that ends what the last `open_mark` began; both are left out where nothing stands between."""
        length, waiting, at_line_start, filled = self._marks.pop()
        if len(self.pieces) == filled:
            del self.pieces[length:]
            self._waiting, self._at_line_start = waiting, at_line_start
        elif mark:
            self.pieces.append(mark)
            self._at_line_start = False

    def __str__(self) -> str:
        return "".join(self.pieces).strip("\n")


class _Writer:
    """Writes the elements of one page in the order of its source.

    Attributes:
        hidden: element -> what it says and does not show; "" for one that is gone and says nothing.
    """

    def __init__(self, appearance: Appearance, depth: int) -> None:
        self._depth = depth  # in how many other pages it stands
        self.hidden: dict[int, str] = {}
        self._appearance = appearance
        self._looks = [Look()]
        self._nested = NestedTables()
        self._texts = [_Text()]
        self._tables: list[TableRows | None] = []
        self._verbatim = 0
        self._lists: list[ListMarks] = []
        self._marks_choice = False
        self._marked: list[int] = []  # open elements that have a mark before their content

    def text(self) -> str:
        return str(self._texts[0])

    def look_for_nested_tables(self, body: Any) -> None:
        """See which tables stand in others, before anything is written."""
        self._nested.look_through(_walk(body, self.is_seen))

    @property
    def _out(self) -> _Text:
        return self._texts[-1]

    def is_seen(self, node: Any) -> bool:
        if node.tag in _UNSEEN or node.mem_id in self.hidden:
            return False
        if node.tag == "template" and "shadowrootmode" not in node.attributes:
            return False
        if node.tag == "input" and (node.attributes.get("type") or "").lower() == "hidden":
            return False
        if not self._appearance.is_gone(node):
            return True
        words = (one.text_content or "" for one, _ in _walk(node, _is_content) if one.tag == "-text")
        self.hidden[node.mem_id] = " ".join(" ".join(words).split())
        return False

    def line_of(self, text: str) -> None:
        self._out.words(text)
        self._out.line()

    def characters(self, node: Any) -> None:
        text = node.text_content or ""
        look = self._looks[-1]
        if look.is_blank:
            self.hidden[node.mem_id] = " ".join(text.split())
            if not look.has_no_size or text != text.strip():  # what stands beside is apart
                self._out.blank()
        elif is_layout(text, node.parent):
            return
        elif self._verbatim:
            self._out.write(text.replace("\r\n", "\n"))
        else:
            self._out.words(text)

    def start(self, node: Any) -> None:
        tag, out = node.tag, self._out
        self._looks.append(self._appearance.within(node, self._looks[-1]))
        if tag in ("td", "th") and self._tables and self._tables[-1] is not None:
            self._texts.append(_Text())
            return
        self._border(node)
        if tag == "tspan" and not _OF_LINES.isdisjoint(node.attributes):
            out.blank()
        if tag == "br":
            out.line_break()
        elif tag in ("pre", "textarea"):
            self._verbatim += 1
        elif tag in ("ul", "ol", "menu"):
            self._lists.append(ListMarks(node))
        elif tag == "table":
            self._tables.append(None if self._nested.is_for_layout(node) else TableRows())
        elif tag == "tr" and self._tables and (rows := self._tables[-1]) is not None:
            rows.start_row()
        elif tag == "select":
            self._marks_choice = node.css_first("option[selected], x-option[selected]") is not None
        elif (mark := self._opening_of(node)) is not None:
            out.open_mark(mark)
            self._marked.append(node.mem_id)
        elif not self._looks[-1].is_blank:
            self._void(node)

    def _opening_of(self, node: Any) -> str | None:
        """What stands before the content of an element; None where nothing does."""
        tag = node.tag
        if tag == "li":
            return self._bullet(node)
        if tag == "a":
            return "[" if _target(node) else None
        if tag in ("option", "x-option"):
            chosen = "selected" in node.attributes
            return ("[x] " if chosen else "[ ] ") if self._marks_choice else None
        return _OPENINGS.get(tag) or opening(node) or None

    def _closing_of(self, node: Any) -> str:
        return f"]({_target(node)})" if node.tag == "a" else _CLOSINGS.get(node.tag, "") or closing(node)

    def _bullet(self, item: Any) -> str:
        return "  " * (len(self._lists) - 1) + (self._lists[-1].mark(item) if self._lists else "- ")

    def _void(self, node: Any) -> None:
        """Elements whose content is in their attributes."""
        tag, attributes, out = node.tag, node.attributes, self._out
        if tag in ("iframe", "template"):
            self._inner_page(node)
        elif tag == "img" and (alt := _one_line(attributes.get("alt"))):
            out.write(f"![{alt}]")
        elif tag == "input":
            kind = (attributes.get("type") or "text").lower()
            if kind in ("checkbox", "radio"):
                out.write("[x]" if "checked" in attributes else "[ ]")
            elif kind not in ("password", "file", "image"):
                out.write(_one_line(attributes.get("value")))

    def _inner_page(self, node: Any) -> None:
        """A page within this one, with styles of its own."""
        if node.tag == "template":  # a shadow root, which the parser keeps apart
            markup = f"<section{(node.html or '').removeprefix('<template').removesuffix('</template>')}</section>"
        else:
            markup = node.attributes.get("srcdoc") or ""
        if markup:
            self._out.line()
            self._out.write(_page_text(markup, None, self._depth + 1))
            self._out.line()

    def end(self, node: Any) -> None:
        self._end(node)
        self._looks.pop()

    def _end(self, node: Any) -> None:
        tag = node.tag
        if tag in ("td", "th") and self._tables and (rows := self._tables[-1]) is not None:
            content, attributes = str(self._texts.pop()), node.attributes
            spans = number_in(attributes.get("colspan"), 1), number_in(attributes.get("rowspan"), 1)
            rows.add_cell(content, *spans, is_header=tag == "th")
            return
        out = self._out
        if tag in ("pre", "textarea"):
            self._verbatim -= 1
        elif tag in ("ul", "ol", "menu"):
            self._lists.pop()
        elif tag == "table":
            self._end_table(node)
        elif self._marked[-1:] == [node.mem_id]:
            self._marked.pop()
            out.close_mark(self._closing_of(node))
        if tag in _STRUCK:
            out.blank()  # what replaces it begins here
        self._border(node)

    def _border(self, node: Any) -> None:
        """What stands beside an element is apart from what stands in it, where a page shows it so."""
        tag = node.tag
        if tag in _BLOCKS or tag in ("td", "th") or self._appearance.is_apart(node, node.parent):
            self._out.line()
        elif tag in _APART:
            self._out.blank()

    def _end_table(self, node: Any) -> None:
        """Write a table, or, where it stands in a cell and has columns, its number, and itself behind the outermost."""
        rows = self._tables.pop()
        if rows is None or (self._looks[-1].is_blank and not rows.says_something):
            return
        number = self._nested.number_of(node)
        outer = next((table for table in reversed(self._tables) if table is not None), None)
        if outer is None or number is None:
            self._out.write("\n".join(filter(None, [rows.text(), *rows.inner])))
        else:
            mark = f"[table {number}]"
            self._out.write(mark)
            outer.inner += [f"{mark}\n{rows.text()}", *rows.inner]


def html_text(markup: str, name: str | None = None) -> str:
    """What a reader sees of an HTML page, as Markdown: blocks on lines of their own, tables with all their columns.

    The title comes first, unless the first heading says the same. Links have their targets and pictures their
    alternative texts; preformatted text stays as it is; scripts and hidden elements are left out, as far as attributes
    and plain rules of the page's own style sheets hide them; a hidden cell that takes its room is an empty one. Cells
    that span columns or rows are repeated in each. A table within a cell of another follows that one, under the mark that
    stands in the cell ("[table 1]").

    Args:
        name: what a warning calls the page; without it, there is none.

    Raises:
        ValueError: elements are nested deeper than `html_nesting.MAX_DEPTH`.

    Warns:
        UserWarning: it has hidden text, which is not read.
    """
    return _page_text(markup, name, 0)


def _page_text(markup: str, name: str | None, depth: int) -> str:
    if depth > _MOST_PAGES:
        raise ValueError(f"pages stand within pages more than {_MOST_PAGES} deep; save it as text")
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise ImportError("reading HTML needs selectolax: pip install selectolax") from error
    tree = LexborHTMLParser(parsed_quickly(markup).encode("utf-8", "replace"))
    if tree.body is None:
        return ""
    writer = _Writer(Appearance(tree), depth)
    writer.look_for_nested_tables(tree.body)
    title = tree.css_first("head > title")
    heading = tree.css_first("h1")
    if title is not None and (heading is None or title.text().split() != heading.text().split()):
        writer.line_of(title.text())
    for node, is_start in _walk(tree.body, writer.is_seen):
        if node.tag == "-text":
            writer.characters(node)
        elif is_start:
            writer.start(node)
        else:
            writer.end(node)
    if name is not None:
        warn_of_hidden(name, list(filter(None, writer.hidden.values())))
    return writer.text()


def _is_content(node: Any) -> bool:
    return node.tag not in _UNSEEN


def _walk(root: Any, is_seen: Callable[[Any], bool]) -> Iterator[tuple[Any, bool]]:
    """(node, whether it starts) for each node, text and element, without recursion: pages nest at any depth."""
    node = root
    while True:
        descend = False
        if node.tag == "-text":
            yield node, True
        elif not node.tag.startswith(("-", "_")) and is_seen(node):
            yield node, True
            descend = node.child is not None
            if not descend:
                yield node, False
        if descend:
            node = node.child
            continue
        while node.next is None or node.mem_id == root.mem_id:
            if node.mem_id == root.mem_id:
                return
            node = node.parent
            yield node, False
        node = node.next


def _target(node: Any) -> str:
    target = _one_line(node.attributes.get("href"))
    return "" if target.lower().startswith(_SILENT_TARGETS) else target


def _one_line(text: str | None) -> str:
    return _BLANKS.sub(" ", text or "").strip()
