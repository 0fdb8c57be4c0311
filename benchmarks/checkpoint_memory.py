# SPDX-License-Identifier: Apache-2.0
"""Memory of weights at published shapes, in bfloat16 and in 4 bits; and of converting a checkpoint.

    python benchmarks/checkpoint_memory.py [--convert-gb 1.5] [--kernels] [--workdir FOLDER]

What is told, and how it is found:
- weights: arithmetic over the shapes of every parameter, which are built on the meta device from published configs, no
  weights needed; 4 bits as `four_bit_config` chooses them (nf4, scales quantised once more, the vision tower,
  embeddings and head in bfloat16). Activations are not in it. `modeling_tests/test_checkpoint_memory.py` compares the
  arithmetic with the bytes of a model that is loaded;
- cache: keys and values of 1,000 tokens of context, in bfloat16;
- on a GPU, if there is one: the same model with random weights, and what the allocator says it holds;
- `--convert-gb`: a random checkpoint of about that size, saved by transformers' own class in several shards, converted
  in a process of its own, once as it is and once in 4 bits. Peak memory is the kernel's (VmHWM), above what the process
  takes before it reads weights;
- `--kernels`: seconds of one 4-bit layer on a CPU, for a new token and for a prompt of 512, with bitsandbytes' kernel
  for AVX512-BF16 and without it, as this package leaves it unused.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Glm4vConfig, GlmOcrConfig, GlmOcrForConditionalGeneration, PreTrainedConfig

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM
from transformers_hybridctx.conversion.configs import hybridctx_config
from transformers_hybridctx.conversion.four_bit import four_bit_bytes, four_bit_keys
from transformers_hybridctx.conversion.key_layouts import parameter_shapes
from transformers_hybridctx.conversion.tensor_files import Tensor
from transformers_hybridctx.modules.quantization import four_bit_config
from transformers_hybridctx.pipeline_long_doc_qa import BUNDLED_CHECKPOINT

RESULTS = Path(__file__).parent / "results" / "checkpoint_memory.json"
SETTINGS_BYTES = 192  # of each 4-bit weight in a file; in memory they are Python's
GLM_OCR = {  # as published; transformers' defaults differ
    "text_config": {
        "hidden_size": 1536,
        "intermediate_size": 4608,
        "head_dim": 128,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 59392,
        "num_nextn_predict_layers": 1,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [16, 24, 24],
            "partial_rotary_factor": 1.0,
            "rope_theta": 10000,
        },
    },
    "vision_config": {"hidden_size": 1024, "depth": 24, "out_hidden_size": 1536, "intermediate_size": 4096},
}


def published_configs() -> dict[str, PreTrainedConfig]:
    """By the name of the weights: the config, as transformers' own class reads it."""
    return {"GLM-4.1V-9B, Glyph": Glm4vConfig(), "GLM-OCR": GlmOcrConfig(**GLM_OCR)}


def memory_of(config: HybridCtxConfig) -> dict[str, int]:
    """Bytes of a model's weights in bfloat16 and in 4 bits, and of its cache, by arithmetic."""
    four_bit = four_bit_keys(config, four_bit_config(config, compute_dtype=torch.bfloat16))
    tensors = [Tensor(key, Path(), "BF16", shape, 0) for key, shape in parameter_shapes(config).items()]
    if config.tie_word_embeddings:
        tensors = [tensor for tensor in tensors if tensor.name != "lm_head.weight"]
    rounded = [tensor for tensor in tensors if tensor.name in four_bit]
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return {
        "parameters": sum(tensor.num_elements for tensor in tensors),
        "parameters_in_4_bits": sum(tensor.num_elements for tensor in rounded),
        "bytes_bfloat16": sum(tensor.num_bytes for tensor in tensors),
        "bytes_4_bit": sum(tensor.num_bytes for tensor in tensors if tensor.name not in four_bit)
        + sum(four_bit_bytes(tensor) - SETTINGS_BYTES for tensor in rounded),
        "bytes_cache_1000_tokens": 1000 * 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * 2,
    }


