# SPDX-License-Identifier: Apache-2.0
"""What pandoc drops of OpenDocument texts, with the words in it, written anew as such that it reads.

That are fields (dates, variables, references to pages, choices), blanks in links, ruby, numbers of headings, values of a
form's controls, numbered paragraphs, and indexes: of contents, of figures, of literature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

_SPACE = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _FORM, _DRAW = (f"{_SPACE}{name}:1.0}}" for name in ("text", "form", "drawing"))
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
_PARAGRAPHS = (f"{_TEXT}p", f"{_TEXT}h")
_SPAN, _SECTION = f"{_TEXT}span", f"{_TEXT}section"
# What pandoc reads within a paragraph, or what says nothing, or what hides its words.
_READ = re.compile(
    rf"{re.escape(_TEXT)}(?:span|a|s|tab|line-break|note|note-citation|note-body|p|h|list(?:-item|-header)?|section|"
    r"bookmark.*|reference-.*|bibliography-mark|change.*|soft-page-break|hidden-text|hidden-paragraph|.*-mark"
    r"(?:-start|-end)?)"
)
_SILENT = frozenset(f"{_TEXT}{name}" for name in ("script", "execute-macro", "page-variable-set"))
_INDEXES = frozenset(
    f"{_TEXT}{name}"
    for name in (
        *("table-of-content", "illustration-index", "table-index", "object-index", "user-index"),
        *("alphabetical-index", "bibliography"),
    )
)
_IN_INDEXES = (f"{_TEXT}index-body", f"{_TEXT}index-title")
_TICKED, _UNTICKED = "☒ ", "☐ "


def write_fields(content: Element) -> None:
    """Put words in the places of fields and controls, and paragraphs in those of indexes."""
    values = dict(_values(content))
    for element in list(content.iter()):
        if element.tag in _INDEXES:
            element[:] = [child for child in element if not child.tag.endswith("-source")]
            _become(element, _SECTION)
        elif element.tag in _IN_INDEXES or element.tag == f"{_TEXT}numbered-paragraph":
            _become(element, _SECTION)
        elif element.tag in _PARAGRAPHS:
            _write_fields_of(element)
        if any(child.tag == f"{_DRAW}control" for child in element):
            _write_controls(element, values)


def _become(element: Element, tag: str, text: str | None = None) -> None:
    element.tag = tag
    element.attrib.clear()
    if text is not None:
        element[:] = []
        element.text = text


def _write_fields_of(paragraph: Element) -> None:
    for element in list(paragraph.iter()):
        if element.tag == f"{_TEXT}a":
            _wrap(element)
        if not element.tag.startswith(_TEXT) or _READ.fullmatch(element.tag):
            continue
        if element.tag in _SILENT or element.get(f"{_TEXT}display") == "none":
            _become(element, _SPAN, "")
        elif element.tag == f"{_TEXT}ruby-text":
            _become(element, _SPAN, f"({''.join(element.itertext())})")
        elif element.tag == f"{_TEXT}number":
            _become(element, _SPAN, f"{''.join(element.itertext()).strip()} ")
        else:
            _become(element, _SPAN)


def _wrap(link: Element) -> None:
    """Put a link's words in a span, in which pandoc reads tabs, blanks and ends of lines, too."""
    span = Element(_SPAN)
    span.text, link.text = link.text, None
    span[:] = list(link)
    link[:] = [span]


def _write_controls(parent: Element, values: dict[str, str]) -> None:
    """Put the values of a form's controls in their places: words in a paragraph, paragraphs between others."""
    is_inline = parent.tag in (*_PARAGRAPHS, _SPAN, f"{_TEXT}a")
    for child in parent:
        if child.tag == f"{_DRAW}control":
            _become(
                child, _SPAN if is_inline else f"{_TEXT}p", f" {values.get(child.get(f'{_DRAW}control', ''), '')} "
            )


def _values(content: Element) -> Iterator[tuple[str, str]]:
    """Each control of the forms, by its name in the text, and what it shows."""
    for control in content.iter():
        key = control.get(f"{_FORM}id") or control.get(_XML_ID)
        if key and control.tag.startswith(_FORM):
            yield key, _value(control)


def _value(control: Element) -> str:
    kind = control.tag.removeprefix(_FORM)
    label = control.get(f"{_FORM}label", "")
    if kind in ("checkbox", "radio"):
        state = control.get(f"{_FORM}current-state") == "checked" or control.get(f"{_FORM}current-selected") == "true"
        return (_TICKED if state else _UNTICKED) + label
    if kind in ("password", "hidden"):
        return ""
    if kind == "listbox":
        options = control.iterfind(f"{_FORM}option")
        chosen = (one for one in options if one.get(f"{_FORM}current-selected") == "true")
        return ", ".join(one.get(f"{_FORM}label", "") for one in chosen)
    return control.get(f"{_FORM}current-value") or control.get(f"{_FORM}value") or label


__all__ = ["write_fields"]
