# SPDX-License-Identifier: Apache-2.0
"""LongBench's metrics (THUDM/LongBench, `LongBench/metrics.py` and `eval.py`), for one answer and one reference.

The packages are those of the originals: `rouge`, and `jieba` for Chinese. `fuzzywuzzy`, which scores code there, is
difflib's ratio in whole percents where `python-Levenshtein` is not installed, as LongBench's requirements have it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕"
    "〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_ALL_PUNCTUATION = str.maketrans("", "", string.punctuation + _CHINESE_PUNCTUATION)

Details = Mapping[str, Any]


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation and articles, blanks squeezed: in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of two bags of tokens."""
    same = sum((Counter(prediction) & Counter(reference)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(reference)
    return (2 * precision * recall) / (precision + recall)


def qa_f1(prediction: str, reference: str, details: Details) -> float:
    return token_f1(normalize_answer(prediction).split(), normalize_answer(reference).split())


def qa_f1_zh(prediction: str, reference: str, details: Details) -> float:
    """Tokens are jieba's, each normalised; empty ones are dropped."""
    return token_f1(_chinese_tokens(prediction), _chinese_tokens(reference))


def _chinese_tokens(text: str) -> list[str]:
    cleaned = ("".join(word.lower().translate(_ALL_PUNCTUATION).split()) for word in _cut(text))
    return [word for word in cleaned if word]


def _cut(text: str) -> list[str]:
    import jieba

    return list(jieba.cut(text, cut_all=False))


def rouge_l(prediction: str, reference: str, details: Details) -> float:
    """ROUGE-L f of the package `rouge`; what it cannot score, such as an empty answer, is 0 as in the original."""
    from rouge import Rouge

    try:
        scores = Rouge().get_scores([prediction], [reference], avg=True)
    except (ValueError, RecursionError):
        return 0.0
    return float(scores["rouge-l"]["f"])


def rouge_l_zh(prediction: str, reference: str, details: Details) -> float:
    return rouge_l(" ".join(_cut(prediction)), " ".join(_cut(reference)), details)


def classification(prediction: str, reference: str, details: Details) -> float:
    """1 / the number of class names in the answer that are no part of the right one, if that is among them."""
    said = [name for name in details["all_classes"] if name in prediction]
    for name in said:  # the original removes from the list that it walks through, so that a neighbour is passed over
        if name in reference and name != reference:
            said.remove(name)
    return 1.0 / len(said) if reference in said else 0.0


def _share_of_numbers(prediction: str, number: str) -> float:
    """The share of the numbers of an answer that are written like this one: 07 is not 7."""
    numbers = re.findall(r"\d+", prediction)
    return sum(one == number for one in numbers) / len(numbers) if numbers else 0.0


def count(prediction: str, reference: str, details: Details) -> float:
    return _share_of_numbers(prediction, str(reference))


def retrieval(prediction: str, reference: str, details: Details) -> float:
    return _share_of_numbers(prediction, re.findall(r"Paragraph (\d+)", reference)[0])


def retrieval_zh(prediction: str, reference: str, details: Details) -> float:
    return _share_of_numbers(prediction, re.findall(r"段落(\d+)", reference)[0])


def code_similarity(prediction: str, reference: str, details: Details) -> float:
    """Likeness of the first line without a backtick or a comment's mark."""
    lines = prediction.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if code == reference:
        return 1.0
    return round(100 * SequenceMatcher(None, code, reference).ratio()) / 100


FIRST_LINE_ONLY = frozenset(("trec", "triviaqa", "samsum", "lsht"))
METRICS: dict[str, Callable[[str, str, Details], float]] = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique"), qa_f1),
    "multifieldqa_zh": qa_f1_zh,
    "dureader": rouge_l_zh,
    "gov_report": rouge_l,
    "qmsum": rouge_l,
    "multi_news": rouge_l,
    "vcsum": rouge_l_zh,
    "trec": classification,
    "triviaqa": qa_f1,
    "samsum": rouge_l,
    "lsht": classification,
    "passage_count": count,
    "passage_retrieval_en": retrieval,
    "passage_retrieval_zh": retrieval_zh,
    "lcc": code_similarity,
    "repobench-p": code_similarity,
}


def longbench_score(task: str, prediction: str, answers: Sequence[str], details: Details) -> float:
    """The best over the references; of some tasks, only the first line of the answer counts.

    Args:
        task: one of the 21 names, without `_e`.
        details: `all_classes` for classification.
    """
    if task in FIRST_LINE_ONLY:
        prediction = prediction.lstrip("\n").split("\n")[0]
    return max(0.0, *(METRICS[task](prediction, answer, details) for answer in answers))


def longbench_v2_choice(response: str) -> str | None:
    """The letter that an answer to LongBench v2 names: the bracketed form first."""
    response = response.replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", response)
    found = found or re.search(r"The correct answer is ([A-D])", response)
    return found[1] if found else None


__all__ = ["FIRST_LINE_ONLY", "METRICS", "longbench_score", "longbench_v2_choice", "normalize_answer", "token_f1"]
