# SPDX-License-Identifier: Apache-2.0
"""Several files, or a folder of them, as one document whose parts keep their names and their pages."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .emptiness import EmptyFileError
from .fetching import fetch, is_web_address
from .files import MAX_PAGED_BYTES, is_read, local_path, name_of_open_file, names_a_file, read_document_file
from .joined_document import DocumentParts
from .page_numbers import PagedText, SourcePage
from .pdf_layouts import note_of
from .scans import ScannedPages
from .source_document import ShownPage

MAX_FILES = 2000
"""Most files of one document."""
_MOST_NAMED = 5
_LINK_TO_FOLDER = "links to folders, which are not followed"

Content = str | ScannedPages | DocumentParts


def read_documents(sources: Sequence[Any], *, may_fetch: bool = False, **options: Any) -> Content:
    """
    One document from files, folders and open files: that of the one file, or of several, each under its name.

    Of a folder, the files of all kinds that are read, in the order of their paths, those in its folders included; hidden
    ones are left out. Of what it holds, nothing else is left out without a word.

    Args:
        sources: paths, `file:` addresses, or open files of bytes; with `may_fetch`, web addresses too.
        may_fetch: whether web addresses are fetched; otherwise one is an error.
        options: as in `read_document_file`.

    Raises:
        ValueError, OSError: as `read_document_file`, of any of the files; a folder without files that are read; more than
            `MAX_FILES` files; options for the pages of one file where there are several.

    Warns:
        UserWarning: files that are given more than once; files of a folder that are empty, or of no kind that is read;
            links to nothing, and folders that may not be looked into.
    """
    found = _distinct([item for source in sources for item in _files_of(source)])
    if len(found) > MAX_FILES:
        raise ValueError(f"{len(found):,} files are more than the {MAX_FILES:,} that are read as one document")
    if len(found) == 1 and any(found[0][0] is source for source in sources):
        return _read(found[0][0], may_fetch, options)
    for name in ("pages", "name"):
        if options.get(name) is not None:
            raise ValueError(f"{name}={options[name]!r} is of one file, and {len(found):,} are read")
    parts: list[str | ShownPage] = []
    notes: list[str] = []
    empty: list[str] = []
    for source, name in found:
        try:
            content = _read(source, may_fetch, options)
        except EmptyFileError:
            if any(source is one for one in sources):  # asked for by its own name
                raise
            empty.append(name)
            continue
        parts += _named_parts(content, name)
        if isinstance(content, ScannedPages):
            notes.append(f"{name}: {note_of(dict.fromkeys(range(1, content.num_pages + 1), ()), 0)}, unknown text")
        elif isinstance(content, DocumentParts) and content.layout_note:
            notes.append(f"{name}: {content.layout_note}")
    if not parts:
        raise EmptyFileError(f"empty document: nothing is in {_listed(empty)}")
    if empty:
        warnings.warn(f"these files hold nothing, and are left out: {_listed(empty)}", stacklevel=3)
    texts = [part for part in parts if isinstance(part, str)]
    return PagedText.joined(texts) if len(texts) == len(parts) else DocumentParts(tuple(parts), "; ".join(notes))


def names_files(document: Any) -> bool:
    """Whether a document is given by the name of a file or folder, or by a list of such names."""
    if isinstance(document, (list, tuple)):
        return bool(document) and all(isinstance(one, (str, os.PathLike)) and names_a_file(one) for one in document)
    return names_a_file(document)


def _files_of(source: Any) -> Iterator[tuple[Any, str]]:
    """(what to read, what it is called)."""
    if not isinstance(source, (str, os.PathLike)):
        yield source, name_of_open_file(source, "standard input")
        return
    if is_web_address(source):
        yield source, Path(source).name
        return
    path = local_path(source)
    if not path.is_dir():
        yield source, path.name
        return
    left_out: dict[str, list[str]] = {}
    found = False
    for file, problem in _walked(path):
        own = file.relative_to(path)
        if any(part.startswith(".") for part in own.parts):
            continue
        if not problem and is_read(file):
            found = True
            yield file, own.as_posix()
        else:
            left_out.setdefault(problem or "of no kind that is read", []).append(own.as_posix())
    said = [f"{problem}: {_listed(names)}" for problem, names in left_out.items()]
    if not found:
        raise ValueError(
            f"the folder {path} holds no file of a kind that is read{''.join(f'; {one}' for one in said)}"
        )
    for one in said:
        warnings.warn(f"{path}: {one}", stacklevel=4)


def _distinct(found: Sequence[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Each file once, those of one name by their paths."""
    once: dict[Any, tuple[Any, str]] = {}
    again = []
    for source, name in found:
        file = _identity(source)
        if file in once:
            again.append(str(source) if isinstance(source, (str, os.PathLike)) else name)
        once.setdefault(file, (source, name))
    if again:
        warnings.warn(f"these files are given more than once, and read once: {_listed(again)}", stacklevel=4)
    named = Counter(name for _, name in once.values())
    return [
        (source, str(source) if named[name] > 1 and isinstance(source, (str, os.PathLike)) else name)
        for source, name in once.values()
    ]


