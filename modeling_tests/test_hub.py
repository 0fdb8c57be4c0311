# SPDX-License-Identifier: Apache-2.0
"""Pushed to a Hub over real sockets with the real client, and loaded from there in fresh processes and empty caches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from tiny_checkpoints import FOUR_BIT_TEXT, save_source
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import RenderConfig
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.remote_code import travelling_code

ASK = """
from transformers import logging
logging.disable_progress_bar()
DOCUMENT = "The special magic number for green-lemur is: 4821930. " * 9
QUESTION = "What is the special magic number for green-lemur?"

def ask(model, processor):
    import torch
    features = processor(document=DOCUMENT, question=QUESTION, text_policy="anchors", return_tensors="pt")
    with torch.no_grad():
        return {"logits": model(**features).logits.float(), "pixel_values": features["pixel_values"]}
"""

PUSH = """
import sys, torch, transformers_hybridctx
from huggingface_hub import HfApi
from transformers import pipeline
pipe = pipeline("long-doc-qa", model=sys.argv[1])
try:
    pipe.model.push_to_hub("org/hybridctx", max_shard_size="200KB")
except RuntimeError:  # the test's server refuses the first file
    print("interrupted", [file.rfilename for file in HfApi().model_info("org/hybridctx").siblings])
pipe.model.push_to_hub("org/hybridctx", max_shard_size="200KB")
pipe.processor.push_to_hub("org/hybridctx")
HfApi().create_branch("org/hybridctx", branch="v1")
pipe.push_to_hub("org/secret", private=True)
torch.save(ask(pipe.model, pipe.processor), sys.argv[2])
"""

WITH_PACKAGE = """
import sys, torch, transformers_hybridctx
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
expected = torch.load(sys.argv[1])

def same(model, processor):
    found = ask(model, processor)
    assert torch.equal(found["pixel_values"], expected["pixel_values"]), "other pages"
    assert torch.equal(found["logits"], expected["logits"]), "other logits"

model = AutoModelForImageTextToText.from_pretrained("org/hybridctx", dtype=torch.float32)
processor = AutoProcessor.from_pretrained("org/hybridctx")
assert type(model) is transformers_hybridctx.HybridCtxForCausalLM
assert type(processor) is transformers_hybridctx.HybridCtxProcessor
same(model, processor)
assert type(AutoModel.from_pretrained("org/hybridctx")).__name__ == "HybridCtxModel"
pipe = pipeline("long-doc-qa", model="org/hybridctx", dtype=torch.float32)
same(pipe.model, pipe.processor)

def refused(name, **kwargs):
    try:
        AutoModelForImageTextToText.from_pretrained(name, **kwargs)
    except OSError as error:
        return str(error)
    raise AssertionError(f"{name} was loaded with {kwargs}")

assert "not a valid model identifier" in refused("org/secret", token=False)
assert refused("org/secret", token="hf_wrong")
assert "v9" in refused("org/hybridctx", revision="v9")
secret = pipeline("long-doc-qa", model="org/secret", dtype=torch.float32)
same(secret.model, secret.processor)

pinned = HfApi().model_info("org/hybridctx").sha
with torch.no_grad():
    model.lm_head.weight.mul_(-1)
model.push_to_hub("org/hybridctx", commit_message="Turn everything round")
for revision in (pinned, "v1"):
    same(AutoModelForImageTextToText.from_pretrained("org/hybridctx", revision=revision, dtype=torch.float32), processor)
