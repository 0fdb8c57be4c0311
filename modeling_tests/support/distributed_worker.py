# SPDX-License-Identifier: Apache-2.0
"""What each process of `test_multiple_devices.py` does: run by torchrun, and imported for what one process does alone.

The folder that it is given holds a checkpoint and `data.pt`. The first process writes what each check finds beside
them, as `<check>.pt`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from transformers_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.training.losses import chunked_loss
from transformers_hybridctx.training.packing import DataCollatorWithPacking

Found = dict[str, Any]
Examples = list[dict[str, Tensor]]


def load(folder: Path, **options: Any) -> HybridCtxForCausalLM:
    return HybridCtxForCausalLM.from_pretrained(folder / "checkpoint", **options)


def answer(model: HybridCtxForCausalLM, inputs: dict[str, Tensor]) -> Found:
    """Logits of a padded batch with pages, and what is generated after it."""
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    return {"logits": logits, "generated": model.generate(**inputs, max_new_tokens=5, do_sample=False)}


def train(model: HybridCtxForCausalLM, examples: Examples, folder: Path, batch_size: int = 2, **options: Any) -> Found:
    """Two steps of SGD, each on all examples; two processes take two examples each. Ends with `save_model`."""
    arguments = TrainingArguments(
        folder,
        max_steps=2,
        per_device_train_batch_size=batch_size,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0,
        logging_steps=1,
        save_strategy="no",
        save_only_model=True,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=examples, data_collator=DataCollatorWithPacking(model.config))
    trainer.train()
    trainer.save_model()
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": {
            name: parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()
            for name, parameter in model.named_parameters()
        },
        "wrapped": type(trainer.model_wrapped).__name__,
        "processes": trainer.accelerator.num_processes,
        "batch_size": trainer.args.train_batch_size,
    }


def shares(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of what this process has of each parameter that is spread over processes."""
    parameters = model.named_parameters()
    return {name: tuple(p.to_local().shape) for name, p in parameters if isinstance(p, DTensor)}


def tensor_parallel(folder: Path, data: Found) -> Found:
    model = load(folder, distributed_config=DistributedConfig(tp_plan="auto"))
    return answer(model, data["inputs"]) | {"shares": shares(model)}


def ddp(folder: Path, data: Found) -> Found:
    return train(load(folder), data["examples"], folder / "ddp")


def ddp_with_gradient_checkpointing(folder: Path, data: Found) -> Found:
    return train(load(folder), data["few_pages"], folder / "ddp_checkpointing", activation_checkpointing=True)


def fsdp(folder: Path, data: Found) -> Found:
    model = load(folder, distributed_config=DistributedConfig(fsdp_size=2))
    return {"shares": shares(model)} | train(model, data["examples"], folder / "fsdp")


def fsdp_with_few_pages(folder: Path, data: Found) -> Found:
    model = load(folder, distributed_config=DistributedConfig(fsdp_size=2))
    return {"shares": shares(model)} | train(model, data["few_pages"], folder / "fsdp_few_pages")


def loss_in_chunks(folder: Path, data: Found) -> Found:
    """Of a model whose parts, the head among them, are whole only while they are called, as `trainer.fsdp` has them."""
    model = load(folder).train()
    batch = DataCollatorWithPacking(model.config)(data["examples"])
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    labels = batch.pop("labels")
    loss = chunked_loss(model, model, batch, labels, torch.ones_like(labels).float(), 3)
    loss.backward()
    gradients = {name: one.grad.full_tensor() for name, one in model.named_parameters() if one.grad is not None}
    return {"loss": loss.detach(), "gradients": gradients}


CHECKS: tuple[Callable[[Path, Found], Found], ...] = (
    tensor_parallel,
    ddp,
    ddp_with_gradient_checkpointing,
    fsdp,
    fsdp_with_few_pages,
    loss_in_chunks,
)


def main(folder: Path) -> None:
    # where one process waits in vain for the other, an error soon, and not after gloo's half hour
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    data = torch.load(folder / "data.pt")
    for check in CHECKS:
        found = check(folder, data)
        AcceleratorState._reset_state()  # each check's Trainer is the first that it knows
        if torch.distributed.get_rank() == 0:
            torch.save(found, folder / f"{check.__name__}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