def _identity(source: Any) -> Any:
    """What two spellings of one file's name have in common; a link to a file is another, with a name of its own."""
    if not isinstance(source, (str, os.PathLike)):
        return id(source)
    if is_web_address(source):
        return source
    path = Path(os.path.normpath(local_path(source)))
    return Path(os.path.realpath(path.parent), path.name)


def _walked(folder: Path) -> Iterator[tuple[Path, str]]:
    """What stands in a folder and in those in it, in the order of the paths, and why it cannot be read, or ""."""
    found: list[tuple[Path, str]] = []

    def not_looked_into(error: OSError) -> None:
        found.append((Path(error.filename), f"folders that cannot be looked into ({error.strerror})"))

    for place, folders, files in os.walk(folder, onerror=not_looked_into):
        found += [(Path(place, name), _problem_of(Path(place, name))) for name in files]
        found += [(Path(place, name), _LINK_TO_FOLDER) for name in folders if Path(place, name).is_symlink()]
    return iter(sorted(found))


def _problem_of(path: Path) -> str:
    if path.is_file():
        return "" if os.access(path, os.R_OK) else "files that may not be read"
    return "links to nothing" if path.is_symlink() else "no files, but pipes or devices"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _read(source: Any, may_fetch: bool, options: dict[str, Any]) -> Content:
    if may_fetch and is_web_address(source):
        data, name = fetch(source, MAX_PAGED_BYTES)
        return read_document_file(data, **{**options, "name": options.get("name") or name})
    return read_document_file(source, **options)


def _named_parts(content: Content, name: str) -> list[str | ShownPage]:
    """The parts of a document under a heading with its name, their pages marked as its own."""
    heading = f"# {name}\n\n"
    if isinstance(content, ScannedPages):
        pages = [SourcePage(number, str(number), name) for number in range(1, content.num_pages + 1)]
        shown = [ShownPage.without_text(*each) for each in zip(content.sources, pages, strict=True)]
        return [_text_of(heading, "", name), *shown]
    if isinstance(content, str):
        return [_text_of(heading, content, name)]
    parts = list(content.parts)
    first = parts.pop(0) if isinstance(parts[0], str) else ""
    assert isinstance(first, str)
    return [_text_of(heading, first, name), *(_marked(part, name) for part in parts)]


def _marked(part: str | ShownPage, name: str) -> str | ShownPage:
    if isinstance(part, str):
        return _text_of("", part, name)
    number = part.number or SourcePage(1, "", name)
    return replace(part, number=number._replace(file=name))


def _text_of(heading: str, text: str, name: str) -> PagedText:
    """A text whose pages know their file; form feeds tell pages apart where it does not know its own."""
    if isinstance(text, PagedText):
        texts: Sequence[str] = text.texts
        pages = [(page or SourcePage(1, ""))._replace(file=name) for page in text.pages]
    else:
        texts = text.split("\f")
        has_pages = len(texts) > 1
        pages = [SourcePage(number, str(number) * has_pages, name) for number in range(1, len(texts) + 1)]
    return PagedText([heading + texts[0], *texts[1:]], pages)


__all__ = ["MAX_FILES", "names_files", "read_documents"]
