# SPDX-License-Identifier: Apache-2.0
"""Written documents, slides, books and notebooks by pandoc, and e-mail: the text of the HTML that they become."""

from __future__ import annotations

import posixpath
import re
import subprocess
import warnings
import zipfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from io import BytesIO
from quopri import decodestring

from .archives import DAMAGE, Package, part_of, related_parts
from .containers import check_container
from .encodings import decode, encoding_of_whole
from .hidden_words import take_out_hidden_runs
from .html import html_text
from .marked_tables import with_tables
from .odt import write_plain_text
from .office_parts import left_out
from .rtf import prepared_rtf
from .slides import write_seen_shapes
from .word_looks import drop_looks
from .word_markup import write_plain_markup
from .word_numbers import write_numbers
from .word_parts import use_usual_parts

PANDOC_FORMATS = {
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), "docx"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"), "pptx"),
    **{".odt": "odt", ".ott": "odt", ".rtf": "rtf", ".epub": "epub", ".ipynb": "ipynb"},
}
"""Suffix of a file -> what pandoc calls its format."""
PANDOC_SECONDS = 120
"""Longest that pandoc may take for a file."""
PANDOC_BYTES = 2**30
"""Most memory that pandoc may take."""

_NOT_LINEAR = re.compile(rb"""\slinear\s*=\s*(["'])no\1""")
_OF_BOOKS = (".xhtml", ".html", ".htm")
_NOTE_KIND = re.compile(rb"""\sepub:type\s*=\s*(["'])[^"']*\b(?:footnotes?|rearnotes?)\b[^"']*\1""")
_NOTE = re.compile(rb"<[^<>]*\b(?:footnotes?|rearnotes?)\b[^<>]*>")
_NOTE_MARK = re.compile(rb"<[^<>]*\bnoteref\b[^<>]*>")
_TO_NOTE = re.compile(rb"""\shref\s*=\s*["'][^"'#]*#([^"']+)""")
_ID = re.compile(rb"""\sid\s*=\s*["']([^"']+)""")
_HEAP_EXHAUSTED = 251  # GHC's own exit code
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_SHOWN = ("text/plain", "text/html")
_OF_ONE_TEXT = ("multipart/alternative", "multipart/related")
_SEPARATOR = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\d{4}\r?\n")
_QUOTED_FROM = re.compile(rb"^>(?=>*From )", re.M)
_FEW_WORDS, _FAR_MORE = 60, 3
_ENCODINGS = ("base64", "quoted-printable")
_SEALED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")  # RFC 1847, RFC 8551


