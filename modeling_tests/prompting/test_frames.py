# SPDX-License-Identifier: Apache-2.0
"""Any chat template's prompt."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prompt_samples import DOCUMENT, QUESTION
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import (
    ContextBudgetError,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
)


@pytest.mark.parametrize(
    "template",
    [
        # Lines between parts, as many chat templates have them.
        "{% for part in messages[0].content %}{{ '<|image|>' if part.type == 'image' else part.text }}\n{% endfor %}",
        # Numbered pictures, trimmed text, and a closing word that depends on the text.
        "[gMASK]<sop><|user|>{% for part in messages[0].content %}"
        "{% if part.type == 'image' %}Picture {{ loop.index }}: "
        "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}"
        "{{ '' if messages[0].content[-1].text.endswith('/nothink') else '/nothink' }}<|assistant|>",
    ],
)
@pytest.mark.parametrize("policy", ["anchors", "none", "full"])
def test_any_template_gets_the_promised_tokens(
    tokenizer: PreTrainedTokenizerFast,
    image_processor: HybridCtxImageProcessor,
    render_config: dict[str, Any],
    template: str,
    policy: str,
) -> None:
    processor = HybridCtxProcessor(image_processor, tokenizer, chat_template=template, render_config=render_config)
    with pytest.raises(ContextBudgetError) as caught:
        processor.plan(DOCUMENT, QUESTION, text_policy=policy, budget={"max_context_tokens": 40})
    for limit in (caught.value.smallest, caught.value.smallest + 100, None):
        request: dict[str, Any] = {"text_policy": policy, "budget": {"max_context_tokens": limit}}
        features, plan = processor(document=DOCUMENT, question=QUESTION, **request, return_plan=True)
        assert len(features["input_ids"][0]) == plan.total_tokens <= (limit or plan.total_tokens)


def test_a_template_that_drops_its_text_is_an_error(processor: HybridCtxProcessor) -> None:
    messages = [{"role": "user", "content": [{"type": "document", "text": "text"}, {"type": "text", "text": "why"}]}]
    with pytest.raises(ValueError, match="each must appear exactly once"):
        processor.apply_chat_template(messages, "<|user|>{{ messages[0].role }}", tokenize=True)


def test_threads_get_the_masks_of_their_own_chats(processor: HybridCtxProcessor) -> None:
    document = {"type": "document", "document": processor.read_document(DOCUMENT), "text_policy": "none"}

    def masks(turns: int) -> list[int]:
        messages = [{"role": "user", "content": [document]}]
        messages += [{"role": "assistant", "content": "It was so. " * turns}, {"role": "user", "content": "And?"}]
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": turns % 2 == 0}
        return processor.apply_chat_template(messages * 2, **options).get("assistant_masks")

    alone = [masks(turns) for turns in range(1, 9)]
    assert [mask is None for mask in alone] == [True, False] * 4
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(masks, range(1, 9))) == alone
    finally:
        sys.setswitchinterval(before)
