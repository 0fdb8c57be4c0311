# SPDX-License-Identifier: Apache-2.0
"""Rows, columns, slides and shapes that office files hide: counted or named, and not read; alternatives on slides."""

from __future__ import annotations

import subprocess
import zipfile
from io import BytesIO

import pytest
from office_samples import cells, workbook

from transformers_hybridctx.documents.files import read_document_file


def test_hidden_rows_and_columns_of_sheets_are_counted() -> None:
    rows = cells([["h1", "h2", "h3"], ["a", "b", "c"], ["d", "e", "f"], ["", "", ""]])
    rows = rows.replace('<row r="2"', '<row hidden="1" r="2"').replace('<row r="4"', '<row hidden="1" r="4"')
    columns = (
        '<col min="2" max="2" hidden="true"/><col min="1" max="1" hidden="0"/><col min="4" max="16384" hidden="1"/>'
    )
    merged = '<mergeCells count="1"><mergeCell ref="A2:A3"/></mergeCells>'
    data = workbook({"S": rows}, merged, f"<cols>{columns}</cols>")
    with pytest.warns(
        UserWarning, match=r"a\.xlsx: of the sheet S, 1 hidden row and 1 hidden column left out; show them"
    ):
        assert read_document_file(data, name="a.xlsx") == "# S\n| h1 | h3 |\n| a | f |"


def test_hidden_rows_and_columns_of_opendocument_are_counted() -> None:
    space = "urn:oasis:names:tc:opendocument:xmlns:"
    spaces = " ".join(f'xmlns:{name}="{space}{name}:1.0"' for name in ("office", "text", "table"))

    def row(attributes: str, *texts: str) -> str:
        inner = "".join(
            f"<table:table-cell office:value-type='string'><text:p>{text}</text:p></table:table-cell>"
            for text in texts
        )
        return f"<table:table-row {attributes}>{inner}</table:table-row>"

    columns = (
        "<table:table-column table:number-columns-repeated='2'/><table:table-column table:visibility='collapse'/>"
    )
    rows = row("", "a", "b") + row("table:number-rows-repeated='2' table:visibility='filter'", "c", "d")
    body = f"<table:table table:name='S'>{columns}{rows}{row('', 'e', 'f', 'g')}</table:table>"
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", f"<m:manifest xmlns:m='{space}manifest:1.0'/>")
        archive.writestr(
            "content.xml",
            f"<office:document-content {spaces}><office:body><office:spreadsheet>{body}</office:spreadsheet>"
            "</office:body></office:document-content>",
        )
    with pytest.warns(UserWarning, match=r"a\.ods: of the sheet S, 2 hidden rows and 1 hidden column left out"):
        assert read_document_file(written.getvalue(), name="a.ods") == "# S\n| a | b |\n| e | f |"


def slides(old: str, new: str) -> bytes:
    """Two slides, a text of the first one's replaced."""
    program = pytest.importorskip("pypandoc").get_pandoc_path()
    text = "# One\n\nfirst\n\n::: notes\nSay 7.\n:::\n\n# Two\n\nsecond\n"
    command = [program, "-f", "markdown", "-t", "pptx", "-o", "-"]
    made = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(made)) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            after.writestr(part, content.replace(old.encode(), new.encode()) if "slide1.xml" in part else content)
    return written.getvalue()


def shape(text: str, hidden: str) -> str:
    named = f"<p:nvSpPr><p:cNvPr id='9' hidden='{hidden}'/></p:nvSpPr>"
    return f"<p:sp>{named}<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"


def test_hidden_slides_are_reported_with_their_notes() -> None:
    with pytest.warns(UserWarning, match=r"a\.pptx holds hidden text, which is not read: 'slide 1: One first Say 7\."):
        assert read_document_file(slides("<p:sld ", '<p:sld show="0" '), name="a.pptx") == "## Slide 1\n## Two\nsecond"