def office_text(data: bytes, suffix: str, name: str) -> str:
    """The text of a file by pandoc, in a process of its own that reads and writes no other file.

    Raises:
        ValueError: pandoc is not installed, or cannot read the file within `PANDOC_SECONDS` and `PANDOC_BYTES`.
    """
    try:
        from pypandoc import get_pandoc_path

        program = get_pandoc_path()
    except (ImportError, OSError) as error:
        raise ValueError(
            f"{name} is read by pandoc, which is not installed: pip install 'transformers-hybridctx[office]'; "
            "or save it as PDF, HTML or plain text"
        ) from error
    kind = PANDOC_FORMATS[suffix]
    data = _prepared(data, kind, name)
    command = [program, "+RTS", f"-M{PANDOC_BYTES}", "-RTS", "--sandbox", "--wrap=none", "--track-changes=accept"]
    try:
        done = subprocess.run(
            [*command, "-f", kind, "-t", "html", "--standalone"],
            input=data,
            capture_output=True,
            timeout=PANDOC_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{name} takes pandoc more than {PANDOC_SECONDS} seconds; split it up") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        if done.returncode == _HEAP_EXHAUSTED:
            reason = f"it takes pandoc more than {PANDOC_BYTES:,} bytes of memory; split it up"
        else:
            reason = "it is damaged, or of another kind; save it again, or as PDF"
        raise ValueError(f"{name} cannot be read as {suffix}: {reason}") from RuntimeError(said)
    # A whole page, for titles and authors, which pandoc takes out of the text; its head always has one.
    page = "".join(done.stdout.decode("utf-8", "replace").partition("<body>")[1:])
    body = html_text(with_tables(page), name)
    return "\n".join(filter(None, [body, *_chunks(data, name), *left_out(data, kind, body, name)]))


def _prepared(data: bytes, kind: str, name: str) -> bytes:
    """A file as pandoc reads it without loss."""
    if kind == "rtf":
        return prepared_rtf(data, name)
    if kind not in _STEPS:
        return data
    try:
        package = Package(data)
        for step in _STEPS[kind]:
            step(package, name)
        return package.packed()
    except DAMAGE:
        return data  # its reader says so


def _read_all_chapters(package: Package, name: str) -> None:
    """Make notes and appendices of a book text like others: pandoc drops chapters that a reader need not pass, and notes
    that no mark of a note refers to.
    """
    books = {part: part_of(package, part) for part in package.namelist() if part.endswith(".opf")}
    package.replace({part: plain for part, one in books.items() if (plain := _NOT_LINEAR.sub(b"", one)) != one})
    pages = {part: part_of(package, part) for part in package.namelist() if part.endswith(_OF_BOOKS)}
    asked = {found[1] for one in pages.values() for tag in _NOTE_MARK.findall(one) for found in _TO_NOTE.finditer(tag)}

    def without_kind(tag: re.Match[bytes]) -> bytes:
        own = _ID.search(tag[0])
        return tag[0] if own and own[1] in asked else _NOTE_KIND.sub(b"", tag[0])

    package.replace({part: plain for part, one in pages.items() if (plain := _NOTE.sub(without_kind, one)) != one})


_STEPS: dict[str, tuple[Callable[[Package, str], None], ...]] = {
    "docx": (use_usual_parts, drop_looks, write_plain_markup, take_out_hidden_runs, write_numbers),
    "pptx": (write_seen_shapes,),
    "epub": (_read_all_chapters,),
    "odt": (write_plain_text,),
}
"""What is written anew in files of a kind, in this order."""


def _chunks(data: bytes, name: str) -> list[str]:
    """What a Word file holds as whole files of other kinds, which Word makes its own text once it is saved there."""
    texts = []
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            parts = related_parts(archive, "word/document.xml", "aFChunk").values()
            chunks = [(part, part_of(archive, part)) for part in parts if part in archive.namelist()]
    except DAMAGE:
        return []  # what is damaged was said before
    for part, content in chunks:
        suffix = posixpath.splitext(part)[1].lower()
        whole = f"{name}: {part}"
        if suffix in PANDOC_FORMATS:
            check_container(content, suffix, whole)
            texts.append(office_text(content, suffix, whole))
        elif suffix in (".mht", ".mhtml", ".eml"):
            texts.append(_message_text(message_from_bytes(content, policy=policy.default), whole))
        elif suffix in (".htm", ".html", ".xhtml"):
            texts.append(html_text(decode(content, whole, is_markup=True), whole))
        elif suffix == ".txt":
            texts.append(decode(content, whole))
        else:
            warnings.warn(f"{name}: its part {part} is not read: it is of no kind that Word files hold", stacklevel=4)
    return texts


def email_text(data: bytes, name: str) -> str:
    """A message: its sender, receivers, date and subject, its text, messages that are forwarded with it, and the names
    of what else is attached, which is not read.

    Raises:
        ValueError: it is no message, one that is encrypted, or one of more parts within parts than mail has.
    """
    try:
        message = _parsed(*_in_bytes(data))
        if not any(message[header] for header in _HEADERS):
            raise ValueError(f"{name} is no e-mail: it has none of the headers {', '.join(_HEADERS)}")
        if (kind := message.get_content_type()) in _SEALED:
            raise ValueError(
                f"{name} is encrypted, or sealed by its signature ({kind}): save it without, or its text, with a mail "
                "program that opens it"
            )
        return _message_text(message, name)
    except RecursionError as error:
        raise ValueError(f"{name} cannot be read as an e-mail: its parts stand too deep within each other") from error


def _in_bytes(data: bytes) -> tuple[bytes, bool]:
    """(messages that can be read byte by byte, whether they are UTF-8 now), be they saved as UTF-16 by an editor."""
    encoding = encoding_of_whole(data)
    return (data.decode(encoding, "replace").encode("utf-8", "replace"), True) if encoding else (data, False)


def _parsed(data: bytes, is_utf8: bool) -> EmailMessage:
    """A message; with `is_utf8`, all that is not encoded otherwise is, whatever its parts say."""
    message = message_from_bytes(data, policy=policy.default)
    for part in message.walk() if is_utf8 else ():
        is_encoded = str(part.get("Content-Transfer-Encoding", "")).strip().lower() in _ENCODINGS
        if part.get_content_maintype() == "text" and not is_encoded:
            part.set_param("charset", "utf-8", replace=True)
    return message


def mailbox_text(data: bytes, name: str) -> str:
    """The messages of a mail box (RFC 4155), one after the other; raises as `email_text`."""
    data, is_utf8 = _in_bytes(data)
    messages = _SEPARATOR.split(data)[1:]
    if not messages:
        raise ValueError(f"{name} is no mail box: it begins with no line 'From ...' before a message")
    texts = []
    for number, one in enumerate(messages, start=1):
        own = f"message {number} of {name}"
        try:
            message = _parsed(_QUOTED_FROM.sub(b"", one), is_utf8)
            texts.append(f"# Message {number}\n{_message_text(message, own)}")
        except RecursionError as error:
            raise ValueError(f"{own} cannot be read: its parts stand too deep within each other") from error
    return "\n\n".join(texts)


def _message_text(message: EmailMessage, name: str) -> str:
    return "\n".join(
        [*(f"{header}: {message[header]}" for header in _HEADERS if message[header]), *_content(message, name)]
    )


def _content(message: MIMEPart, name: str) -> Iterator[str]:
    """The lines of a message: its text, and what stands beside that, as text where it is shown as such."""
    body, text = _body(message, name)
    if text.strip():
        yield from ("", text)
    is_page = message.get_content_type() == "multipart/related"  # with what it shows beside its words
    for part in _beside(message, body):
        if part.get_content_maintype() == "multipart":
            yield from _content(part, name)
        elif part.get_content_type() in _SHOWN and not part.is_attachment() and not part.get_filename():
            yield from ("", _part_text(part, name))
        elif not is_page:
            yield f"[attached: {part.get_filename() or part.get_content_type()}]"
            if part.get_content_type() == "message/rfc822":
                inner = [_message_text(one, name) for one in _messages_in(part)]
                yield from ("", *inner)


def _messages_in(part: MIMEPart) -> Iterator[EmailMessage]:
    """The message that is attached as such; encoded, too, which RFC 2046 forbids and programs do."""
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    for one in part.iter_parts():
        if not isinstance(one, EmailMessage):
            continue
        if encoding == "quoted-printable":
            yield _parsed(decodestring(one.as_bytes()), False)
        elif encoding == "base64" and not one.keys():
            yield _parsed(b64decode(one.as_bytes() + b"=="), False)  # with what a torn one may lack
        else:
            yield one


def _body(message: MIMEPart, name: str) -> tuple[MIMEPart | None, str]:
    """What a reader sees first: the plain text, unless it is blank, or only says that there is more in the other one."""
    plain, marked = (message.get_body((kind,)) for kind in ("plain", "html"))
    if plain is None and marked is None:
        return (message, _part_text(message, name)) if message.get_content_maintype() == "text" else (None, "")
    text = "" if plain is None else _part_text(plain, name)
    words = len(text.split())
    if marked is None or words > _FEW_WORDS:
        return plain, text
    page = _part_text(marked, name)
    return (marked, page) if len(page.split()) > _FAR_MORE * words else (plain, text)


def _beside(message: MIMEPart, body: MIMEPart | None) -> list[MIMEPart]:
    """The parts of a message that its text is none of; a message without parts may be a file itself, such as a fax."""
    if not message.is_multipart():
        return [message] if body is None else []
    if message.get_content_type() in _OF_ONE_TEXT:
        return list(message.iter_attachments())
    return [part for part in message.iter_parts() if all(one is not body for one in part.walk())]


def _part_text(part: MIMEPart, name: str) -> str:
    content = part.get_payload(decode=True)
    text = decode(content if isinstance(content, bytes) else b"", f"the text of {name}", _charset_of(part))
    is_page = part.get_content_type() == "text/html"
    return html_text(text, name) if is_page else text.replace("\r\n", "\n").rstrip("\n")


def _charset_of(part: MIMEPart) -> str | None:
    charset = part.get_content_charset()
    try:
        "".encode(charset or "utf-8")
    except LookupError:
        return None
    return charset
