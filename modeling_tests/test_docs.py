# SPDX-License-Identifier: Apache-2.0
"""README and docs: links lead somewhere, commands and options exist, and Python blocks run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from transformers_hybridctx.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<before>[^\n]*\n)```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: .+ -->")
LINES_OF_A_NEWCOMERS_PAGE = 140

FACTS = """Iceland - Coastline: 4,970 km
Iceland - Area land: 100,250 sq km
Sweden - Area land: 410,335 sq km
Norway - Coastline: 25,148 km
The report says that the code of room 7 is 42. It was the best of times, it was the worst of times.
"""


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page's blocks in a language, but those that a comment before them takes out."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block["code"] for block in found if block["language"] == language and not NOT_RUN.match(block["before"])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_readme_is_read_to_its_end() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES_OF_A_NEWCOMERS_PAGE


def commands_shown(page: Path) -> Iterator[list[str]]:
    """The words of each `hybridctx ...`, in blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = [line.split("#")[0] for code in blocks(page, "bash") for line in code.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:\.venv/bin/)?hybridctx [^`]+)`", text.replace("\n", " "))
    for line in lines:
        words = shlex.split(line)
        if words and words[0].removeprefix(".venv/bin/") == "hybridctx":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for words in commands_shown(page):
        if words[0] in ("COMMAND", "--version", "--help"):
            continue
        assert words[0] in group.commands, f"{page.name} shows `hybridctx {words[0]}`, which is no command"
        command = group.commands[words[0]]
        if below := getattr(command, "commands", None):  # what is no command of `evaluate` is a suite or a file
            command = below.get(words[1], below["suite"])
        if command.context_settings.get("ignore_unknown_options"):
            continue  # what follows is another program's command line
        known = {name for option in command.params for name in option.opts} | {"--help"}
        for word in words[1:]:
            assert not word.startswith("-") or word in known, f"{page.name}: hybridctx {words[0]} has no {word}"


def test_every_option_of_users_commands_is_on_the_page_about_them() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():
        if command.rich_help_panel == "Documents":
            for option in command.params:
                assert option.param_type_name == "argument" or any(f"`{each}`" in page for each in option.opts), (
                    f"docs/command_line.md does not tell of {option.opts[0]} of `hybridctx {name}`"
                )


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
@pytest.mark.usefixtures("own_text_policies")
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would, but with a short text in place of the example documents."""
    (tmp_path / "examples").mkdir()
    for name in ("examples/nordic_factbook.txt", "examples/persuasion.txt", "report.txt"):
        (tmp_path / name).write_text(FACTS)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{page.name}, Python block {number}", "exec", dont_inherit=True), names)
