# SPDX-License-Identifier: Apache-2.0
"""What commands take as documents: standard input, addresses, scans with text recognition, fonts of the machine."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import refused, run, run_alone
from document_samples import SamplePage, pdf_file
from document_site import document_site
from made_fonts import font_of, save_collection
from PIL import Image, ImageDraw, ImageFont

from transformers_hybridctx.documents import recognition
from transformers_hybridctx.rendering.settings import BUNDLED_SANS


def plan(checkpoint: Path, *arguments: Any, stdin: bytes | None = None) -> str:
    result = run("plan", *arguments, "--model", checkpoint, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_standard_input_is_a_document_of_any_kind(checkpoint: Path) -> None:
    assert "document     13 characters" in plan(checkpoint, "-", stdin=b"from a pipe.\n")
    assert "document     10 characters" in plan(checkpoint, "-", stdin=pdf_file(["Of a PDF.."]))
    assert "laid out     2 pages" in plan(checkpoint, "-", "--layout", "source", stdin=pdf_file(["One.", "Two."]))


def test_standard_input_is_one_of_several_documents(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The code.")
    joined = "# a.txt\n\nThe code.\f# standard input\n\npiped"
    assert f"document     {len(joined)} characters" in plan(checkpoint, tmp_path / "a.txt", "-", stdin=b"piped")
    assert "- stands for standard input, which can be read once only" in refused("plan", "-", "-")


def test_empty_standard_input_is_refused(checkpoint: Path) -> None:
    result = run("plan", "-", "--model", checkpoint, stdin=b"")
    assert result.exit_code == 2
    assert "has no bytes" in result.stderr


def test_a_pipe_is_read_as_a_shell_gives_it(checkpoint: Path, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"through a named pipe"))
    writer.start()
    result = run_alone("plan", tmp_path / "pipe", "--model", checkpoint)
    writer.join()
    assert b"document     20 characters" in result.stdout, result.stderr


def test_addresses_are_fetched_when_asked_only(checkpoint: Path) -> None:
    with document_site() as site:
        assert "document     8 characters" in plan(checkpoint, f"{site}/report", "--fetch")
        assert "give --fetch, or download it" in refused("plan", f"{site}/report", "--model", checkpoint)
        assert "cannot be fetched: 404" in refused("plan", f"{site}/none", "--model", checkpoint, "--fetch")
        assert "cannot be fetched: 302" in refused("plan", f"{site}/away", "--model", checkpoint, "--fetch")


def test_scans_gain_text_in_the_languages_that_are_asked_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def engine(languages: str) -> recognition.Recognizer:
        asked.append(languages)
        return lambda picture: [("Recognised", (10, 10, 200, 40))]

    monkeypatch.setattr(recognition, "tesseract", engine)
    (tmp_path / "a.pdf").write_bytes(pdf_file(["Text.", SamplePage(b"", picture=Image.new("L", (100, 60), 255))]))
    assert "document     16 characters" in plan(checkpoint, tmp_path / "a.pdf", "--ocr", "deu+fra")
    assert asked == ["deu+fra"]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="the program tesseract is not installed")
def test_tesseract_reads_a_picture_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    picture = Image.new("L", (900, 200), 255)
    font = ImageFont.truetype(BUNDLED_SANS, 48)
    ImageDraw.Draw(picture).text((50, 60), "Invoice 2024-0917", font=font, fill=0)
    picture.save(tmp_path / "scan.png")
    assert "document     17 characters" in plan(checkpoint, tmp_path / "scan.png", "--ocr", "eng")
    message = refused("plan", tmp_path / "scan.png", "--model", checkpoint, "--ocr", "xxx")
    assert "tesseract has no language 'xxx'" in message


def test_plans_say_which_characters_no_font_has_and_fonts_bring_them(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Contract \u5408\u540c \u0e01, \x01.", encoding="utf-8")
    assert (
        "no font      4 characters are drawn as boxes: 2 CJK, 1 Thai, 1 control characters; --font system"
    ) in plan(checkpoint, tmp_path / "a.txt")
    faces = [font_of("\u5408\u540c", "One"), font_of("\u5408\u540c\u0e01", "Two")]
    file = save_collection(faces, tmp_path / "two.ttc")
    first, second = (
        plan(checkpoint, tmp_path / "a.txt", "--font", file),
        plan(checkpoint, tmp_path / "a.txt", "--font", f"{file}#1"),
    )
    assert "no font      2 characters are drawn as boxes: 1 Thai, 1 control characters; --font" in first
    assert "no font      1 characters are drawn as boxes: 1 control characters\n" in second
    missing = refused("plan", tmp_path / "a.txt", "--model", checkpoint, "--font", tmp_path / "none.ttf")
    assert "none.ttf: there is no such file" in missing


@pytest.mark.skipif(shutil.which("fc-match") is None, reason="fontconfig is not installed")
def test_fonts_of_the_machine_are_found_when_asked_for_and_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fonts").mkdir()
    font_of("\u5408\u540c", "Han").save(tmp_path / "fonts" / "han.ttf")
    (tmp_path / "fonts.conf").write_text(
        f"<fontconfig><dir>{tmp_path / 'fonts'}</dir><cachedir>{tmp_path / 'c'}</cachedir></fontconfig>"
    )
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))
    (tmp_path / "a.txt").write_text("Contract \u5408\u540c.", encoding="utf-8")
    result = run("plan", tmp_path / "a.txt", "--model", checkpoint, "--font", "system")
    assert result.exit_code == 0, result.output
    assert "no font" not in result.stdout
    assert result.stderr == f"fonts of this machine: Han ({tmp_path / 'fonts' / 'han.ttf'}) for 2 characters\n"
    # what was read with a font is asked with it
    out = tmp_path / "a.safetensors"
    assert run("read", tmp_path / "a.txt", out, "--model", checkpoint, "--font", "system").exit_code == 0
    asked = ("ask", out, "-q", "What?", "--model", checkpoint, "--max-new-tokens", 2)
    assert run(*asked, "--font", "system").exit_code == 0
    assert "made with another render config (fallback_font_paths=" in refused(*asked)
    # and what asks before it has a document takes all that help
    (tmp_path / "tasks.jsonl").write_text('{"text": "\u5408\u540c", "question": "What?"}\n')
    asked = (
        "batch",
        tmp_path / "tasks.jsonl",
        "--out",
        tmp_path / "out.jsonl",
        "--model",
        checkpoint,
        "--max-new-tokens",
        2,
    )
    result = run(*asked, "--font", "system")
    assert result.exit_code == 0, result.output
    assert f"fonts of this machine: Han ({tmp_path / 'fonts' / 'han.ttf'}) for 2 characters\n" in result.stderr


@pytest.mark.parametrize("command", [("render", "--out", "pages"), ("web",), ("read", "again.safetensors")])
def test_a_saved_reading_is_no_document_where_documents_are_read(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "a.safetensors").write_bytes(bytes(range(256)))
    told = refused(command[0], tmp_path / "a.safetensors", *command[1:])
    assert "a.safetensors is what `hybridctx read` wrote" in told and "--encoding" not in told
