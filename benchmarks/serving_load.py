# SPDX-License-Identifier: Apache-2.0
r"""The server under load: documents as pages and tokens beside the same text as tokens, asked by `openai`'s own clients.

    OMP_NUM_THREADS=1 python benchmarks/serving_load.py [--clients 3] [--documents 3] [--characters 16000] [--rounds 2]

Servers run in processes of their own, on loopback, with the bundled checkpoint. A round has its own documents, pieces of
`examples/nordic_factbook.txt`. All clients ask at once, as fast as they are answered: first one question about each
document, then further ones. Rounds take turns between two sides:
- hybrid: documents as pages, with passages by the checkpoint's own policy;
- tokens: the same documents as text, with no page at all.

`--engine transformers`: one `hybridctx serve` answers both. `--engine vllm`: `hybridctx serve --engine vllm` answers the
first, and vLLM's own server (`vllm serve`), which has the text in its messages, the second.

Answers have `--new-tokens` tokens at most and are free on both sides. Seconds are those that went by, from the request
on, so that other work on the machine counts, on both sides alike. Results: `benchmarks/results/serving_load.json`, one
entry for each engine: the last run of one engine leaves the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import openai
from machine import describe_machine

from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT

ROOT = Path(__file__).parents[1]
TEXT = ROOT / "examples" / "nordic_factbook.txt"
RESULTS = Path(__file__).parent / "results" / "serving_load.json"
QUESTIONS = (
    "What is the coastline?",
    "What is the population?",
    "What is the area land?",
    "Who is the chief of state?",
)
# As text, whatever it takes: no page, and as many tokens as the prompt may have.
AS_TEXT = {"budget": {"visual_share": 0, "max_text_tokens": 32_000}, "text_policy": "full"}
START_SECONDS = 900


@dataclass(frozen=True)
class Reply:
    """What one client saw: seconds from its request to the first token and to the end, and the tokens of both ways."""

    first_token: float
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Side:
    """One way to ask: a server, and how a document goes into its messages."""

    name: str
    address: str
    as_part: bool
    options: dict[str, Any]

    def ask(self, document: str, question: str, new_tokens: int) -> Reply:
        client = openai.OpenAI(base_url=self.address, api_key="none", max_retries=0, timeout=START_SECONDS)
        parts = [{"type": "document", "text": document}, {"type": "text", "text": question}]
        content: Any = parts if self.as_part else f"{document}\n\n{question}"
        started = time.perf_counter()
        first = usage = None
        for chunk in client.chat.completions.create(
            model="hybridctx-tiny",
            messages=[{"role": "user", "content": content}],
            max_tokens=new_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=self.options,
        ):
            delta = chunk.choices[0].delta if chunk.choices else None
            if first is None and delta and (delta.content or (delta.model_extra or {}).get("reasoning_content")):
                first = time.perf_counter() - started
            usage = chunk.usage or usage
        seconds = time.perf_counter() - started
        assert usage is not None
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        # an answer of nothing but marks shows no text
        return Reply(first or seconds, seconds, usage.prompt_tokens, cached or 0, usage.completion_tokens)


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """The address of a server that `command`, a port added, starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/v1"
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=START_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)!r} did not start")
            with suppress(openai.APIConnectionError):
                client.models.list()
                break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def sides(engine: str) -> Iterator[list[Side]]:
    """Both ways to ask, with their servers running."""
    ours = [sys.executable, "-m", "transformers_hybridctx", "serve"]
    free = {"hybridctx": {"grounding": "none"}}
    if engine == "transformers":
        with serving(*ours) as address:
            text = {"hybridctx": {**free["hybridctx"], **AS_TEXT}}
            yield [Side("hybrid", address, True, free), Side("tokens", address, True, text)]
        return
    vllm = {"dtype": "float32", "max_model_len": 32_768, "enforce_eager": True}
    options = [part for name, value in vllm.items() for part in ("--engine-option", f"{name}={json.dumps(value)}")]
    plain = [str(Path(sys.executable).with_name("vllm")), "serve", str(BUNDLED_CHECKPOINT), "--host", "127.0.0.1"]
    plain += ["--served-model-name", "hybridctx-tiny", "--dtype", "float32", "--max-model-len", "32768"]
    with (
        serving(*ours, "--engine", "vllm", *options) as address,
        serving(*plain, "--enforce-eager", "--enable-prompt-tokens-details") as plain_address,
    ):
        yield [Side("hybrid", address, True, free), Side("tokens", plain_address, False, {})]


