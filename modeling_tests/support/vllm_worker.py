# SPDX-License-Identifier: Apache-2.0
"""A process of its own for vLLM, which keeps memory, threads and decorated classes to its end.

`python vllm_worker.py SPEC.pkl OUT.json`: SPEC has `model`, `options` of `LLM` and `rounds` of requests (`prompt` as
`LLM.generate` takes it, `sampling`); OUT gets token ids and cached tokens of each.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_in_vllm(folder: Path, **spec: Any) -> list[list[dict[str, Any]]]:
    """Run the rounds in a process of vLLM's; (token ids, cached tokens) of each request."""
    spec_file, out = folder / "spec.pkl", folder / "out.json"
    spec_file.write_bytes(pickle.dumps(spec))
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # what it raises is then raised here
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__, str(spec_file), str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    answers: list[list[dict[str, Any]]] = json.loads(out.read_text())
    return answers


def _main(spec_file: str, out: str) -> None:
    import transformers_hybridctx
    from transformers_hybridctx.planning.policies.bm25 import BM25Policy
    from transformers_hybridctx.rendering.rasterizing import PageRenderer
    from transformers_hybridctx.rendering.settings import RenderConfig

    # bm25 before the engine, as in any server that plans its prompts itself
    document = PageRenderer(RenderConfig()).typeset("The first. The second.\n\n" * 40)
    assert BM25Policy(top_k=2).rank(document, "Where is the second?") and "numba" in sys.modules

    from vllm import LLM, SamplingParams

    spec = pickle.loads(Path(spec_file).read_bytes())
    options = {"enforce_eager": True, "dtype": "float32", "disable_log_stats": True, "max_model_len": 4096}
    llm = LLM(spec["model"], **{**options, **spec.get("options", {})})
    rounds = []
    for requests in spec["rounds"]:
        sampling = [SamplingParams(**{"temperature": 0, **request["sampling"]}) for request in requests]
        outputs = llm.generate([request["prompt"] for request in requests], sampling, use_tqdm=False)
        rounds.append(
            [{"token_ids": list(one.outputs[0].token_ids), "cached": one.num_cached_tokens} for one in outputs]
        )
    Path(out).write_text(json.dumps(rounds))
    assert transformers_hybridctx.__version__


if __name__ == "__main__":
    _main(*sys.argv[1:])