def bytes_held(model: torch.nn.Module) -> int:
    """Bytes of a loaded model's weights, with the scales of those in 4 bits and the tables of their codes."""
    total = 0
    for parameter in model.parameters():
        total += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += sum(part.nbytes for part in (state.absmax, state.code, state.state2.absmax, state.state2.code))
    return total


def on_gpu(config: HybridCtxConfig) -> dict[str, int]:
    """Bytes that the allocator of the first GPU holds for a model with random weights."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    torch.cuda.empty_cache()
    start = torch.cuda.memory_allocated()
    quantization = four_bit_config(config, device="cuda", compute_dtype=torch.bfloat16)
    with torch.device("cuda"):
        model = HybridCtxForCausalLM._from_config(config, dtype=torch.bfloat16)
    found = {"bytes_bfloat16": torch.cuda.memory_allocated() - start}
    for key in four_bit_keys(config, quantization):
        name = key.removesuffix(".weight")
        linear = model.get_submodule(name)
        weight = Params4bit(linear.weight.data, quant_type="nf4", compress_statistics=True).to("cuda")
        with torch.device("meta"):
            layer = Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16)
        layer.weight = weight
        model.set_submodule(name, layer)
        del linear, weight
    torch.cuda.empty_cache()
    found["bytes_4_bit"] = torch.cuda.memory_allocated() - start
    tokens = torch.ones(1, 1000, dtype=torch.long, device="cuda")
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        cache = model.model(input_ids=tokens, use_cache=True).past_key_values
    found["bytes_cache_1000_tokens"] = torch.cuda.memory_allocated() - before
    del cache, model
    return found


def save_random_checkpoint(folder: Path, gigabytes: float) -> None:
    """A GLM-OCR of as many layers as it takes, in bfloat16, in shards of an eighth of it."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINT)
    ids = tokenizer.convert_tokens_to_ids(["<|image|>", "<|begin_of_image|>", "<|end_of_image|>"])
    named = dict(zip(("image_token_id", "image_start_token_id", "image_end_token_id"), ids))
    sizes = []
    for layers in (1, 2):
        shapes = parameter_shapes(hybridctx_config(_with_layers(layers), {}))
        sizes.append(2 * sum(map(math.prod, shapes.values())))
    layers = max(1, round(1 + (gigabytes * 1e9 - sizes[0]) / (sizes[1] - sizes[0])))
    config = _with_layers(layers, **named)
    with torch.device("meta"):
        model = GlmOcrForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02, generator=generator)
    model.save_pretrained(folder, max_shard_size=f"{gigabytes / 8:.3f}GB")
    tokenizer.save_pretrained(folder)


def _with_layers(layers: int, **fields: Any) -> GlmOcrConfig:
    text = {**GLM_OCR["text_config"], "num_hidden_layers": layers, "num_nextn_predict_layers": 0}
    return GlmOcrConfig(text_config=text, vision_config=GLM_OCR["vision_config"], **fields)


_CONVERT = """
import json, sys, time
from pathlib import Path
from transformers_hybridctx.conversion.convert import convert_checkpoint

def status(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field + ":"))

source, target, four_bit = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "4"
if four_bit:
    import torch
    from bitsandbytes.functional import quantize_4bit
    quantize_4bit(torch.zeros(64), quant_type="nf4", compress_statistics=True)
convert_checkpoint(source, target, load_in_4bit=four_bit, dry_run=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of what comes now
before, started = status("VmRSS"), time.perf_counter()
report = convert_checkpoint(source, target, load_in_4bit=four_bit)
print(json.dumps({
    "bytes_written": report["num_bytes"],
    "shards": report["num_shards"],
    "seconds": round(time.perf_counter() - started, 1),
    "bytes_before": before,
    "bytes_peak_above": status("VmHWM") - before,
}))
"""


