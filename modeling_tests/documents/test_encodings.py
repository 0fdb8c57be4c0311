# SPDX-License-Identifier: Apache-2.0
"""Encodings: believed where they are said, recognised where not, and no byte is dropped."""

from __future__ import annotations

import warnings

import pytest

from transformers_hybridctx.documents.encodings import decode

ENGLISH = "A naïve café costs 5 £. Yes.\nNo.\n" * 5
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Каждый охотник желает знать.\n" * 5
JAPANESE = "これは日本語の文章です。東京は日本の首都です。今日は天気がいいですね。\n" * 5
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, "x = 1\n"])
def test_unicode_is_read_with_a_mark_and_without(text: str, encoding: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(text.encode(encoding), "a.txt") == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("naïve", "cp1252"),
        (ENGLISH, "latin-1"),
        ("Größe über alles, Straße für Übung.\n" * 9, "cp1252"),
        ("El niño comió paella con ñoquis. La señora dijo: ¡Qué rico!\n" * 20, "cp1252"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "shift_jis"),
        ("这是一个中文文档，北京是中国的首都。我们今天去公园散步。\n" * 5, "gb18030"),
        ("이것은 한국어 문서입니다. 서울은 대한민국의 수도입니다.\n" * 5, "euc_kr"),
    ],
)
def test_other_encodings_are_recognised_and_named(text: str, encoding: str) -> None:
    with pytest.warns(UserWarning, match=r"a.txt does not say its encoding and is taken as \w+; encoding= decides"):
        assert decode(text.encode(encoding), "a.txt") == text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(text.encode(encoding), "a.txt", encoding) == text


@pytest.mark.parametrize(
    ("markup", "encoding"),
    [
        ('<meta charset="windows-1251">Привет', "cp1251"),
        ("<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>日本", "cp932"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><p>naïve “x”", "cp1252"),
        ("<meta charset=utf-16>naïve", "utf-8"),
        ("<meta charset=no-such-thing>naïve", "utf-8"),
    ],
)
def test_what_markup_declares_is_honoured(markup: str, encoding: str) -> None:
    assert decode(markup.encode(encoding), "a.html", is_markup=True) == markup


def test_a_bad_byte_is_placed_and_reported() -> None:
    data = "Größe\nnaïve\nx".encode() + b"\xff\xfey"
    with pytest.warns(UserWarning, match="byte 0xff at position 16 and 1 others are none, .* the first in line 3;"):
        assert decode(data, "a.txt", "utf-8") == "Größe\nnaïve\nx\ufffd\ufffdy"


@pytest.mark.parametrize("zeros", ["\0", "\0" * 40])
def test_a_text_with_a_few_zeros_is_not_taken_for_utf_16(zeros: str) -> None:
    text = "The harbour code is 4711.\n" * 40
    for whole in (text + zeros + text, zeros + text, text + zeros):
        assert decode(whole.encode(), "a.log") == whole


def test_a_file_of_utf8_with_a_torn_end_is_utf8() -> None:
    with pytest.warns(UserWarning, match="is not all utf-8 text"):
        assert decode(RUSSIAN.strip().encode() + b"\xd0", "a.txt") == RUSSIAN.strip() + "\ufffd"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x7fELF\x02\x01", "a program"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture; name it .png"),
        (b"SQLite format 3\x00", "a database of SQLite"),
    ],
)
def test_binaries_are_named_for_what_they_are(data: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=f"a.txt is {kind}, and no text"):
        decode(data, "a.txt")


@pytest.mark.parametrize("data", [b"\0\1\2" * 100, bytes(9), b"text\x02\x00" * 50, bytes(range(32)) * 9])
def test_what_is_control_characters_is_no_text(data: bytes) -> None:
    with pytest.raises(
        ValueError, match=r"a\.txt is a binary file: \d+% of its bytes are control characters; encoding= "
    ):
        decode(data, "a.txt")
    assert decode(data, "a.txt", "latin-1") == data.decode("latin-1")


@pytest.mark.parametrize("text", ["MZ is a name", "Rar! cried he", "RIFF and raff", "GIF89a is a format", "PAR1 ID3"])
def test_a_text_may_begin_like_a_binary(text: str) -> None:
    assert decode(text.encode(), "a.txt") == text


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "base64"])  # the last two are codecs, and none of text
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=f"encoding='{encoding}' of a.txt is unknown"):
        decode(b"x", "a.txt", encoding)