newest = AutoModelForImageTextToText.from_pretrained("org/hybridctx", dtype=torch.float32)
assert torch.equal(ask(newest, processor)["logits"], -expected["logits"])
print("pinned", pinned)
"""

OFFLINE = """
import sys, torch, transformers_hybridctx
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained("org/hybridctx", revision=sys.argv[2], dtype=torch.float32)
processor = AutoProcessor.from_pretrained("org/hybridctx", revision=sys.argv[2])
found, expected = ask(model, processor), torch.load(sys.argv[1])
assert all(torch.equal(found[name], expected[name]) for name in expected)
"""

WITHOUT_PACKAGE = """
import sys, torch
sys.modules["transformers_hybridctx"] = None  # not to be had
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, pipeline
try:
    AutoModel.from_pretrained("org/hybridctx", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise AssertionError("code was run without trust")
assert not any(name.startswith("transformers_modules.org") for name in sys.modules)
remote = {"trust_remote_code": True, "revision": "v1"}
expected = torch.load(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained("org/hybridctx", dtype=torch.float32, **remote)
processor = AutoProcessor.from_pretrained("org/hybridctx", **remote)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
found = ask(model, processor)
assert all(torch.equal(found[name], expected[name]) for name in expected)
assert type(AutoModel.from_pretrained("org/hybridctx", **remote)).__name__ == "HybridCtxModel"
pipe = pipeline("long-doc-qa", model="org/hybridctx", dtype=torch.float32, **remote)
answer = pipe(question=QUESTION, document=DOCUMENT, text_policy="anchors", max_new_tokens=3, return_pages=True)
assert answer["usage"]["visual_tokens"] > 0 and set(answer) >= {"answer", "score", "evidence", "pages"}
pipe.push_to_hub("org/again")
"""

PUSH_AGAIN = """
import sys
sys.modules["transformers_hybridctx"] = None  # not to be had
from huggingface_hub import snapshot_download
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
v1, remote = {"revision": "v1"}, {"trust_remote_code": True}
AutoModelForImageTextToText.from_pretrained("org/hybridctx", **v1, **remote).push_to_hub("org/parts")
AutoProcessor.from_pretrained("org/hybridctx", **v1, **remote).push_to_hub("org/parts")
folder = snapshot_download("org/hybridctx", **v1, local_dir=sys.argv[1])
pipeline("long-doc-qa", model=folder, **remote).push_to_hub("org/whole")
"""
READ_AGAIN = """
import sys, torch
sys.modules["transformers_hybridctx"] = None  # not to be had
from transformers import pipeline
expected = torch.load(sys.argv[1])
for name in ("org/parts", "org/whole"):
    pipe = pipeline("long-doc-qa", model=name, dtype=torch.float32, trust_remote_code=True)
    found = ask(pipe.model, pipe.processor)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
"""

CONVERT = """
import sys
from typer.testing import CliRunner
from transformers_hybridctx.cli.app import app
push = ["--push-to-hub", "org/converted", "--private", "--dtype", "bfloat16"]
interrupted = CliRunner().invoke(app, ["convert", "org/glm", sys.argv[1], *push])  # the test's server refuses a file
assert interrupted.exit_code == 2 and "is complete, but was not uploaded" in interrupted.output, interrupted.output
done = CliRunner().invoke(app, ["convert", "org/glm", sys.argv[1], "--overwrite", *push])
assert done.exit_code == 0, done.output
from transformers import pipeline
assert pipeline("long-doc-qa", model="org/converted")(question=QUESTION, document=DOCUMENT, max_new_tokens=1)
"""
CONVERT_REFUSED = """
import os, sys
from typer.testing import CliRunner
from transformers_hybridctx.cli.app import app

def refused(*arguments):
    asked = CliRunner().invoke(app, ["convert", *arguments, sys.argv[1]])
    assert asked.exit_code == 2 and len(asked.output.splitlines()) == 1, asked.output
    assert asked.output.startswith("error: ") and not os.path.exists(sys.argv[1]), asked.output
    return asked.output

assert "org/nowhere" in refused("org/nowhere")
assert "no-such-branch" in refused("org/glm", "--revision", "no-such-branch")
assert "config.json" in refused("org/empty")
assert "org/secret-glm" in refused("org/secret-glm")  # with a wrong token
assert "nvalid" in refused("org/glm", "--push-to-hub", "org/mine")  # before anything is converted
pinned = CliRunner().invoke(app, ["convert", "org/glm", sys.argv[1], "--revision", "first"])
assert pinned.exit_code == 0, pinned.output
"""

FOUR_BIT_PUSH = """
import sys, torch, transformers_hybridctx
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers_hybridctx import four_bit_config
v1 = {"revision": "v1"}
config = AutoConfig.from_pretrained("org/hybridctx", **v1)
four_bits = four_bit_config(config, compute_dtype=torch.float32)
model = AutoModelForImageTextToText.from_pretrained("org/hybridctx", quantization_config=four_bits, **v1)
processor = AutoProcessor.from_pretrained("org/hybridctx", **v1)
torch.save(ask(model, processor), sys.argv[1])
model.push_to_hub("org/four-bit", max_shard_size="200KB")
processor.push_to_hub("org/four-bit")
"""

FOUR_BIT_LOAD = """
import sys, torch
remote = {}
if sys.argv[2] == "without":
    sys.modules["transformers_hybridctx"] = None  # not to be had
    remote = {"trust_remote_code": True}
else:
    import transformers_hybridctx
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
model = AutoModelForImageTextToText.from_pretrained("org/four-bit", **remote)
processor = AutoProcessor.from_pretrained("org/four-bit", **remote)
found, expected = ask(model, processor), torch.load(sys.argv[1])
assert model.is_loaded_in_4bit and all(torch.equal(found[name], expected[name]) for name in expected)
pipe = pipeline("long-doc-qa", model="org/four-bit", **remote)
assert pipe.model.is_loaded_in_4bit and pipe(question=QUESTION, document=DOCUMENT, max_new_tokens=2)["answer"] is not None
"""


class Users:
    """People with machines of their own: fresh processes with empty caches, one Hub."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub, self.folder = hub, folder

    def run(self, script: str, *arguments: Any, cache: str, token: str | None = "hf_right", **env: str) -> str:
        """Run a script in a fresh process. Returns what it prints; what it raises fails the test."""
        package = str(Path(__file__).parent.parent / "src")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": package,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **({"HF_TOKEN": token} if token else {}),
            **env,
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ASK + script, *map(str, arguments)],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def users(
    hub: HubServer,
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    render_config: dict[str, Any],
) -> Users:
    """One of them has pushed a model; `expected` holds what it gives."""
    folder = tmp_path_factory.mktemp("users")
    save_source(folder / "source", tokenizer, "glm_ocr", text_fields=FOUR_BIT_TEXT)
    convert_checkpoint(str(folder / "source"), folder / "checkpoint", render_config=RenderConfig(**render_config))
    found = Users(hub, folder)
    hub.refused_uploads = 1
    printed = found.run(PUSH, folder / "checkpoint", folder / "expected", cache="author")
    assert printed.strip() == "interrupted []"
    return found


def test_what_is_pushed_is_whole(users: Users, hub: HubServer) -> None:
    files = hub.files("org/hybridctx", "v1")
    assert travelling_code().keys() <= files.keys()
    assert {"config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json"} <= files.keys()
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    assert files["fonts/DejaVuSansMono.ttf"] == (users.folder / "checkpoint/fonts/DejaVuSansMono.ttf").read_bytes()
    assert files["modeling_hybridctx.py"].decode() == travelling_code()["modeling_hybridctx.py"]
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)
    assert hub.repos["org/secret"].private and "processor_config.json" in hub.files("org/secret")


