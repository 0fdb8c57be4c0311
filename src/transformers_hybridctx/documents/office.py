# SPDX-License-Identifier: Apache-2.0
"""Written documents, slides, books and notebooks by pandoc, and e-mail: the text of the HTML that they become."""

from __future__ import annotations

import subprocess
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from .encodings import decode
from .hidden_slides import without_hidden_slides
from .hidden_words import without_hidden_runs
from .html import html_text
from .marked_tables import with_tables
from .odt import prepared_odt
from .office_parts import left_out
from .rtf import prepared_rtf

PANDOC_FORMATS = {
    **dict.fromkeys((".docx", ".docm"), "docx"),
    **{".pptx": "pptx", ".odt": "odt", ".rtf": "rtf", ".epub": "epub", ".ipynb": "ipynb"},
}
"""Suffix of a file -> what pandoc calls its format."""
PANDOC_SECONDS = 120
"""Longest that pandoc may take for a file."""
PANDOC_BYTES = 2**30
"""Most memory that pandoc may take."""

_HEAP_EXHAUSTED = 251  # GHC's own exit code
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
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
    data = _prepared(data, suffix, name)
    command = [program, "+RTS", f"-M{PANDOC_BYTES}", "-RTS", "--sandbox", "--wrap=none", "--track-changes=accept"]
    try:
        done = subprocess.run(
            [*command, "-f", PANDOC_FORMATS[suffix], "-t", "html", "--standalone"],
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
    return "\n".join(filter(None, [body, *left_out(data, suffix, body, name)]))


def _prepared(data: bytes, suffix: str, name: str) -> bytes:
    """A file as pandoc reads it without loss."""
    if suffix in (".docx", ".docm"):
        return without_hidden_runs(data, name)
    if suffix == ".pptx":
        return without_hidden_slides(data, name)
    if suffix == ".rtf":
        return prepared_rtf(data, name)
    return prepared_odt(data, name) if suffix == ".odt" else data


def email_text(data: bytes, name: str) -> str:
    """A message: its sender, receivers, date and subject, its text, messages that are forwarded with it, and the names
    of what else is attached, which is not read.

    Raises:
        ValueError: it is no message, one that is encrypted, or one of more parts within parts than mail has.
    """
    try:
        message = message_from_bytes(data, policy=policy.default)
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


def _message_text(message: EmailMessage, name: str) -> str:
    lines = [f"{header}: {message[header]}" for header in _HEADERS if message[header]]
    for kind in ("plain", "html"):  # a plain one may be there and say nothing
        body = message.get_body((kind,))
        if body is None:
            continue
        content = body.get_payload(decode=True)
        text = decode(content if isinstance(content, bytes) else b"", f"the text of {name}", _charset_of(body))
        text = html_text(text, name) if kind == "html" else text.replace("\r\n", "\n").rstrip("\n")
        if text.strip():
            lines += ["", text]
            break
    # A message without parts may be a file itself, such as a fax.
    is_a_file = not message.is_multipart() and message.get_content_maintype() != "text"
    for part in [message] if is_a_file else message.iter_attachments():
        lines.append(f"[attached: {part.get_filename() or part.get_content_type()}]")
        if part.get_content_type() == "message/rfc822":
            lines += [
                "",
                *(_message_text(inner, name) for inner in part.iter_parts() if isinstance(inner, EmailMessage)),
            ]
    return "\n".join(lines)


def _charset_of(part: MIMEPart) -> str | None:
    charset = part.get_content_charset()
    try:
        "".encode(charset or "utf-8")
    except LookupError:
        return None
    return charset
