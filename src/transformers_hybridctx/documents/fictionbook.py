# SPDX-License-Identifier: Apache-2.0
"""FictionBook files (.fb2) as the HTML that their elements stand for. pandoc drops their tables, and reads UTF-8 only."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from .encodings import decode
from .html import html_text

# What is not named here is a part of a line if it stands in one, and a block else.
_AS_HTML = {
    **{name: name for name in ("p", "table", "tr", "th", "td", "sub", "sup", "code", "a")},
    **dict.fromkeys(("v", "text-author", "subtitle", "date"), "p"),
    **dict.fromkeys(("epigraph", "cite", "poem", "stanza", "annotation", "section", "body"), "div"),
    **{"strikethrough": "s", "empty-line": "br", "image": "img", "title": "h1", "emphasis": "em", "strong": "b"},
}
_KEPT = frozenset(("colspan", "rowspan", "alt", "href"))
_DEEPEST_HEADING = 6
_NAMES = ("first-name", "middle-name", "last-name", "nickname")


def fictionbook_text(data: bytes, name: str) -> str:
    """A book: its title and authors, then its bodies (text, notes, comments) as Markdown, with tables and headings.

    Raises:
        ValueError: it is damaged, or no FictionBook.
    """
    markup = decode(data, name, None, is_markup=True)
    try:
        root = ElementTree.fromstring(markup)
        if _tag(root) != "FictionBook":
            raise ValueError(f"its outermost element is {_tag(root)!r:.40}")
        pages = [_page(body) for body in root if _tag(body) == "body"]
        return "\n".join(filter(None, [*_of_description(root), *map(html_text, pages)]))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} cannot be read as .fb2: it is damaged, or of another kind; save it again, or as PDF"
        ) from error


def _of_description(root: ElementTree.Element) -> Iterator[str]:
    information = next((one for one in root.iter() if _tag(one) == "title-info"), None)
    for one in information if information is not None else ():
        if _tag(one) == "book-title" and (title := _words(one)):
            yield f"# {title}"
        elif _tag(one) in ("author", "translator"):
            names = [_words(part) for part in one if _tag(part) in _NAMES]
            yield " ".join(filter(None, names))
        elif _tag(one) == "annotation":
            yield html_text(_page(one))


def _page(body: ElementTree.Element) -> str:
    """A body as HTML: its elements under their names there."""
    heading: dict[ElementTree.Element, int] = {body: 1}
    for element in body.iter():
        level = heading[element]
        for child in element:
            heading[child] = level + (_tag(child) == "section")
        tag = _tag(element)
        element.attrib = {_tag_of(key): value for key, value in element.attrib.items() if _tag_of(key) in _KEPT}
        element.tag = f"h{min(level, _DEEPEST_HEADING)}" if tag == "title" else _AS_HTML.get(tag, "span")
    return ElementTree.tostring(body, "unicode", method="html")


def _tag(element: ElementTree.Element) -> str:
    return _tag_of(element.tag) if isinstance(element.tag, str) else ""


def _tag_of(name: str) -> str:
    return name.rpartition("}")[2]


def _words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


__all__ = ["fictionbook_text"]