def test_loading_with_the_package_needs_no_trust_and_offline_no_hub(users: Users, hub: HubServer) -> None:
    printed = users.run(WITH_PACKAGE, users.folder / "expected", cache="reader")
    assert not (users.folder / "reader" / "modules" / "transformers_modules" / "org").exists()
    pinned = printed.split()[-1]
    before = len(hub.requests)
    users.run(OFFLINE, users.folder / "expected", pinned, cache="reader", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before


def test_loading_without_the_package_runs_the_code_that_travels(users: Users, hub: HubServer) -> None:
    users.run(WITHOUT_PACKAGE, users.folder / "expected", cache="stranger")
    assert travelling_code().keys() <= hub.files("org/again").keys()
    assert "fonts/DejaVuSansMono.ttf" in hub.files("org/again")


def test_what_was_loaded_without_the_package_is_pushed_whole(users: Users, hub: HubServer) -> None:
    users.run(PUSH_AGAIN, users.folder / "local", cache="pusher")
    for name in ("org/parts", "org/whole"):
        files = hub.files(name)
        assert {name: files[name].decode() for name in travelling_code()} == travelling_code()
        assert b"org/hybridctx" not in files["config.json"] + files["processor_config.json"]  # names no other's code
    users.run(READ_AGAIN, users.folder / "expected", cache="reader of what was pushed again")


def test_a_checkpoint_on_the_hub_is_converted_and_pushed(users: Users, hub: HubServer) -> None:
    source = {path.name: path.read_bytes() for path in (users.folder / "source").iterdir()}
    source["README.md"] = b"---\nlicense: mit\n---\n# GLM\n"
    hub.add("org/glm", source | {"pytorch_model.bin": b"pickle"})
    hub.repos["org/glm"].branches["first"] = hub.repos["org/glm"].branches["main"]
    hub.add("org/secret-glm", source)
    hub.repos["org/secret-glm"].private = True
    hub.add("org/empty", {"README.md": b"# Nothing yet"})
    users.run(CONVERT_REFUSED, users.folder / "pinned", cache="refused", token="hf_wrong")
    hub.refused_uploads = 1
    users.run(CONVERT, users.folder / "converted", cache="converter")
    files = hub.files("org/converted")
    assert hub.repos["org/converted"].private
    assert files["config.json"] == (users.folder / "converted" / "config.json").read_bytes()
    card = files["README.md"].decode()
    assert "base_model: org/glm" in card and "license: mit" in card and hub.repos["org/glm"].branches["main"] in card
    assert not any("pytorch_model.bin" in request for request in hub.requests)


@pytest.mark.parametrize("package", ["with", "without"])
def test_four_bits_are_pushed_and_loaded(users: Users, hub: HubServer, package: str) -> None:
    expected = users.folder / "expected in 4 bits"
    if not expected.exists():
        users.run(FOUR_BIT_PUSH, expected, cache="author")
    users.run(FOUR_BIT_LOAD, expected, package, cache=f"four bits {package}")
    sizes = [
        sum(len(data) for path, data in hub.files(repo, branch).items() if path.endswith(".safetensors"))
        for repo, branch in (("org/four-bit", "main"), ("org/hybridctx", "v1"))
    ]
    assert sizes[0] < 0.8 * sizes[1]


def test_numbers_of_expected_are_not_trivial(users: Users) -> None:
    expected = torch.load(users.folder / "expected")
    assert expected["logits"].std() > 0.1 and len(expected["pixel_values"].unique()) > 10
