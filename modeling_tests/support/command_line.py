# SPDX-License-Identifier: Apache-2.0
"""The command `hybridctx`, run in this process or in one of its own, and the document that its tests ask about."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from transformers_hybridctx.cli.app import app

TALE = (
    "It was the best of times, it was the worst of times. " * 6
    + "The special magic number for green-lemur is: 4821930. "
    + "It was the age of wisdom, it was the age of foolishness. " * 6
)


def run(*arguments: Any, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "200"})


def refused(*arguments: Any) -> str:
    """What is printed where a command is refused: one line, to stderr, with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr.removeprefix("error: ").rstrip()


def run_alone(*arguments: Any, afterwards: str = "pass", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The console script in a process of its own; the statement `afterwards` runs at its end."""
    code = f"import sys, hybridctx_console\ntry:\n    hybridctx_console.main()\nfinally:\n    {afterwards}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, "COLUMNS": "200", **environment})