def test_hidden_slides_are_reported_where_the_presentation_has_another_name() -> None:
    written = BytesIO()
    hidden = slides("<p:sld ", '<p:sld show="0" ')
    with zipfile.ZipFile(BytesIO(hidden)) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            if part == "_rels/.rels":
                content = content.replace(b"ppt/presentation.xml", b"ppt/main.xml")
            after.writestr(part.replace("presentation.xml", "main.xml"), content)
    with pytest.warns(UserWarning, match=r"not read: 'slide 1: One first Say 7\."):
        assert read_document_file(written.getvalue(), name="a.pptx") == "## Slide 1\n## Two\nsecond"


def test_slides_have_the_numbers_of_their_order() -> None:
    program = pytest.importorskip("pypandoc").get_pandoc_path()
    command = [program, "-f", "markdown", "-t", "pptx", "-o", "-"]
    text = b"# One\n\nfirst\n\n::: notes\nSay 7.\n:::\n\n# Two\n\nsecond\n"
    made = subprocess.run(command, input=text, capture_output=True, check=True).stdout
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(made)) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            if part == "ppt/presentation.xml":
                one, two = b'<p:sldId id="256" r:id="rId2" />', b'<p:sldId id="257" r:id="rId3" />'
                assert one + two in content
                content = content.replace(one + two, two + one)
            after.writestr(part, content)
    text_of_slides = "## Two\nsecond\n## One\nfirst\n[notes of slide 2: Say 7.]"
    assert read_document_file(written.getvalue(), name="a.pptx") == text_of_slides


def test_hidden_shapes_of_slides_are_reported() -> None:
    group = f"<p:grpSp><p:nvGrpSpPr><p:cNvPr id='8' hidden='1'/></p:nvGrpSpPr>{shape('deep', '1')}</p:grpSp>"
    shapes = group + shape("seen", "0") + shape("unseen", "true")
    with pytest.warns(UserWarning, match=r"not read: 'slide 1: deep slide 1: unseen'; show it"):
        text = read_document_file(slides("</p:spTree>", f"{shapes}</p:spTree>"), name="a.pptx")
    assert text == "## One\nfirst\nseen\n## Two\nsecond\n[notes of slide 1: Say 7.]"


def test_words_of_slides_that_are_drawn_in_pieces_are_whole() -> None:
    runs = {
        "4711": "<a:r><a:t>4</a:t></a:r><a:r><a:rPr b='1'/><a:t/></a:r><a:r><a:rPr b='1'/><a:t>711</a:t></a:r>",
        "10^6 t": "<a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline='30000'/><a:t>6 </a:t></a:r><a:r><a:t>t</a:t></a:r>",
        "H2O": "<a:r><a:t>H</a:t></a:r><a:r><a:rPr baseline='-25000'/><a:t>2</a:t></a:r><a:r><a:t>O</a:t></a:r>",
        "p. 7 of": "<a:r><a:t>p. </a:t></a:r><a:fld type='slidenum'><a:t>7</a:t></a:fld><a:r><a:t>of</a:t></a:r>",
        "one two": "<a:r><a:t>one</a:t></a:r><a:br/><a:r><a:t>two</a:t></a:r>",
    }
    shapes = "".join(f"<a:p>{one}</a:p>" for one in runs.values())
    shape = f"<p:sp><p:txBody>{shapes}</p:txBody></p:sp></p:spTree>"
    assert "\n".join(runs) in read_document_file(slides("</p:spTree>", shape), name="a.pptx")


def test_a_shape_that_has_an_alternative_for_older_programs_is_read() -> None:
    space = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    new = shape("x &lt; 5", "0").replace("<p:sp>", "<p:sp q:a='>'>")
    choice = f'<mc:Choice xmlns:q="urn:q" Requires="q">{new}</mc:Choice>'
    both = f"<mc:AlternateContent {space}>{choice}<mc:Fallback>{shape('old', '0')}</mc:Fallback></mc:AlternateContent>"
    data = slides("</p:spTree>", f"{both}</p:spTree>")
    assert "first\nx < 5\n" in str(read_document_file(data, name="a.pptx"))