def convert(gigabytes: float, workdir: Path | None) -> dict[str, Any]:
    """Peak memory of converting a random checkpoint, as it is and in 4 bits, each in a process of its own."""
    from transformers_hybridctx.conversion.sources import open_checkpoint

    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        source = Path(folder) / "source"
        subprocess.run([sys.executable, __file__, "--save-random", str(gigabytes), str(source)], check=True)
        tensors = open_checkpoint(str(source)).tensors.values()
        found: dict[str, Any] = {
            "bytes_of_source": sum(tensor.num_bytes for tensor in tensors),
            "bytes_of_largest_tensor": max(tensor.num_bytes for tensor in tensors),
        }
        for name, bits in (("as it is", "16"), ("in 4 bits", "4")):
            arguments = [sys.executable, "-W", "ignore", "-c", _CONVERT, str(source), f"{folder}/{bits}", bits]
            done = subprocess.run(arguments, check=True, capture_output=True, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def kernels(sides: tuple[int, int] = (4096, 4096), tokens: tuple[int, ...] = (1, 512)) -> dict[str, Any]:
    """Seconds of one 4-bit layer on the CPU, the best of three, with bitsandbytes' AVX512-BF16 kernel and without."""
    from bitsandbytes.functional import has_avx512bf16
    from bitsandbytes.nn import Linear4bit, Params4bit

    if not has_avx512bf16():
        return {"note": "this CPU has no AVX512-BF16 instructions: there is one way only"}
    found: dict[str, Any] = {"in_features": sides[1], "out_features": sides[0], "compute_dtype": "bfloat16"}
    weight = torch.randn(sides) / 64
    for name, packed in (("bitsandbytes' kernel", True), ("expanded", False)):
        layer = Linear4bit(sides[1], sides[0], bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        layer.weight = Params4bit(weight.bfloat16(), quant_type="nf4", module=layer).to("cpu")
        layer.support_avx512bf16_for_cpu = packed
        for count in tokens:
            states, seconds = torch.randn(count, sides[1]).bfloat16(), []
            with torch.no_grad():
                for _ in range(4):
                    started = time.perf_counter()
                    layer.eval()(states)
                    seconds.append(time.perf_counter() - started)
            found[f"seconds_{count}_tokens, {name}"] = round(min(seconds[1:]), 5)
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| weights | parameters | bfloat16 | 4 bits | of it not in 4 bits | cache of 1,000 tokens |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        if "note" in row:
            lines.append(f"| {name} | {row['note']} | | | | |")
            continue
        kept = 2 * (row["parameters"] - row["parameters_in_4_bits"]) if "parameters" in row else None
        cells = (
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{row['bytes_bfloat16'] / 1e9:.2f} GB",
            f"{row['bytes_4_bit'] / 1e9:.2f} GB",
            "" if kept is None else f"{kept / 1e9:.2f} GB",
            f"{row['bytes_cache_1000_tokens'] / 1e6:.1f} MB",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convert-gb", type=float, help="also convert a random checkpoint of so many gigabytes")
    parser.add_argument("--kernels", action="store_true", help="also time a 4-bit layer on the CPU")
    parser.add_argument("--workdir", type=Path, help="where the random checkpoint is written, twice its size")
    parser.add_argument("--save-random", nargs=2, metavar=("GB", "FOLDER"), help="only write a random checkpoint")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.save_random:
        save_random_checkpoint(Path(arguments.save_random[1]), float(arguments.save_random[0]))
        return
    rows: dict[str, dict[str, Any]] = {}
    for name, published in published_configs().items():
        config = hybridctx_config(published, {})
        rows[name] = dict(memory_of(config))
        on_device = f"{name}, allocated on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
        rows[on_device or f"{name}, allocated on a GPU"] = (
            dict(on_gpu(config)) if on_device else {"note": "not measured: there is no GPU"}
        )
    print(table(rows))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["weights"] = rows
    results["versions"] = {name: version(name) for name in ("torch", "transformers", "bitsandbytes")}
    results["machine"] = {"cpu": platform.machine(), "gpu": torch.cuda.is_available()}
    if arguments.convert_gb:
        results["conversion"] = convert(arguments.convert_gb, arguments.workdir)
        print(json.dumps(results["conversion"], indent=2))
    if arguments.kernels:
        results["kernels"] = kernels()
        print(json.dumps(results["kernels"], indent=2))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
