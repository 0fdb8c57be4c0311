# SPDX-License-Identifier: Apache-2.0
"""OpenDocument texts and sheets: what pandoc and calamine drop or refuse of them, and files of one XML."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest

from transformers_hybridctx.documents.files import read_document_file

pytest.importorskip("pypandoc")

NAMES = {
    "office": "office",
    "text": "text",
    "table": "table",
    "form": "form",
    "style": "style",
    "draw": "drawing",
    "chart": "chart",
    "svg": "svg-compatible",
}
SPACES = " ".join(f'xmlns:{key}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for key, name in NAMES.items())
SPACES += ' xmlns:xlink="http://www.w3.org/1999/xlink"'


def document(kind: str, inside: str, more: str = "") -> str:
    return f"<office:{kind} {SPACES}{more}><office:body>{inside}</office:body></office:{kind}>"


def open_file(inside: str, kind: str = "text", **more: str) -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", document("document-content", f"<office:{kind}>{inside}</office:{kind}>"))
        archive.writestr("styles.xml", f"<office:document-styles {SPACES}/>")
        for name, content in more.items():
            archive.writestr(f"{name}/content.xml", content)
    return written.getvalue()


def read(inside: str, **more: str) -> str:
    return str(read_document_file(open_file(inside, **more), name="a.odt"))


@pytest.mark.parametrize(
    "field",
    [
        *("date", "page-number", "page-count", "user-field-get", "variable-set", "variable-input", "text-input"),
        *(
            "sequence",
            "expression",
            "conditional-text",
            "placeholder",
            "note-ref",
            "author-name",
            "title",
            "drop-down",
        ),
        *("meta-field", "database-display", "bookmark-ref", "one-of-tomorrow"),
    ],
)
def test_what_fields_show_is_read(field: str) -> None:
    shown = f'<text:{field} text:name="n">42</text:{field}>'
    assert read(f"<text:p>Rent: {shown} EUR</text:p>") == "Rent: 42 EUR"
    assert read(f'<text:h text:outline-level="2">Rent <text:span>{shown}</text:span></text:h>') == "## Rent 42"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ('<text:variable-set text:display="none">7</text:variable-set>b', "b"),
        ("<text:script>run()</text:script>b", "b"),
        (
            "<text:ruby><text:ruby-base>漢</text:ruby-base><text:ruby-text>kan</text:ruby-text></text:ruby>字",
            "漢(kan)字",
        ),
        ('<text:a xlink:href="http://x.org">Rent<text:tab/>1<text:s/>2</text:a>', "[Rent 1 2](http://x.org)"),
        ('<text:a xlink:href="#a">Rent <text:date>5</text:date></text:a>', "Rent 5"),
    ],
)
def test_what_stands_in_a_paragraph_is_read_as_it_is_shown(inside: str, text: str) -> None:
    assert read(f"<text:p>{inside}</text:p>") == text


def test_numbers_of_headings_and_numbered_paragraphs_are_read() -> None:
    heading = '<text:h text:outline-level="1"><text:number>1.2</text:number>Rent</text:h>'
    numbered = "<text:numbered-paragraph><text:p>The rent is 5.</text:p></text:numbered-paragraph>"
    assert read(heading + numbered) == "# 1.2 Rent\nThe rent is 5."


@pytest.mark.parametrize("kind", ["table-of-content", "illustration-index", "alphabetical-index", "bibliography"])
def test_indexes_are_read_without_what_they_are_made_from(kind: str) -> None:
    source = f"<text:{kind}-source><text:index-title-template>no</text:index-title-template></text:{kind}-source>"
    title = "<text:index-title><text:p>Sources</text:p></text:index-title>"
    body = f"<text:index-body>{title}<text:p>Smith 2020</text:p></text:index-body>"
    assert read(f"<text:{kind}>{source}{body}</text:{kind}>") == "Sources\nSmith 2020"


def test_values_of_a_form_stand_where_its_controls_do() -> None:
    controls = {
        "name": '<form:text form:id="name" form:current-value="Ann Lee"/>',
        "unset": '<form:text form:id="unset" form:value="as given"/>',
        "agreed": '<form:checkbox form:id="agreed" form:label="agreed" form:current-state="checked"/>',
        "not": '<form:radio form:id="not" form:label="not"/>',
        "town": '<form:listbox form:id="town"><form:option form:label="Oslo"/>'
        '<form:option form:label="Bergen" form:current-selected="true"/></form:listbox>',
        "secret": '<form:password form:id="secret" form:current-value="pass"/>',
    }
    forms = f"<office:forms><form:form>{''.join(controls.values())}</form:form></office:forms>"
    places = "".join(f'<draw:control draw:control="{key}"/>' for key in list(controls)[1:])
    text = read(f'{forms}<text:p>Name:<draw:control draw:control="name"/>.</text:p>{places}')
    assert text == "Name: Ann Lee .\nas given\n☒ agreed\n☐ not\nBergen"


def test_shapes_and_charts_are_not_lost() -> None:
    words = "<text:p>Fee<text:tab/>9<text:line-break/>EUR</text:p>"
    shapes = f"<draw:g><draw:custom-shape>{words}</draw:custom-shape></draw:g>"
    picture = "<draw:frame><draw:text-box><text:p><draw:frame><svg:title>no</svg:title></draw:frame>Figure 1</text:p>"
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>".format
    row = f"<table:table-row>{cell('Oslo')}{cell('42')}</table:table-row>"
    chart = (
        f"<chart:chart><chart:title><text:p>Rents</text:p></chart:title><table:table>{row}</table:table></chart:chart>"
    )
    content = document("document-content", f"<office:chart>{chart}</office:chart>")
    text = read(f"<text:p>a{shapes}{picture}</draw:text-box></draw:frame></text:p>", **{"Object 1": content})
    assert text.split("\n") == ["a", "[chart: Rents; Oslo, 42]", "[text box: Figure 1]", "[text box: Fee 9 EUR]"]


TABLE = """<table:table table:name="S">
  <table:table-row>
    <table:table-cell office:value-type="string">
      <text:p>Rent</text:p>
    </table:table-cell>
    <table:table-cell office:value-type="float" office:value="42"><text:p>42</text:p></table:table-cell>
  </table:table-row>
</table:table>
"""


def test_sheets_that_are_written_on_lines_are_read() -> None:
    assert read_document_file(open_file(TABLE, "spreadsheet"), name="a.ods") == "# S\n| Rent | 42 |"


def flat(kind: str, inside: str) -> str:
    picture = "<office:binary-data>iVBO\nRw0K</office:binary-data>"
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + document(
        "document",
        f"<office:{kind}>{inside}<draw:image>{picture}</draw:image></office:{kind}>",
        f' office:mimetype="application/vnd.oasis.opendocument.{kind}"',
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_one_xml_are_read_like_archives(encoding: str) -> None:
    data = flat("text", '<text:h text:outline-level="1">Rent</text:h><text:p>é <text:date>5</text:date></text:p>')
    assert read_document_file(data.encode(encoding), name="a.fodt") == "# Rent\né 5"
    sheet = flat("spreadsheet", TABLE)
    assert read_document_file(sheet.encode(encoding), name="a.fods") == "# S\n| Rent | 42 |"


@pytest.mark.parametrize("data", [b"<html>", b"no markup", flat("text", "<text:p>").encode()[:-9]])
def test_a_file_of_one_xml_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.fodt is no OpenDocument file of XML: it is damaged"):
        read_document_file(data, name="a.fodt")
