# SPDX-License-Identifier: Apache-2.0
"""HELMET's metrics that need no judge (princeton-nlp/HELMET, `utils.py` and `data.py`), for one sample."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from .longbench import normalize_answer


def parse_output(output: str, prefix: str) -> str:
    """What stands behind the prefix on its line, or the first line; a prefix that is said twice is dropped twice."""
    for pattern in (f"(?:{prefix})(.*)(?:\n|$)", r"(?:^)(.*)(?:\n|$)"):
        if found := re.search(pattern, output, re.IGNORECASE):
            return re.sub(f"^{re.escape(prefix)}", "", found[1].strip(), flags=re.IGNORECASE).strip()
    return ""


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    said = normalize_answer(prediction)
    return float(any(said == normalize_answer(answer) for answer in answers))


def substring_exact_match(prediction: str, answers: Sequence[str]) -> float:
    said = normalize_answer(prediction)
    return float(any(normalize_answer(answer) in said for answer in answers))


def recall(prediction: str, answers: Sequence[str]) -> float:
    """The share of the references in the answer, in any case."""
    said = prediction.lower()
    return sum(answer.lower() in said for answer in answers) / len(answers)


def parse_ranking(output: str) -> list[str]:
    """The longest run of numbers joined by `>`, each once; the whole answer where there is none."""
    output = re.sub(r"[\[\]:]", "", output).lower().replace("id", "")
    runs = [match[0] for match in re.finditer(r"(\d+)(?:\s*>\s*(\d+))*", output)]
    longest = max(runs, key=len, default="")  # the first of the longest
    if not longest:
        return [output]
    return list(dict.fromkeys(number.strip() for number in longest.split(">") if number.strip().isdigit()))


def ndcg(ranking: Sequence[str], relevance: Mapping[str, int], k: int = 10) -> float:
    """NDCG@k as trec_eval has it: gains are the labels themselves, what was not ranked gains nothing."""

    def gain(labels: Sequence[int]) -> float:
        return sum(label / math.log2(place + 2) for place, label in enumerate(labels[:k]))

    best = gain(sorted(relevance.values(), reverse=True))
    return gain([relevance.get(name, 0) for name in ranking]) / best if best else 0.0


__all__ = ["exact_match", "ndcg", "parse_output", "parse_ranking", "recall", "substring_exact_match"]
