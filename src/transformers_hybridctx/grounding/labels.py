# SPDX-License-Identifier: Apache-2.0
"""Labels that lines begin with ("Serial number: TR-450"), and how running words name them ("the serial number:")."""

from __future__ import annotations

import re
from itertools import islice

from .folding import fold

ARTICLES = ("the", "The", "a", "A", "an", "An")
MAX_LABELS = 1 << 12
"""Different labels of a document that are looked for: a form has tens of them, a catalogue hundreds."""
_LABEL = re.compile(
    r"^[^\w\n]*"  # indents, bullets, a table's bar
    r"([^\W_](?:[^:=|\n\t：]|[:=](?!\s)){0,60}?"
    r"[ \t]?(?:[:=|](?=\s)|：|(?<=\s)[-–—](?=\s)))",
    re.MULTILINE,
)


def spoken_labels(text: str) -> dict[bytes, bytes]:
    """
    The labels of a document as running words have them, up to the mark that announces the value: as they stand there, in
    lower case, or with the first letter alone in another case; and each of these with an article before it.

    Returns:
        Of each such form the label as the document has it, both folded, UTF-8. What the document has so itself is none
        of them; of labels that differ by case alone the first one counts.
    """
    labels = dict.fromkeys(found.group(1) for found in _LABEL.finditer(text))
    written = dict.fromkeys(fold(label).text for label in islice(labels, MAX_LABELS))
    cased = {form: label for label in reversed(written) for form in _cases(label)} | {one: one for one in written}
    spoken = {f"{article} {form}": label for article in ARTICLES for form, label in cased.items()} | cased
    return {_utf8(form): _utf8(label) for form, label in spoken.items() if form not in written}


def _cases(label: str) -> list[str]:
    """A label in other cases, of as many bytes."""
    lower = label.lower()
    forms = (lower, lower[:1].upper() + lower[1:], label[:1].upper() + label[1:], label[:1].lower() + label[1:])
    return [form for form in forms if len(_utf8(form)) == len(_utf8(label))]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


__all__ = ["ARTICLES", "MAX_LABELS", "spoken_labels"]
