# SPDX-License-Identifier: Apache-2.0
"""Word files whose parts have other names than Word's own, or Strict namespaces, and what styles hide for all text."""

from __future__ import annotations

import posixpath
import zipfile
from io import BytesIO

import pytest
from office_samples import OFFICE, PACKAGE, WORD

from transformers_hybridctx.documents.files import read_document_file

pytestmark = [pytest.mark.filterwarnings("error")]
pytest.importorskip("pypandoc")

HIDDEN = "<w:rPr><w:vanish/></w:rPr>"
OF_STYLE, SEEN = '<w:rStyle w:val="Hid"/>', '<w:vanish w:val="0"/>'
SPACES = f'xmlns:w="{WORD}" xmlns:r="{OFFICE}"'
USUAL = {"styles": "styles.xml", "numbering": "numbering.xml", "header": "header1.xml", "footnotes": "footnotes.xml"}
OTHER = {"styles": "s2.xml", "numbering": "lists.xml", "header": "kopf.xml", "footnotes": "notes1.xml"}
NUMBERED = '<w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr>'


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>"


def relations(*targets: tuple[str, str, str]) -> str:
    """Of kinds, targets and more attributes."""
    inner = "".join(
        f'<Relationship Id="r{key}" Type="{OFFICE}/{kind}" Target="{target}"{more}/>'
        for key, (kind, target, more) in enumerate(targets)
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{inner}</Relationships>'


def word_file(main: str, names: dict[str, str], stale: str = "", is_strict: bool = False, slash: str = "") -> bytes:
    folder, own = posixpath.split(main)
    body = f"<w:p>{NUMBERED}{run('Rent')}</w:p><w:p>{run('out', OF_STYLE)}{run('in')}"
    body += '<w:r><w:footnoteReference w:id="2"/></w:r><w:hyperlink r:id="r4">'
    body += f"{run(' http://purl.oclc.org/ooxml/drawingml/')}</w:hyperlink></w:p>"
    level = '<w:lvl w:ilvl="0"><w:start w:val="7"/><w:lvlText w:val="Clause %1:"/></w:lvl>'
    lists = f'<w:abstractNum w:abstractNumId="0">{level}</w:abstractNum>'
    lists += '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    words = f"<w:p>{run('{}')}{run('secret', '<w:vanish/>')}</w:p>"
    content = {
        "styles": f'<w:styles {SPACES}><w:style w:type="character" w:styleId="Hid">{HIDDEN}</w:style></w:styles>',
        "numbering": f"<w:numbering {SPACES}>{lists}</w:numbering>",
        "header": f"<w:hdr {SPACES}>{words.format('Head')}</w:hdr>",
        "footnotes": f'<w:footnotes {SPACES}><w:footnote w:id="2">{words.format("Note")}</w:footnote></w:footnotes>',
    }
    start = f"{slash}{folder}/" if slash else ""
    targets = [(kind, start + names[kind], "") for kind in content]
    files = {
        "_rels/.rels": relations(("officeDocument", slash + main, "")),
        posixpath.join(folder, "_rels", f"{own}.rels"): relations(
            *targets, ("hyperlink", "http://example.org/a?b", ' TargetMode="External"')
        ),
        main: f"<w:document {SPACES}><w:body>{body}</w:body></w:document>",
        **{posixpath.join(folder, names[kind]): part for kind, part in content.items()},
    }
    if stale:
        files[stale] = f"<w:document {SPACES}><w:body><w:p>{run('stale')}</w:p></w:body></w:document>"
    return zipped(files, is_strict)


def zipped(files: dict[str, str], is_strict: bool = False) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            if is_strict:
                content = content.replace(WORD, "http://purl.oclc.org/ooxml/wordprocessingml/main")
                content = content.replace(OFFICE, "http://purl.oclc.org/ooxml/officeDocument/relationships")
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        word_file("word/document.xml", USUAL),
        word_file("word/main.xml", USUAL),
        word_file("word/document2.xml", USUAL, stale="word/document.xml"),
        word_file("doc/document.xml", USUAL),
        word_file("doc/text/main.xml", OTHER, slash="/"),
        word_file("document.xml", OTHER),
        word_file("word/document.xml", OTHER, slash="/"),
        word_file("word/document.xml", USUAL, is_strict=True),
        word_file("doc/main.xml", OTHER, is_strict=True),
    ],
    ids=["usual", "main", "second", "folder", "deep", "root", "others", "strict", "strict-others"],
)
def test_parts_are_found_by_what_refers_to_them(data: bytes) -> None:
    with pytest.warns(
        UserWarning, match=r"a\.docx holds hidden text, which is not read: '.*'; show it in the"
    ) as told:
        text = read_document_file(data, name="a.docx")
    link = "[http://purl.oclc.org/ooxml/drawingml/](http://example.org/a?b)"
    assert text == f"Clause 7: Rent\nin^1 {link}\n1. Note↩︎\n[header: Head]"
    assert sorted(str(told[0].message).split("'")[1].split()) == ["out", "secret", "secret"]


def styled(styles: str, body: str) -> str:
    """What is read of paragraphs under styles."""
    files = {
        "_rels/.rels": relations(("officeDocument", "word/document.xml", "")),
        "word/_rels/document.xml.rels": relations(("styles", "styles.xml", "")),
        "word/document.xml": f"<w:document {SPACES}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {SPACES}>{styles}</w:styles>",
    }
    return str(read_document_file(zipped(files), name="a.docx"))


SHOWN = f"<w:rPr>{SEEN}</w:rPr>"
NORMAL = '<w:style w:type="paragraph" w:styleId="N" w:default="{}">{}</w:style>'
OWN = '<w:style w:type="paragraph" w:styleId="Own">{}</w:style>'
FOR_ALL = f"<w:docDefaults><w:rPrDefault>{HIDDEN}</w:rPrDefault></w:docDefaults>"


@pytest.mark.parametrize(
    ("styles", "hidden", "text"),
    [
        (FOR_ALL + OWN.format(""), "a c", "b"),
        (FOR_ALL + OWN.format(SHOWN), "a", "b\nc"),
        (FOR_ALL + NORMAL.format(1, SHOWN) + OWN.format('<w:basedOn w:val="N"/>'), "", "a\nb\nc"),
        (FOR_ALL + NORMAL.format(1, SHOWN) + OWN.format(""), "c", "a\nb"),
        (NORMAL.format(1, HIDDEN) + OWN.format(""), "a", "b\nc"),
        (NORMAL.format("true", HIDDEN) + OWN.format('<w:basedOn w:val="N"/>'), "a c", "b"),
        (NORMAL.format(0, HIDDEN) + OWN.format(""), "", "a\nb\nc"),
    ],
)
def test_text_that_the_default_style_hides(styles: str, hidden: str, text: str) -> None:
    body = f"<w:p>{run('a')}</w:p><w:p>{run('b', SEEN)}</w:p>"
    body += f'<w:p><w:pPr><w:pStyle w:val="Own"/></w:pPr>{run("c")}</w:p>'
    if not hidden:
        assert styled(styles, body) == text
        return
    with pytest.warns(UserWarning, match=rf"which is not read: '{hidden}'; show it in the"):
        assert styled(styles, body) == text


@pytest.mark.parametrize("mark", ["<w:vanish/><w:specVanish/>", "<w:specVanish/>"])
def test_a_heading_that_runs_into_its_paragraph_is_read(mark: str) -> None:
    body = f"<w:p><w:pPr><w:rPr>{mark}</w:rPr></w:pPr>{run('Rent.')}</w:p><w:p>{run('It is due.')}</w:p>"
    assert styled("", body) == "Rent.\nIt is due."
