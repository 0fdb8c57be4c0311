# SPDX-License-Identifier: Apache-2.0
"""The command `hybridctx` as a whole: its help, its consoles, and how it refuses."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import refused, run, run_alone
from document_samples import pdf_file
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

import transformers_hybridctx
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.cli import evaluation
from transformers_hybridctx.cli.app import main
from transformers_hybridctx.cli.errors import EXTRAS_OF
from transformers_hybridctx.cli.options import in_options

_NOT_FOUND: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize("arguments", [("--help",), ("ask", "--help"), ("pln",), ("--version",), ()])
def test_what_needs_no_document_needs_no_torch(arguments: tuple[str, ...]) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'PIL'}"
    result = run_alone(*arguments, afterwards=f"assert not {heavy} & sys.modules.keys()")
    assert b"AssertionError" not in result.stderr, result.stderr


def test_planning_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The code of room 7 is 42.")
    wanted = "assert not {'torch', 'transformers.modeling_utils'} & sys.modules.keys()"
    result = run_alone("plan", tmp_path / "a.txt", "-q", "Which code?", afterwards=wanted)
    assert result.returncode == 0, result.stderr


def test_the_module_is_the_command_too() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "transformers_hybridctx", "--version"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.stdout, result.returncode) == (f"hybridctx {transformers_hybridctx.__version__}\n", 0)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "typer" in imported and not {"torch", "transformers", "numpy", "PIL"} & imported  # as light as the script


def test_help_lists_users_commands_before_developers() -> None:
    found = re.findall(r"^│ ([a-z][a-z-]*) ", run("--help").stdout, re.MULTILINE)
    assert found == [
        "ask",
        "read",
        "plan",
        "render",
        "chat",
        "web",
        "batch",
        "serve",
        "convert",
        "export",
        "merge-lora",
        "fill-card",
        "train",
        "heads",
        "legibility",
        "evaluate",
    ]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["ask"], "--question --model --budget --visual-share --min-scale --text-policy --max-text-tokens"),
        (["ask"], "--max-new-tokens --grounding --repair --abstain --font --passages --evidence-dir --json"),
        (["read"], "--model --budget --visual-share --min-scale --text-policy --max-text-tokens --font"),
        (["plan"], "--question --model --budget --visual-share --min-scale --max-text-tokens --font"),
        (["render"], "--out --config --scale"),
        (["chat"], "--model --budget --visual-share --min-scale --text-policy --max-text-tokens --max-new-tokens"),
        (["chat"], "--grounding --repair --abstain"),
        (
            ["evaluate", "suite"],
            "--model --budget-share --examples --seed --out --context --policy --task --data --prose",
        ),
        (["evaluate", "tradeoff"], "--model --lengths --budget-share --scale --examples --out"),
        (["legibility"], "--model --font-size --dpi --examples --out"),
        (["heads"], "--model --num-tokens --examples --seed --out"),
        (["convert"], "--revision --dtype --load-in-4bit --fold-phi --render-config --overwrite --dry-run --verify"),
        (["convert"], "--push-to-hub --private"),
    ],
)
def test_every_option_says_what_it_is(command: list[str], options: str) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for option in options.split():
        (line,) = (line for line in lines if re.match(rf"│[ *]+{option} ", line))
        words = re.sub(r"<[^>]*>|\[[^]]*\]|--?[\w-]+|[│*]", "", line).split()
        assert len(words) >= 2, line


# Errors


@pytest.mark.parametrize("command", [("ask", "-q", "What?"), ("plan",), ("render", "--out", "unused")])
def test_a_file_that_cannot_be_read_is_refused_before_a_model_is_loaded(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HybridCtxProcessor, "from_pretrained", lambda *_, **__: pytest.fail("a processor was loaded"))
    (tmp_path / "empty.txt").touch()
    assert refused(*command, tmp_path / "none.txt") == f"there is no file {tmp_path}/none.txt"
    assert refused(*command, tmp_path / "empty.txt") == f"empty document: {tmp_path}/empty.txt has no bytes"
    (tmp_path / "folder").mkdir()  # a folder is a document, of the files in it
    assert str(tmp_path / "folder") in refused(*command, tmp_path / "folder")


def test_what_a_request_gets_wrong_is_told_in_one_line(checkpoint: Path, document: str) -> None:
    assert "unknown text policy '[best]'" in refused_ask(checkpoint, document, "-q", "?", "--text-policy", "[best]")
    told = refused_ask(checkpoint, document, "-q", "?", "--budget", 3)
    assert told.startswith("--budget 3 is too small: ") and "the smallest that works is" in told
    assert "drop one" in refused_ask(checkpoint, document, "-q", "?", "--visual-share", 0, "--min-scale", 0.5)
    told = refused("plan", document, "--latent-share", 0.5)
    assert told.startswith("--latent-share 0.5: this checkpoint has no latent encoder")
    told = refused("ask", document, "-q", "?", "--min-scale", 2)
    assert told.startswith("--min-scale 2 leaves out 1") and "max_scale" not in told
    assert "drop one" in refused("plan", document, "--visual-share", 0, "--min-scale", 0.5)
    assert "drop one" in refused_ask(checkpoint, document, "-q", "?", "--text-policy", "none", "--max-text-tokens", 9)
    assert "no such folder" in refused("ask", document, "-q", "?", "--model", "./nowhere")
    assert "no such folder" in refused("plan", document, "--model", "/nowhere")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(document: str, tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("{}")
    ask = ("ask", "nowhere.txt", "-q", "?")
    asked_for_folder = f"{file} is a file, and a folder is needed: name another one"
    asked_for_file = f"{folder} is a folder, and a file is needed: name one in it"
    assert refused("render", "nowhere.txt", "--out", file) == f"--out {asked_for_folder}"
    assert refused(*ask, "--evidence-dir", file) == f"--evidence-dir {asked_for_folder}"
    assert refused(*ask, "--why", folder) == f"--why {asked_for_file}"
    assert refused(*ask, "--why", file / "a.html") == f"--why {file}/a.html: {file} is a file, and no folder: " + (
        "name another place"
    )
    assert refused("batch", jobs, "--out", folder) == f"--out {asked_for_file}"
    assert refused("legibility", "--out", folder) == f"--out {asked_for_file}"
    assert refused("heads", document, "--out", folder) == f"--out {asked_for_file}"
    assert refused("evaluate", document, "--out", file) == f"--out {asked_for_folder}"
    (reading := folder / "a.safetensors").mkdir()
    assert refused("read", "nowhere.txt", reading).startswith(f"OUT {reading} is a folder")
    assert not (tmp_path / "new").exists()


def test_what_asks_nothing_and_unknown_policies_are_told_before_anything_is_read(tmp_path: Path) -> None:
    for asked in (("ask", "nowhere.txt"), ("ask", "nowhere.txt", "-q", "Which?"), ("plan", "nowhere.txt")):
        assert refused(*asked, "-q", " ").startswith("--question ' ' is empty: say what is to be found")
    (jobs := tmp_path / "jobs.jsonl").write_text("{}")
    for command in (
        ("ask", "nowhere.txt", "-q", "?"),
        ("read", "nowhere.txt", tmp_path / "a.safetensors"),
        ("chat", "nowhere.txt"),
        ("batch", jobs, "--out", tmp_path / "out.jsonl"),
    ):
        assert refused(*command, "--text-policy", "best").startswith("unknown text policy 'best'; known policies: ")


def test_settings_that_are_none_are_named(document: str, tmp_path: Path) -> None:
    (page := tmp_path / "a.html").write_text("<p>72 dpi</p>")
    render = ("render", document, "--out", tmp_path / "pages", "--config")
    assert refused(*render, page).startswith(f"'{page}' is no JSON (")
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    assert "a.bin' is no JSON (" in refused(*render, tmp_path / "a.bin")
    assert refused(*render, tmp_path / "none.json") == f"{tmp_path}/none.json: No such file or directory".replace(
        "No", "no"
    )
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("password=, or without it", "--password, or without it"),
        ("(ocr=) would find it", "(--ocr) would find it"),
        ("or replace it (overwrite=)", "or replace it (--overwrite)"),
        ("dtype='nix' is not one of float32", "--dtype 'nix' is not one of float32"),
        ("revision='main' is for the Hub", "--revision 'main' is for the Hub"),
        ("scale=0.5 is odd; min_scale=2 too", "--scale 0.5 is odd; --min-scale 2 too"),
        ("layout='x': no", "--layout 'x': no"),
        ("zoom=2 draws passages larger", "--look-closer larger draws passages larger"),
        ('give chat_template_kwargs={"enable_thinking": False}', "give --no-think"),
    ],
)
def test_parameters_are_told_as_options(message: str, told: str) -> None:
    assert in_options(message) == told


def test_a_locked_pdf_names_the_option_that_opens_it(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["Text."], encrypted=True))
    assert "give its password (--password)" in refused("plan", tmp_path / "a.pdf")
    assert "than the one given (--password)" in refused("plan", tmp_path / "a.pdf", "--password", "wrong")


def refused_ask(checkpoint: Path, document: str, *arguments: Any) -> str:
    return refused("ask", document, "--model", checkpoint, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "a.txt"),
        ("ask", "a.txt", "-q", "?", "--visual-share", 2),
        ("ask", "a.txt", "-q", "?", "--max-new-tokens", 0),
        ("plan", "a.txt", "--budget", 0),
        ("render", "a.txt"),
        ("nonsense",),
    ],
)
def test_options_out_of_bounds_are_refused(arguments: tuple[Any, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("plan", "a.txt", "--budget", 0), "--budget 0 should be at least 1"),
        (("plan", "a.txt", "--budget", -5), "--budget -5 should be at least 1"),
        (("read", "a.txt", "a.safetensors", "--budget", "inf"), "--budget inf should be a whole number"),
        (("ask", "a.txt", "-q", "?", "--visual-share", "nan"), "--visual-share nan should be at most 1"),
        (("chat", "a.txt", "--latent-share", "inf"), "--latent-share inf should be at most 1"),
        (("plan", "a.txt", "--min-scale", "nan"), "--min-scale nan should be at most 16"),
        (("plan", "a.txt", "--max-text-tokens", -1), "--max-text-tokens -1 should be at least 0"),
        (("render", "a.txt", "--out", "unused", "--scale", "inf"), "--scale inf should be at most 8"),
        (("web", "--max-seconds", "inf"), "--max-seconds inf should be at most 86400"),
        (("web", "--max-seconds", "nan"), "--max-seconds nan should be at most 86400"),
        (
            ("batch", __file__, "--out", "unused", "--workers", 3),
            "--workers and --worker-gpus are of --ray: give it, too",
        ),
        (("serve", "--port", 70000), "--port 70000 should be at most 65535"),
        (("serve", "--engine", "x"), "--engine 'x' is not one of 'transformers', 'vllm'"),
        (("heads", "a.txt", "--num-tokens", -5), "--num-tokens -5 should be at least 1"),
        (("evaluate", "needles", "--examples", 0), "--examples 0 should be at least 1"),
        (("evaluate", "needles", "--lengths", "512,0"), "--lengths 0 should be a number above 0"),
        (("legibility", "--font-size", "9,-1"), "--font-size -1.0 should be a number above 0"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_option(arguments: tuple[Any, ...], told: str) -> None:
    assert refused(*arguments) == told


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ConnectionError("no route"), "cannot be asked (no route)"),
        (RepositoryNotFoundError("404", response=_NOT_FOUND), "has none of that name; a private one needs a login"),
        (OfflineModeIsEnabled("offline"), "may not be asked (HF_HUB_OFFLINE)"),
    ],
)
def test_a_model_that_cannot_be_had_is_told_after_one_request(
    answer: Exception, told: str, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(self: HfApi, name: str, **_: Any) -> None:
        asked.append(name)
        raise answer

    monkeypatch.setattr(HfApi, "model_info", refuse)
    commands: list[tuple[Any, ...]] = [
        ("ask", document, "-q", "?", "--model", "nowhere/nix"),
        ("plan", document, "--model", "nowhere/nix"),
        ("evaluate", document, "--model", "nowhere/nix"),
    ]
    for command in commands:
        assert refused(*command).startswith(f"--model nowhere/nix: there is no such folder here, and the Hub {told}")
    assert refused("convert", tmp_path, tmp_path / "out", "--private").startswith("--private is of --push-to-hub")
    assert refused("convert", "nowhere/nix", tmp_path / "out").startswith(
        "SOURCE nowhere/nix: there is no such folder"
    )
    assert asked == ["nowhere/nix"] * 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("render", "a.txt"), "missing option '--out' (`"),
        (("ask", "-q", "?"), "missing argument 'DOCUMENT' (`"),
        (("plan", "a.txt", "--budgte", 5), "no such option: --budgte (Possible options: --budget) (`"),
        (("pln",), "no such command 'pln'. Did you mean 'plan'? (`"),
    ],
)
def test_what_is_no_command_line_says_where_there_is_help(arguments: tuple[Any, ...], told: str) -> None:
    assert refused(*arguments).startswith(told) and refused(*arguments).endswith(" --help` says what there is)")


def test_options_that_no_document_heeds_are_refused(tmp_path: Path) -> None:
    (text := tmp_path / "a.txt").write_text("Text.")
    (pdf := tmp_path / "a.pdf").write_bytes(pdf_file(["Text."]))
    (table := tmp_path / "a.csv").write_text("a,b")
    assert refused("plan", text, "--password", "secret") == f"--password is for PDFs, and {text} is none: leave it out"
    assert refused("ask", table, "-q", "?", "--layout", "source").startswith("--layout is for PDFs, and ")
    assert refused("render", text, "--out", tmp_path / "o", "--ocr", "eng").startswith(
        "--ocr is for PDFs and pictures"
    )
    assert refused("plan", pdf, "--encoding", "cp1252").startswith("--encoding is for files of plain text, and ")
    assert refused("plan", text, table, "--password", "x").endswith("none of these 2 is one: leave it out")
    assert refused("web", text, "--password", "x").startswith("--password is for PDFs")
    assert refused("web", "--password", "x").startswith("--password is of documents that are named here")
    for heeded in ((text, "--layout", "typeset"), (text, pdf, "--password", "x"), (tmp_path, "--encoding", "cp1252")):
        assert run("plan", *heeded).exit_code == 0, heeded


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(model: Any) -> None:
        raise ModuleNotFoundError("No module named 'wonderwords'", name="wonderwords")

    monkeypatch.setattr(evaluation, "load_model", missing)
    assert refused("evaluate", document) == (
        "this needs the package wonderwords: pip install 'transformers-hybridctx[evaluate]'"
    )


@pytest.mark.parametrize("command", ["web", "serve"])
def test_a_package_that_two_commands_need_is_named_with_the_extra_of_the_one_that_was_called(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert refused(command) == f"this needs the package uvicorn: pip install 'transformers-hybridctx[{command}]'"


@pytest.mark.parametrize(
    ("options", "at_a_time"), [((), 4), (("--engine", "vllm"), 64), (("--engine", "vllm", "--concurrency", "9"), 9)]
)
def test_vllm_is_given_more_requests_at_a_time(
    options: tuple[str, ...], at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers_hybridctx.cli import serve

    def load(engine: object, model: object, font: object, settings: Any, given: object) -> None:
        assert settings.concurrency == at_a_time
        raise ValueError("seen")

    monkeypatch.setattr(serve, "_loaded", load)
    assert refused("serve", *options, "--port", 0) == "seen"


def test_packages_are_named_with_the_extras_that_list_them() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    of_another = {"pyarrow"}  # datasets needs it
    for package, names in EXTRAS_OF.items():
        for name in names:
            listed = {re.split(r"[\[><]", one)[0].replace("-", "_") for one in extras[name]}
            assert package in listed | of_another, (package, name)


@pytest.mark.parametrize(
    ("package", "command", "says"),
    [
        ("ray", ("batch", "jobs.jsonl", "--out", "out.jsonl", "--ray"), "pip install 'transformers-hybridctx[ray]'"),
        ("selectolax", ("ask", "a.html", "-q", "Why?"), "pip install selectolax"),
        ("charset_normalizer", ("ask", "latin.txt", "-q", "Why?"), "pip install charset-normalizer"),
        ("datasets", ("train", "run.yaml"), "pip install 'transformers-hybridctx[train]'"),
        ("python_multipart", ("serve",), "pip install 'transformers-hybridctx[serve]'"),
    ],
)
def test_what_a_command_lacks_is_told_in_one_line(
    package: str, command: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "jobs.jsonl": b'{"custom_id": "a", "document": "d.txt", "question": "Why?"}',
        "a.html": b"<html><p>Hello</p></html>",
        "latin.txt": "Déjà vu".encode("latin-1"),
        "run.yaml": b"{output_dir: run, data: [{reader: texts, path: a.html}], trainer: {max_steps: 1, use_cpu: true}}",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert says in refused(*command)


# Consoles


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8"])
def test_any_console_gets_an_answer(
    encoding: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("A quotation: “naïve” – 密码是 7654321 … السلام", encoding="utf-8")
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    options = ("--model", checkpoint, "--max-new-tokens", 2, "--passages", "--text-policy", "full")
    for arguments in (("ask", tmp_path / "a.txt", "-q", "密码?", *options), ("ask", "--help")):
        with pytest.raises(SystemExit, match="0"):
            main([str(argument) for argument in arguments])
    stdout.flush()
    shown = stdout.buffer.getvalue().decode(encoding)
    assert "7654321" in shown
    assert ("密码?" if encoding == "utf-8" else r"\u5bc6\u7801?") in shown
    assert ("“na" if encoding in ("cp1252", "utf-8") else '"na') in shown