def documents_of(round_number: int, count: int, characters: int) -> list[str]:
    """Pieces of the text, of which no two of a run are the same."""
    text = TEXT.read_text(encoding="utf-8")
    starts = [(round_number * count + index) * 9_973 % (len(text) - characters) for index in range(count)]
    return [text[start : start + characters] for start in starts]


def load(side: Side, jobs: list[tuple[str, str]], clients: int, new_tokens: int) -> tuple[float, list[Reply]]:
    """(seconds, replies) of all jobs, each (document, question), asked by so many clients at once."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        replies = list(threads.map(lambda job: side.ask(*job, new_tokens), jobs))
    return time.perf_counter() - started, replies


def summary(seconds: float, replies: list[Reply]) -> dict[str, Any]:
    """Throughput, and what half and what 95 of 100 requests had to wait at most."""

    def at(values: list[float], percent: int) -> float:
        return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]

    waits, firsts = [reply.seconds for reply in replies], [reply.first_token for reply in replies]
    return {
        "requests": len(replies),
        "seconds": seconds,
        "requests_a_second": len(replies) / seconds,
        "latency_p50": at(waits, 50),
        "latency_p95": at(waits, 95),
        "first_token_p50": at(firsts, 50),
        "first_token_p95": at(firsts, 95),
        "prompt_tokens": statistics.mean(reply.prompt_tokens for reply in replies),
        "cached_tokens": statistics.mean(reply.cached_tokens for reply in replies),
        "new_tokens": statistics.mean(reply.new_tokens for reply in replies),
    }


def measure(engine: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each phase and side, and one for each phase with the ratios of the two."""
    taken: dict[tuple[str, str], list[tuple[float, list[Reply]]]] = {}
    with sides(engine) as both:
        for side in both:  # what is made at first use is made
            side.ask("The number is 7. " * 300, "What is the number?", 2)
        for number in range(options.rounds):
            texts = documents_of(number, options.documents, options.characters)
            first = [(text, QUESTIONS[0]) for text in texts]
            later = [(text, question) for question in QUESTIONS[1:] for text in texts]
            for phase, jobs in (("first", first), ("later", later)):
                for side in both if number % 2 == 0 else both[::-1]:
                    found = load(side, jobs, options.clients, options.new_tokens)
                    taken.setdefault((phase, side.name), []).append(found)
    rows = []
    for phase in ("first", "later"):
        pair = {}
        for name in ("hybrid", "tokens"):
            rounds = taken[phase, name]
            replies = [reply for _, some in rounds for reply in some]
            pair[name] = summary(sum(seconds for seconds, _ in rounds), replies)
            rows.append({"questions": phase, "side": name, **pair[name], "replies": [asdict(one) for one in replies]})
        ratios = {
            key: pair["tokens"][key] / pair["hybrid"][key]
            for key in ("seconds", "latency_p50", "latency_p95", "first_token_p50", "first_token_p95", "prompt_tokens")
        }
        rows.append({"questions": phase, "side": "tokens / hybrid", **ratios})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--documents", type=int, default=3, help="of a round")
    parser.add_argument("--characters", type=int, default=16_000, help="of a document")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=16)
    options = parser.parse_args()
    packages = ("transformers_hybridctx", "transformers", "torch", "openai", "vllm-cpu", "vllm")
    machine = describe_machine(packages)
    rows = measure(options.engine, options)
    machine["load_average_after"] = os.getloadavg()[0]
    for row in rows:
        shown = {name: round(value, 3) for name, value in row.items() if isinstance(value, float)}
        print(row["questions"], row["side"], json.dumps(shown))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    results[options.engine] = {"command": command, "machine": machine, "arguments": vars(options), "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
