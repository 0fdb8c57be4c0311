# SPDX-License-Identifier: Apache-2.0
r"""Does the score of an answer tell whether it is right, and that something is not in the document?

    OMP_NUM_THREADS=1 python benchmarks/answer_scores.py [--examples 48] [--num-tokens 2048] [--fit] [--again]

Needles in RULER's formats, held-out keys, in documents of `--num-tokens` tokens at half of that as budget, context
`hybrid, bm25`; each question is asked about its document, and about the same document without the sentences that answer
it (other keys' needles stay). Weights of `confidence` are fitted on the first half of the examples, and printed; all else
is of the other half, by the package's weights, or with `--fit` by these:

- AUROC of the score (the geometric mean of the tokens' probabilities), and of the confidence;
- how many of the questions about what is not there fall below the threshold that keeps 95% of the right answers;
- bins of a fifth of the answers each: mean score, and the share of right ones; their mean difference;
- `abstain=True`: right answers kept, and questions about what is not there that are left unanswered.

Results: `benchmarks/results/answer_scores.json`; each answer: `answer_scores_answers.jsonl` beside it. `--again` judges
those of an earlier run with the same options, and asks nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from transformers import pipeline

import transformers_hybridctx  # noqa: F401 (makes the task known)
from transformers_hybridctx.answering.confidence import WEIGHTS
from transformers_hybridctx.evaluation.answer_scores import fitted_weights, run_score_benchmark, score_report
from transformers_hybridctx.evaluation.contexts import Context

HAYSTACK = Path(__file__).parents[1] / "examples" / "persuasion.txt"
RESULTS = Path(__file__).parent / "results" / "answer_scores.json"
ANSWERS = RESULTS.with_name("answer_scores_answers.jsonl")


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:.1%}"


def asked_anew(options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="the answer to .* was cut off")
    return run_score_benchmark(
        pipeline("long-doc-qa", model=options.model),
        HAYSTACK.read_text(encoding="utf-8"),
        options.num_tokens,
        Context("hybrid", "bm25", budget_share=0.5),
        options.examples,
        options.seed,
        groundings=options.groundings,
        num_beams=options.num_beams,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="the bundled checkpoint unless given")
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--num-tokens", type=int, default=2048)
    parser.add_argument("--groundings", nargs="+", default=["none", "quote"])
    parser.add_argument("--num-beams", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true", help="judge by weights fitted on the first half")
    parser.add_argument("--again", action="store_true", help="judge the answers of an earlier run again")
    options = parser.parse_args()
    if options.again:
        answers = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    else:
        answers = asked_anew(options)
    first = [one for one in answers if one["example"] < options.examples // 2]
    second = [one for one in answers if one["example"] >= options.examples // 2]
    fitted = fitted_weights(first)
    print(f"fitted on the first half: {fitted}; the package has {WEIGHTS}")
    weights = fitted if options.fit else WEIGHTS
    rows = score_report(second, weights)
    for row in rows:
        print(
            f"\ngrounding={row['grounding']}: {row['answers']} answers, {shown(row['right'])} right where it is there"
        )
        for name in ("score", "confidence"):
            found = row[name]
            bins = ", ".join(f"{mean:.2f}: {share:.0%}" for mean, share in found["bins"])
            print(
                f"  {name:10} AUROC {found['auroc']:.3f}; not there, at 95% of right answers kept: "
                f"{shown(found['not_there'])}; calibration error {found['calibration_error']:.3f} ({bins})"
            )
        abstain = row["abstain"]
        print(f"  abstain    right kept {shown(abstain['right_kept'])}, not there left {shown(abstain['not_there'])}")
    command = " ".join(["python", "benchmarks/answer_scores.py", *sys.argv[1:]])
    found = {"command": command, "machine": describe_machine(("torch", "transformers")), "weights": weights._asdict()}
    results = json.dumps({**found, "arguments": vars(options), "rows": rows}, indent=1)
    RESULTS.write_text(results + "\n", encoding="utf-8")
    ANSWERS.write_text("".join(json.dumps(one) + "\n" for one in answers), encoding="utf-8")


if __name__ == "__main__":
    main()
