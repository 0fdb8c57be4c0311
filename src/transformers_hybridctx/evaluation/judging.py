# SPDX-License-Identifier: Apache-2.0
"""Grades from another model, behind any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from typing import Any

_TRIES = 2


class GradeError(ValueError):
    """A judge said something that holds no grade: the sample is a failure, and counts."""


def judge_json(judge: str, prompt: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """
    What a judge answers, as the last JSON object in it.

    The endpoint and its key are those of the environment (`OPENAI_BASE_URL`, `OPENAI_API_KEY`), as for every program that
    uses the package `openai`.

    Args:
        judge: name of the model at the endpoint.
        fields: what the object must have.

    Raises:
        GradeError: two answers without such an object.
        ConnectionError: the endpoint cannot be reached, or refuses; the run stops, and can go on.
    """
    import openai

    said = ""
    for _ in range(_TRIES):
        try:
            reply = _client().chat.completions.create(
                model=judge, messages=[{"role": "user", "content": prompt}], temperature=0.1
            )
        except openai.OpenAIError as error:
            raise ConnectionError(f"the judge {judge!r} does not answer ({type(error).__name__}: {error})") from error
        said = reply.choices[0].message.content or ""
        for found in reversed(re.findall(r"\{.*?\}", said, re.DOTALL)):
            try:
                graded = json.loads(found)
            except json.JSONDecodeError:
                continue
            if isinstance(graded, dict) and all(name in graded for name in fields):
                return graded
    raise GradeError(f"the judge {judge!r} gave no {', '.join(fields)}: {said!r:.200}")


@cache
def _client() -> Any:
    import openai

    if not os.environ.get("OPENAI_API_KEY"):
        raise ValueError(
            "a judge is asked through an OpenAI-compatible endpoint: set OPENAI_API_KEY (any word for a server of your "
            "own) and, for other endpoints than OpenAI's, OPENAI_BASE_URL"
        )
    return openai.OpenAI()


__all__ = ["GradeError", "judge_json"]
