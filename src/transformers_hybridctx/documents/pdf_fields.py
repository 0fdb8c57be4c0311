# SPDX-License-Identifier: Apache-2.0
"""What a PDF's form fields and annotations hold: PDFium shows it on the page and leaves it out of the page's text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pypdfium2.raw as pdfium

from .pdf_characters import Entry

_UNSEEN = 2 | 32  # flags of annotations: hidden, not for the screen
_CHOICES = (pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
_TEXT_FIELDS = (pdfium.FPDF_FORMFIELD_TEXTFIELD, *_CHOICES)
_PASSWORD = 1 << 13  # flag of text fields (ISO 32000-2, table 231)
_MARKS = (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON)
_NO_WORDS = (pdfium.FPDF_ANNOT_LINK, pdfium.FPDF_ANNOT_POPUP)


def page_entries(page: Any, form: Any) -> list[Entry]:
    """Values of the fields, and words of the annotations, of a page (pypdfium2's).

    Of choices, what a reader sees of them, not what a program gets; of passwords nothing. Notes and comments, which a
    viewer shows when they are asked for, begin with "[note:"; marks are "[x]" or "[ ]".
    """
    entries = []
    for index in range(max(0, pdfium.FPDFPage_GetAnnotCount(page))):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            if pdfium.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
                continue
            name, value = _words_of(annotation, form)
            if value.strip():
                entries.append(Entry(name.strip(), value.strip(), _box_of(annotation)))
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
    return entries


def _words_of(annotation: Any, form: Any) -> tuple[str, str]:
    kind = pdfium.FPDFAnnot_GetSubtype(annotation)
    if kind in _NO_WORDS:
        return "", ""
    if kind != pdfium.FPDF_ANNOT_WIDGET:
        words = _string(lambda buffer, size: pdfium.FPDFAnnot_GetStringValue(annotation, b"Contents", buffer, size))
        return "", words if kind == pdfium.FPDF_ANNOT_FREETEXT or not words.strip() else f"[note: {words.strip()}]"
    if form is None:
        return "", ""
    field = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    name = _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldName(form, annotation, buffer, size))
    if field in _CHOICES and (chosen := _chosen(annotation, form)):
        return name, ", ".join(chosen)
    if field in _TEXT_FIELDS:
        if field not in _CHOICES and pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
            return name, ""
        value = _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, size))
        return name, value.replace("\r\n", "\n").replace("\r", "\n")
    if field in _MARKS:
        return name, "[x]" if pdfium.FPDFAnnot_IsChecked(form, annotation) else "[ ]"
    return name, ""


def _chosen(annotation: Any, form: Any) -> list[str]:
    """The labels of a field's chosen options; none where its value was typed."""
    labels = []
    for option in range(max(0, pdfium.FPDFAnnot_GetOptionCount(form, annotation))):
        if pdfium.FPDFAnnot_IsOptionSelected(form, annotation, option):
            labels.append(_option_label(annotation, form, option))
    return [label for label in labels if label.strip()]


def _option_label(annotation: Any, form: Any, option: int) -> str:
    return _string(lambda buffer, size: pdfium.FPDFAnnot_GetOptionLabel(form, annotation, option, buffer, size))


def _string(get: Callable[[Any, int], int]) -> str:
    size = get(None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    get(ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return buffer.raw[:size].decode("utf-16-le", "replace").rstrip("\0")


def _box_of(annotation: Any) -> tuple[float, float, float, float]:
    rect = pdfium.FS_RECTF()
    pdfium.FPDFAnnot_GetRect(annotation, rect)
    return (
        min(rect.left, rect.right),
        min(rect.bottom, rect.top),
        max(rect.left, rect.right),
        max(rect.bottom, rect.top),
    )
