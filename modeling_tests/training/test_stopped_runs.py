# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, that find the disk full, and that several processes share.

What was saved is sound, and what comes next is what would have come.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import refused
from training_runs import config, weights_of

from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.run import run_training

SECONDS = 600
"""How long a command may take on a busy machine before it is ended."""

DIES = """
import os, resource, signal, sys
from transformers_hybridctx.training import run, tables, trainer
how, config = sys.argv[1:]

def dies(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if how == "saving":
    original = trainer.HybridCtxTrainer._save_optimizer_and_scheduler
    def saved(self, folder):
        original(self, folder)
        if self.state.global_step == 4:
            dies()
    trainer.HybridCtxTrainer._save_optimizer_and_scheduler = saved
if how == "reading":
    tables.json.dumps = dies  # the records are there, their counts are not
if how == "full":
    original = trainer.HybridCtxTrainer._save_checkpoint
    def full(self, *args):
        if self.state.global_step == 4:  # as a full disk: bytes cannot be written, names can
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        return original(self, *args)
    trainer.HybridCtxTrainer._save_checkpoint = full
sys.argv = ["hybridctx", "train", config]
from transformers_hybridctx.cli.app import main
main()
"""


def command(*arguments: Any, processes: int = 1) -> subprocess.CompletedProcess[str]:
    started = [sys.executable]
    if processes > 1:
        started += ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        started += ["--nproc-per-node", str(processes)]
    return subprocess.run([*started, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights of the run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run_training(TrainingConfig.read(config(folder, checkpoint, loss_weights="token")))
    return weights_of(folder / "out")


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.equal(found[name], one), name


@pytest.mark.parametrize("how", ["saving", "reading"])
def test_a_run_that_is_killed_goes_on(tmp_path: Path, checkpoint: Path, whole: Any, how: str) -> None:
    path = config(tmp_path, checkpoint, loss_weights="token")
    killed = command("-c", DIES, how, path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    out = tmp_path / "out"
    names = {one.name for one in out.iterdir()}
    assert "checkpoint-4" not in names
    if how == "saving":
        assert {"checkpoint-2", "unfinished"} < names
    report = run_training(TrainingConfig.read(path))
    assert report.steps == 6 and report.data[0]["records"] == 12 and report.loss_before
    assert_same(weights_of(out), whole)
    assert "unfinished" not in {one.name for one in out.iterdir()}


def test_a_full_disk_is_told_and_leaves_what_was_saved(tmp_path: Path, checkpoint: Path, whole: Any) -> None:
    path = config(tmp_path, checkpoint, loss_weights="token")
    stopped = command("-c", DIES, "full", path)
    assert stopped.returncode == 2, stopped.stderr
    told = stopped.stderr.strip().splitlines()[-1]
    assert (
        "checkpoint of step 4 could not be written" in told and "checkpoint-2 is sound" in told and "Make room" in told
    )
    out = tmp_path / "out"
    assert not (out / "unfinished").exists() and not (out / "checkpoint-4").exists()
    assert run_training(TrainingConfig.read(path)).steps == 6
    assert_same(weights_of(out), whole)


@pytest.mark.parametrize("spread", [{}, {"distributed": {"fsdp_size": 2}}], ids=["ddp", "fsdp2"])
def test_two_processes_train_what_one_trains(
    tmp_path: Path, checkpoint: Path, whole: Any, spread: dict[str, Any]
) -> None:
    """The same examples a step, in two processes of one example each: answers are of different lengths, so that a mean of
    means would be another one. FSDP2 stops after all steps only, for it cannot go on.
    """
    trainer = {"per_device_train_batch_size": 1, "eval_strategy": "steps", "eval_steps": 3}
    trainer |= {"save_only_model": True} if spread else {}
    path = config(tmp_path, checkpoint, loss_weights="token", trainer=trainer, **spread)
    ran = command("-m", "transformers_hybridctx", "train", path, processes=2)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout.count("steps ") == 1  # one process tells
    found = weights_of(tmp_path / "out")
    assert found.keys() == whole.keys()
    for name, one in whole.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=2e-5, msg=name)
    log = json.loads((tmp_path / "out" / "report.json").read_text())["log"]
    (evaluated,) = [entry for entry in log if "eval_loss" in entry and entry["step"] == 3]
    assert evaluated["eval_loss"] == pytest.approx(
        sum(evaluated[f"eval_loss_{channel}"] for channel in ("both", "pages", "tokens")) / 3
    )
    assert evaluated["eval_perplexity"] > 1
    if spread:
        assert "cannot go on" in refused("train", path)


def test_a_run_of_two_processes_goes_on_in_one(tmp_path: Path, checkpoint: Path, whole: Any) -> None:
    path = config(tmp_path, checkpoint, loss_weights="token", trainer={"per_device_train_batch_size": 1})
    killed = command("-c", DIES, "saving", path, processes=2)
    assert killed.returncode != 0
    assert not (tmp_path / "out" / "checkpoint-4").exists()
    settings = yaml.safe_load(path.read_text())
    settings["trainer"]["per_device_train_batch_size"] = 2
    path.write_text(yaml.safe_dump(settings))
    assert run_training(TrainingConfig.read(path)).steps == 6
    for name, one in weights_of(tmp_path / "out").items():
        torch.testing.assert_close(one, whole[name], rtol=1e-4, atol=2e-5, msg=name)
