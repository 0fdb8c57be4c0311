# SPDX-License-Identifier: Apache-2.0
"""Records that turn out not to be usable when examples are made of them: a file with a line of JSON for each."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path


def note_unused(path: Path, source: str, objective: str, reason: str) -> None:
    """Add a line about a record; it is there again each time that the record is drawn."""
    line = json.dumps({"source": source, "objective": objective, "reason": reason}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:  # one write: several workers add to the file
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def count_unused(path: Path) -> dict[str, int]:
    """How many records were not used, by objective and reason. The file has each once afterwards."""
    if not path.exists():
        return {}
    lines = dict.fromkeys(path.read_text(encoding="utf-8").splitlines(keepends=True))
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(path)
    noted = map(json.loads, lines)
    return dict(Counter(f"{one['objective']}: {one['reason']}" for one in noted))


__all__ = ["count_unused", "note_unused"]
