# SPDX-License-Identifier: Apache-2.0
"""What stands on sheets beside their cells."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest
from office_samples import with_parts, workbook

from transformers_hybridctx.documents.emptiness import EmptyFileError
from transformers_hybridctx.documents.files import read_document_file

DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/"
SPACES = f'xmlns:s="{DRAWING}spreadsheetDrawing" xmlns:a="{DRAWING}main"'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
THREADS = "http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments"
COMMENT = '<comment ref="A1" authorId="0"><text><r><t>as of </t></r><r><t>May</t></r></text></comment>'


def relations(**targets: str) -> str:
    inner = "".join(f'<Relationship Id="{n}" Type="x/{n}" Target="{target}"/>' for n, target in targets.items())
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{inner}</Relationships>'
    )


def shape(text: str, more: str = "") -> str:
    named = f'<s:nvSpPr><s:cNvPr id="1" {more}/></s:nvSpPr>'
    return f"<s:sp>{named}<s:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></s:txBody></s:sp>"


SHAPES = shape("Draft no. 7") + shape("unseen", 'hidden="1"') + f"<s:grpSp>{shape('in a group')}</s:grpSp>"
PARTS = {
    "xl/worksheets/_rels/s1.xml.rels": relations(drawing="../drawings/d.xml", comments="/xl/c.xml"),
    "xl/drawings/_rels/d.xml.rels": relations(chart="../charts/c.xml"),
    "xl/drawings/d.xml": f"<s:wsDr {SPACES}><s:twoCellAnchor>{SHAPES}</s:twoCellAnchor></s:wsDr>",
    "xl/charts/c.xml": f"<c {SPACES}><a:p><a:t>Sales by year</a:t></a:p></c>",
    "xl/c.xml": f'<comments xmlns="{MAIN}"><commentList>{COMMENT}</commentList></comments>',
}
NOTES = "[text box: Draft no. 7]\n[text box: in a group]\n[chart: Sales by year]\n[comment on A1: as of May]"


def test_text_boxes_charts_and_comments_stand_under_their_sheet() -> None:
    data = with_parts(workbook({"Income": [["Sales"]], "Costs": [["4"]]}), PARTS)
    assert read_document_file(data, name="a.xlsx") == f"# Income\nSales\n{NOTES}\n\n# Costs\n4"


def test_a_sheet_of_text_boxes_alone_is_not_empty() -> None:
    assert read_document_file(with_parts(workbook({"S": []}), PARTS), name="a.xlsx") == f"# S\n{NOTES}"


def test_a_thread_of_comments_stands_for_its_copy_for_older_programs() -> None:
    threads = "".join(
        f'<threadedComment ref="A1"><text>{text}</text></threadedComment>' for text in ("Why?", "See B2")
    )
    parts = PARTS | {
        "xl/worksheets/_rels/s1.xml.rels": relations(threadedComment="../t.xml", comments="/xl/c.xml"),
        "xl/t.xml": f'<ThreadedComments xmlns="{THREADS}">{threads}</ThreadedComments>',
    }
    text = read_document_file(with_parts(workbook({"S": [["4"]]}), parts), name="a.xlsx")
    assert text == "# S\n4\n[comment on A1: Why?]\n[comment on A1: See B2]"


@pytest.mark.parametrize("part", ["xl/drawings/d.xml", "xl/c.xml"])
def test_a_part_that_cannot_be_parsed_is_said_and_cells_are_read(part: str) -> None:
    data = with_parts(workbook({"S": [["4"]]}), PARTS | {part: "<torn"})
    with pytest.warns(UserWarning, match=r"a\.xlsx: what stands beside the cells of the sheet S is not all read"):
        assert str(read_document_file(data, name="a.xlsx")).startswith("# S\n4")


def test_what_stands_on_hidden_sheets_is_not_read() -> None:
    data = with_parts(workbook({"S": []}), PARTS)
    hidden = {"xl/workbook.xml": part_of(data).replace('name="S"', 'name="S" state="hidden"')}
    with pytest.warns(UserWarning, match="the hidden sheets S"), pytest.raises(EmptyFileError):
        read_document_file(with_parts(data, hidden), name="a.xlsx")


def part_of(data: bytes) -> str:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return archive.read("xl/workbook.xml").decode()
