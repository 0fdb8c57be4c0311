# SPDX-License-Identifier: Apache-2.0
"""PDFs page by page: what is read as text, what is shown as a picture, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from document_samples import HELVETICA, RED_SQUARE, Annotation, SamplePage, lines, pdf_file, scan
from PIL import Image

from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.joined_document import DocumentParts
from transformers_hybridctx.documents.page_numbers import PagedText, SourcePage, page_indices, source_page
from transformers_hybridctx.documents.pdf import PdfFile
from transformers_hybridctx.documents.pdf_layouts import LAYOUTS
from transformers_hybridctx.documents.scans import ScannedPages
from transformers_hybridctx.documents.source_document import ShownPage

LONG = "\n".join(["All of this stands on the page as text, beside its picture."] * 5)
# Fonts that map no code to the character that it shows.
NO_MAP = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /Garbled /Encoding /Identity-H /DescendantFonts [<< /Type /Font "
    "/Subtype /CIDFontType2 /BaseFont /Garbled /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
    "/FontDescriptor << /Type /FontDescriptor /FontName /Garbled /Flags 4 >> >>] >>"
)


@pytest.fixture
def write(tmp_path: Path):
    def write_pdf(*args, **kwargs) -> Path:
        path = tmp_path / "a.pdf"
        path.write_bytes(pdf_file(*args, **kwargs))
        return path

    return write_pdf


@pytest.fixture(autouse=True)
def no_warning_unless_expected():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# Scans


@pytest.mark.parametrize("stamp", ["", "x", "ABC-0001", "Page 1 of 3", "Scanned with CamScanner", "CONFIDENTIAL"])
def test_a_stamp_or_a_page_number_does_not_make_a_scan_a_page_of_text(write, stamp: str) -> None:
    pages = [SamplePage(lines(stamp, y=10, size=8), picture=scan(f"The code is {code}.")) for code in (11, 12, 13)]
    document = read_document_file(write(pages))
    assert isinstance(document, ScannedPages)
    assert document.num_pages == 3


def test_the_lines_of_a_certificate_are_known_though_a_picture_lies_below_them(write) -> None:
    page = SamplePage(lines("Certificate no. 4471\nAda Example", y=150), picture=Image.new("L", (30, 20), 230))
    with pytest.warns(UserWarning, match="pages 1 hold pictures and hardly any text; they are shown"):
        document = read_document_file(write([page]))
    assert isinstance(document, DocumentParts)
    assert document.text == "Certificate no. 4471\nAda Example"
    assert isinstance(document.parts[0], ShownPage)


def test_words_that_are_blacked_out_are_not_read_and_those_beside_them_are(write) -> None:
    covered = lines("Name: Secret Person, aged 42", x=20, y=150) + b"0 g 57 145 83 18 re f"
    with pytest.warns(UserWarning, match="hold text that they never show, which is not read: 'Secret Person,'"):
        assert read_document_file(write([covered])) == "Name: aged 42"


def test_words_below_a_picture_that_is_drawn_later_are_not_read(write) -> None:
    page = SamplePage(lines("Seen 11", y=60), picture=Image.new("L", (30, 20), 0), picture_box=(10, 100, 290, 190))
    data = pdf_file([page]).replace(b"q 280", lines("Below 22", y=150) + b"q 280")
    with pytest.warns(UserWarning, match="which is not read: 'Below 22'"):
        assert read_document_file(data, name="a.pdf") == "Seen 11"


def test_frames_around_words_hide_nothing(write) -> None:
    assert read_document_file(write([lines("In a frame 7", y=150) + b"1 w 15 140 120 24 re S"])) == "In a frame 7"


def test_a_picture_beside_much_text_is_a_page_of_text(write) -> None:
    page = SamplePage(lines(LONG), picture=Image.new("L", (30, 20), 230))
    assert read_document_file(write([page])) == LONG


def test_a_figure_on_a_page_of_text_is_no_scan(write) -> None:
    page = SamplePage(lines("Figure 1"), picture=scan("a chart"), picture_box=(20, 20, 150, 120))
    assert read_document_file(write([page])) == "Figure 1"


def test_text_that_recognition_laid_over_a_scan_is_its_text(write) -> None:
    page = SamplePage(lines("The code is 4821.", before="3 Tr"), picture=scan("The code is 4821."))
    assert read_document_file(write([page])) == "The code is 4821."


def test_scans_among_pages_of_text_are_shown_and_named(write) -> None:
    pages: list = [*["Text."] * 5, *[SamplePage(b"", picture=scan("a scan"))] * 1, "", "Text."]
    with pytest.warns(UserWarning, match="pages 6 hold pictures and hardly any text; they are shown, .* is not known"):
        parts = read_document_file(write(pages))
    assert isinstance(parts, DocumentParts)
    assert parts.text == "\f".join([*["Text."] * 5, "", "", "Text."])
    assert [isinstance(part, str) for part in parts.parts] == [True, False, True]


def test_a_page_of_text_among_many_scans_stays_text(write) -> None:
    pages: list = ["A fax cover.", *[SamplePage(b"", picture=scan("a scan"))] * 2]
    with pytest.warns(UserWarning, match="pages 2-3 hold pictures"):
        parts = read_document_file(write(pages))
    assert isinstance(parts, DocumentParts)
    assert parts.parts[0] == "A fax cover."
    assert len(parts.parts) == 3


def test_drawings_without_text_are_pages_to_look_at(write) -> None:
    assert isinstance(read_document_file(write([RED_SQUARE])), ScannedPages)


# Forms and annotations


FIELDS = (
    Annotation("Tx", "Ada Example", (100, 165, 250, 185), "name"),
    Annotation("Tx", "CODE-4471", (100, 20, 250, 40), "account"),
)


def test_values_of_fields_stand_beside_their_labels(write) -> None:
    page = SamplePage(lines("Name:\nSigned below."), annotations=FIELDS)
    assert read_document_file(write([page])) == "Name: Ada Example\nSigned below.\naccount: CODE-4471"


@pytest.mark.parametrize(
    ("kind", "value", "more", "text"),
    [
        ("Ch", "DE", "/Ff 131072 /Opt [[(DE) (Germany)] [(FR) (France)]]", "Country: Germany"),
        ("Ch", "FR", "/Opt [[(DE) (Germany)] [(FR) (France)]]", "Country: France"),
        (
            "Ch",
            "[(DE) (IT)]",
            "/Ff 2097152 /Opt [[(DE) (Germany)] [(FR) (France)] [(IT) (Italy)]]",
            "Country: Germany, Italy",
        ),
        ("Ch", "Typed", "/Ff 393216 /Opt [[(DE) (Germany)]]", "Country: Typed"),
        ("Ch", "Blue", "/Ff 131072 /Opt [(Red) (Blue)]", "Country: Blue"),
        ("Tx", "secret", "/Ff 8192", "Country:"),
        ("Tx", "a.txt", "/Ff 1048576", "Country: a.txt"),
    ],
)
def test_a_choice_is_what_a_reader_sees_and_a_password_is_not_read(
    write, kind: str, value: str, more: str, text: str
) -> None:
    field = Annotation(kind, value, (100, 165, 250, 185), "c", more=more)
    path = write([SamplePage(lines("Country:"), annotations=(field,))])
    for layout in LAYOUTS:
        read = read_document_file(path, layout=layout)
        assert getattr(read, "text", read) == text


def test_two_fields_of_one_line_stay_in_order(write) -> None:
    fields = [
        Annotation("Tx", value, (x, 165, x + 50, 185), f"f{x}") for x, value in ((220, "9"), (60, "7"), (120, "8"))
    ]
    content = lines("From") + lines("to", x=180)
    assert read_document_file(write([SamplePage(content, annotations=fields)])) == "From 7 8 to 9"


def test_a_form_without_text_is_its_fields_by_name(write) -> None:
    assert read_document_file(write([SamplePage(b"", annotations=FIELDS)])) == "name: Ada Example\naccount: CODE-4471"


def test_marks_notes_and_typed_annotations_are_read_and_hidden_ones_are_not(write) -> None:
    annotations = [
        Annotation("Btn", "Off", (100, 165, 110, 185), "agree"),
        Annotation("FreeText", "APPROVED 99", (100, 120, 200, 140)),
        Annotation("Text", "check this", (100, 80, 110, 90)),
        Annotation("FreeText", "never shown", (100, 40, 200, 60), flags=2),
    ]
    text = read_document_file(write([SamplePage(lines("I agree"), annotations=annotations)]))
    assert text == "I agree [ ]\nAPPROVED 99\n[note: check this]"


@pytest.mark.parametrize("count", [1, len(FIELDS)])
def test_fields_of_a_scan_are_in_its_picture_and_its_text(write, count: int) -> None:
    empty = read_document_file(write([SamplePage(b"", picture=scan("Form"))]))
    with pytest.warns(UserWarning, match="what they say is not known"):
        filled = read_document_file(write([SamplePage(b"", picture=scan("Form"), annotations=FIELDS[:count])]))
    assert isinstance(empty, ScannedPages) and isinstance(filled, DocumentParts)
    assert all(field.value in filled.text for field in FIELDS[:count] if field.kind == "Tx")
    (page,) = filled.parts
    assert isinstance(page, ShownPage)
    shown = [np.asarray(next(empty.draw_pages(1))), np.asarray(page.source.draw(*page.source.size))]
    ink = [int((pixels < 128).sum()) for pixels in shown]
    assert ink[1] > ink[0] + 100


# Directions


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("turn", ["1 0 0 1 0 0", "0 1 -1 0 300 0", "0 -1 1 0 0 200", "-1 0 0 -1 300 200"])
def test_rows_stay_rows_whichever_way_text_and_page_are_turned(write, rotate: int, turn: str) -> None:
    rows = "Norway 364,134 Oslo\nSweden 450,295 Stockholm\nFinland 338,455 Helsinki"
    content = f"q {turn} cm ".encode() + lines(rows, x=10, y=100) + b"Q"
    assert read_document_file(write([SamplePage(content, extra=f"/Rotate {rotate}")])) == rows


@pytest.mark.parametrize("rotate", [0, 90])
def test_narrow_blanks_stay_blanks_on_turned_pages(write, rotate: int) -> None:
    content = b"BT /F1 12 Tf 20 100 Td [(Fon: 0) -240 (18) -240 (88/6) -240 (81) -240 (29)] TJ ET"
    assert read_document_file(write([SamplePage(content, extra=f"/Rotate {rotate}")])) == "Fon: 0 18 88/6 81 29"


def test_sideways_text_in_a_margin_stands_apart(write) -> None:
    content = lines("Upright text\nof two lines") + b"q 0 1 -1 0 290 0 cm " + lines("margin note", x=20, y=10) + b"Q"
    assert read_document_file(write([content])) == "Upright text\nof two lines\nmargin note"


def test_a_page_that_was_read_turned_is_drawn_as_before(write) -> None:
    file = PdfFile(write([b"q 0 1 -1 0 300 0 cm " + lines("sideways", y=100) + b"Q"]), "a.pdf")
    before = np.asarray(file.draw(0, 200, 300))
    assert file.content(0).text.text == "sideways"
    assert np.array_equal(np.asarray(file.draw(0, 200, 300)), before)


# What a page never shows


@pytest.mark.parametrize(
    "unseen",
    [
        b"1 1 1 rg " + lines("HIDDEN", y=100),
        lines("HIDDEN", y=100, size=0.1),
        lines("HIDDEN", y=100, before="3 Tr"),
        lines("HIDDEN", x=400, y=100),
        lines("HIDDEN", y=100) + b"0 0 0 rg 10 90 200 30 re f",
        lines("HIDDEN", y=100) + b"1 1 1 rg 10 90 200 30 re f",
    ],
    ids=["white", "tiny", "unpainted", "outside", "blackened", "whitened"],
)
def test_text_that_is_never_shown_is_reported_and_not_read(write, unseen: bytes) -> None:
    with pytest.warns(UserWarning, match="pages 1 hold text that they never show, which is not read: 'HIDDEN'"):
        assert read_document_file(write([lines("The sum is 485.") + unseen])) == "The sum is 485."


def test_text_that_is_never_shown_is_reported_of_scans_too(write) -> None:
    page = SamplePage(lines("HIDDEN", y=195, before="3 Tr"), picture=scan("4711"), picture_box=(0, 0, 300, 190))
    with pytest.warns(UserWarning, match="pages 1 hold text that they never show, which is not read: 'HIDDEN'"):
        assert isinstance(read_document_file(write([page])), ScannedPages)


@pytest.mark.parametrize(
    "seen",
    [
        b"0 0 1 rg 10 90 200 30 re f 1 1 1 rg " + lines("SHOWN", y=100),
        b"0.8 0.8 0.8 rg " + lines("SHOWN", y=100),
        b"0.9 0.9 0.9 rg 10 90 200 30 re f 0 0 0 rg " + lines("SHOWN", y=100),
        b"1 1 0 rg " + lines("SHOWN", y=100),
        lines("SHOWN", y=100) + b"0 0 0 rg 10 95 200 1 re f",
    ],
    ids=["white on blue", "grey", "on grey", "yellow", "underlined"],
)
def test_light_text_that_is_seen_is_read(write, seen: bytes) -> None:
    assert read_document_file(write([lines("The sum is 485.") + seen])) == "The sum is 485.\nSHOWN"


ROWS = [f"Row {number} of 11,{number}00 ..." for number in range(9)]


@pytest.mark.parametrize("extra", ["", "/Rotate 90"])
def test_text_that_is_painted_twice_for_its_looks_is_read_once(write, extra: str) -> None:
    both = [lines(row, x=20 + aside, y=180 - 18 * number) for aside in (0, 1) for number, row in enumerate(ROWS)]
    path = write([SamplePage(b" ".join(both), extra=extra)])
    assert read_document_file(path) == "\n".join(ROWS)
    content = PdfFile(path, "a.pdf").content(0, with_boxes=True)
    assert content.text.text == "\n".join(ROWS) and len(content.text.boxes) == len(content.text.text)


def test_the_same_text_close_by_is_read_twice(write) -> None:
    path = write([lines("41", x=20) + lines("41", x=34) + lines("41", x=20, y=160)])
    assert str(read_document_file(path)).split() == ["4141", "41"]


# Text layers that are no text


def to_unicode(mapped: dict[int, int]) -> str:
    differences = " ".join(f"{code} /u{'ni' * (point < 0x10000)}{point:04X}" for code, point in mapped.items())
    encoding = f"/Encoding << /Type /Encoding /BaseEncoding /WinAnsiEncoding /Differences [{differences}] >>"
    return HELVETICA.replace("/Encoding /WinAnsiEncoding", encoding)


@pytest.mark.parametrize(
    "font",
    [
        NO_MAP,
        to_unicode({code: 0xF000 + code for code in range(33, 127)}),
        to_unicode(dict.fromkeys(range(97, 112), 65533)),
    ],
    ids=["no map", "private use", "replacement"],
)
def test_pages_whose_fonts_map_to_no_characters_are_shown(write, font: str) -> None:
    with pytest.warns(
        UserWarning, match="the fonts of pages 1-2 do not say which characters they show; they are shown"
    ):
        document = read_document_file(write(["The access code is 4471."] * 2, font=font))
    assert isinstance(document, ScannedPages)


def test_a_font_without_a_map_whose_codes_are_characters_is_read(write) -> None:
    """Pictures by matplotlib and invoices of many programs have such; where codes number glyphs, digits are controls."""
    said = "Sum 1,406.50"
    assert read_document_file(write(["".join("\0" + one for one in said)], font=NO_MAP)) == said
    with pytest.warns(UserWarning, match="do not say which characters"):
        document = read_document_file(write(["".join("\0" + chr(ord(one) - 29) for one in said)], font=NO_MAP))
    assert isinstance(document, ScannedPages)


def test_ligatures_and_quotation_marks_of_tex_are_read(write) -> None:
    codes = "\x10of\x0cce\x11 \x15 sti\x1b, ru\x1ean"
    text = read_document_file(write(["".join("\0" + one for one in codes)], font=NO_MAP))
    assert text == "“of\ufb01ce” – sti\ufb00, ru\ufb03an"


def test_characters_above_u_ffff_are_one_each_where_a_page_is_looked_at(write) -> None:
    page = b"1 1 0 rg " + lines("The sum of ~ is 485.")
    text = read_document_file(write([page], font=to_unicode({126: 0x1D465})))
    assert text == "The sum of \U0001d465 is 485."


def test_a_bullet_of_a_symbol_font_does_not_make_text_garbled(write) -> None:
    text = "~ one point that is made\n~ another point that is made"
    assert read_document_file(write([text], font=to_unicode({126: 0xF0B7}))) == text.replace("~", "\uf0b7")


# Pages and their numbers


def test_a_text_knows_the_pages_of_its_pdf(write) -> None:
    labels = "/PageLabels << /Nums [0 << /S /r >> 2 << /S /D /P (A-) >>] >>"
    text = read_document_file(write(["one", "two", "three", ""], catalog=labels))
    assert isinstance(text, PagedText)
    assert text == "one\ftwo\fthree\f"
    assert [text.page_at(text.index(word)) for word in ("one", "two", "three")] == [
        SourcePage(1, "i"),
        SourcePage(2, "ii"),
        SourcePage(3, "A-1"),
    ]
    assert source_page(text, len(text)) == SourcePage(4, "A-2")
    assert source_page(str(text), text.index("three")) == SourcePage(3, "3")
    assert source_page("no pages", 3) is None


def test_pages_are_read_by_range(write) -> None:
    path = write(["one", "two", "three"])
    text = read_document_file(path, pages="2-")
    assert text == "two\fthree"
    assert isinstance(text, PagedText)
    assert text.page_at(text.index("three")) == SourcePage(3, "3")
    assert read_document_file(path, pages="3, 1") == "one\fthree"
    for pages in ("", "x", "4", "0", "2-1", "1-9", "-"):
        with pytest.raises(ValueError, match=f"pages='{pages}'"):
            read_document_file(path, pages=pages)
    assert page_indices("-2,5", 6, "it") == [0, 1, 4]


def test_a_pdf_without_pages_is_refused(write) -> None:
    with pytest.raises(ValueError, match="encrypted"):
        read_document_file(write(["x"], encrypted=True))  # which is not the next one's reason
    with pytest.raises(ValueError, match=r"empty document|damaged"):
        read_document_file(write([]))


def test_files_that_are_open_at_the_end_are_closed_without_a_word(write) -> None:
    code = "import sys; from transformers_hybridctx.documents.files import read_document_file\n"
    code += "kept = read_document_file(sys.argv[1], layout='source')"
    found = subprocess.run([sys.executable, "-c", code, str(write(["x"]))], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_password_opens_an_encrypted_file(write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encrypted; give its password \(password=\), or save it without"):
        read_document_file(write(["x"], encrypted=True))
    with pytest.raises(ValueError, match="encrypted with another password than the one given"):
        read_document_file(write(["x"], encrypted=True), password="wrong")


def test_threads_draw_and_read_what_one_thread_does(write) -> None:
    path = write([*[f"Page {number}" for number in range(6)], RED_SQUARE])
    file = PdfFile(path, "a.pdf")

    def look(index: int) -> tuple[str, bytes]:
        return file.content(index).text.text, file.draw(index, 100, 150).tobytes()

    alone = [look(index) for index in range(file.num_pages)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, [*range(file.num_pages)] * 8)) == alone * 8


def test_a_damaged_page_is_named(write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(["one", "two"])

    def fail(self, index: int):
        raise pypdfium2.PdfiumError("Failed to load page.")

    monkeypatch.setattr(pypdfium2.PdfDocument, "get_page", fail)
    monkeypatch.setattr(pypdfium2.PdfDocument, "__getitem__", fail)
    with pytest.raises(ValueError, match=r"page 1 is damaged \(Failed to load page\.\); pages='2-' reads the others"):
        read_document_file(path)
    with pytest.raises(ValueError, match=r"page 2 is damaged \(Failed to load page\.\); pages='1-1' reads the others"):
        read_document_file(path, pages="2")


def test_a_file_that_is_opened_anew_between_pages_is_read_and_drawn_alike(write, monkeypatch) -> None:
    path = write([SamplePage(lines(f"Page {number}"), annotations=FIELDS) for number in range(7)])
    whole = PdfFile(path, "a.pdf")
    monkeypatch.setattr("transformers_hybridctx.documents.pdf._MOST_KEPT", 1)
    anew = PdfFile(path, "a.pdf")
    for index in (0, 3, 2, 6, 6):
        assert anew.content(index).text == whole.content(index).text
        drawn, expected = (np.asarray(file.draw(index, 200, 300)) for file in (anew, whole))
        assert np.array_equal(drawn, expected)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read any longer"):
        anew.content(0)
