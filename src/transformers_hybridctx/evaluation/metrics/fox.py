# SPDX-License-Identifier: Apache-2.0
"""How much of a text was said again (ucaslcl/Fox, `eval_tools/eval_ocr_test.py`): words as sets, characters by edits.

Fox's script gives its metric the label where the prediction belongs: what it prints as precision is recall, and the other
way round. Here each is called what it is. BLEU and METEOR, which it prints too, are left out.
"""

from __future__ import annotations

import re

from rapidfuzz.distance import Levenshtein

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def fox_words(*texts: str) -> list[list[str]]:
    """The words of each text: jieba's where any of them holds Chinese, else what blanks part."""
    if not any(map(_CHINESE.search, texts)):
        return [text.split() for text in texts]
    import jieba

    return [list(jieba.cut(text)) for text in texts]


def reconstruction(prediction: str, label: str) -> dict[str, float]:
    """
    `precision`: the share of the prediction's different words that are in the label; `recall`: of the label's in the
    prediction; `f1`; `edit distance` of characters, of the longer text's length; `exact`.
    """
    said, there = map(set, fox_words(prediction, label))
    precision = len(said & there) / len(said) if said else 0.0
    recall = len(said & there) / len(there) if there else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    distance = float(Levenshtein.normalized_distance(prediction, label))
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "edit distance": distance,
        "exact": float(prediction.strip() == label.strip()),
    }


__all__ = ["fox_words", "reconstruction"]
