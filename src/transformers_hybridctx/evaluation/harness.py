# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) with pages: its text tasks run unchanged.

A request is one string. Its long context is drawn, its end stays text ([`split_prompt`]); a request whose context is
short goes
in as tokens alone.
"""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import pipeline
from transformers.utils import logging

from .. import modeling_hybridctx, pipeline_long_doc_qa  # noqa: F401  (each registers its classes)
from ..prompting.features import prompt_features
from .prompt_splitting import split_prompt

_MAX_NEW_TOKENS = 256


@register_model("hybridctx")
class HybridCtxLM(LM):
    """
    A HybridCtx checkpoint as a model of the harness.

    Args:
        pretrained: folder or Hub id of a checkpoint; the bundled one if not given.
        budget: longest prompt in tokens.
        text_policy: what is copied as tokens; the checkpoint's own if not given.
        visual_share: 0 is tokens only, 1 pages only.
        grounding: `quote` or `strings`: how generated answers are held to the context.
        min_context_tokens: shorter contexts go in as tokens alone.
        device, dtype: as in `pipeline`.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        budget: int | str | None = None,
        text_policy: str | None = None,
        visual_share: float | str | None = None,
        grounding: str | None = None,
        min_context_tokens: int | str = 256,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if kwargs:
            raise ValueError(f"hybridctx does not know {', '.join(sorted(kwargs))}")
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = None  # the harness's own default, whatever the machine has
        options = {name: value for name, value in (("device", device), ("dtype", dtype)) if value}
        self.pipe = pipeline("long-doc-qa", model=pretrained, **options)
        bounds = {"max_context_tokens": budget and int(budget), "visual_share": None}
        if visual_share is not None:
            bounds["visual_share"] = float(visual_share)  # type: ignore[assignment]
        self._context = {"budget": {name: value for name, value in bounds.items() if value is not None}}
        if text_policy:
            self._context["text_policy"] = text_policy  # type: ignore[assignment]
        self._grounding = grounding
        self._least = int(min_context_tokens)
        self.tokenizer = self.pipe.processor.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """What tasks that build prompts to a length count tokens by."""
        return str(self.pipe.model.config._name_or_path)

    @property
    def max_length(self) -> int:
        return int(self.pipe.model.config.text_config.max_position_embeddings)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model answers, without its reasoning, up to the first of the stops."""
        answers = []
        for request in logging.tqdm(requests, desc="hybridctx", unit="answer", disable=disable_tqdm):
            prompt, wishes = request.args
            wishes = dict(wishes)
            stops = wishes.pop("until", None) or []
            options = {
                "max_new_tokens": int(
                    wishes.pop("max_gen_toks", None) or wishes.pop("max_new_tokens", _MAX_NEW_TOKENS)
                )
            }
            wishes.pop("max_gen_toks", None)
            if not wishes.get("do_sample"):
                wishes = {"do_sample": False}  # a temperature of 0 is the harness's word for it
            answer = self._generate(prompt, {**options, **wishes})
            for stop in [stops] if isinstance(stops, str) else stops:
                answer = answer.split(stop)[0] if stop else answer
            self.cache_hook.add_partial("generate_until", request.args, answer)
            answers.append(answer)
        return answers

    def _generate(self, prompt: str, options: dict[str, Any]) -> str:
        context, question = split_prompt(prompt)
        if self._is_long(context):
            held = {"grounding": self._grounding or "none"}
            return str(self.pipe(question=question, text=context, **self._context, **held, **options)["answer"])
        ids = self._plain(prompt)
        with torch.no_grad():
            output = self.pipe.model.generate(**self._features(ids), **options)
        return str(self.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether greedy search would say it.

        Continuations of the same context one after the other share its pages.
        """
        results = []
        known: tuple[str | None, dict[str, Any]] = (None, {})
        for request in logging.tqdm(requests, desc="hybridctx", unit="continuation", disable=disable_tqdm):
            context, continuation = request.args
            if known[0] != context:
                known = (context, self._prompt(context))
            ids = self.tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
            result = self._score(known[1], ids)
            self.cache_hook.add_partial("loglikelihood", request.args, result)
            results.append(result)
        return results

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, as tokens: there is nothing before them that could be drawn."""
        results = []
        for request in logging.tqdm(requests, desc="hybridctx", unit="text", disable=disable_tqdm):
            ids = self.tokenizer(request.args[0], add_special_tokens=False, verbose=False)["input_ids"]
            windows = get_rolling_token_windows(ids, self._first, self.max_length - 1, 1)
            scores = [
                self._score(self._features(before), said)[0] for before, said in map(make_disjoint_window, windows)
            ]
            results.append(sum(scores))
        return results

    @property
    def _first(self) -> int:
        """What a text without a beginning begins with."""
        found = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if found is None else found)

    def _is_long(self, context: str) -> bool:
        return bool(context.strip()) and self.pipe.processor.encoder.count(context) >= self._least

    def _plain(self, prompt: str) -> list[int]:
        return list(self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]) or [self._first]

    def _prompt(self, prompt: str) -> dict[str, Any]:
        context, question = split_prompt(prompt)
        if not self._is_long(context):
            return self._features(self._plain(prompt))
        features = self.pipe.processor(document=context, question=question, return_tensors="pt", **self._context)
        return {name: value.to(self.pipe.device) for name, value in features.items()}

    def _features(self, ids: list[int]) -> dict[str, Any]:
        features = prompt_features([ids], self.pipe.processor.image_token_id)
        return {name: value.to(self.pipe.device) for name, value in features.items()}

    def _score(self, prompt: dict[str, Any], continuation: list[int]) -> tuple[float, bool]:
        if not continuation:
            return 0.0, True
        said = torch.tensor([continuation], device=prompt["input_ids"].device)
        features = dict(prompt)
        features["input_ids"] = torch.cat([prompt["input_ids"], said], dim=1)
        features["attention_mask"] = torch.ones_like(features["input_ids"])
        kinds = prompt["mm_token_type_ids"]
        features["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(said, dtype=kinds.dtype)], dim=1)
        with torch.no_grad():
            logits = self.pipe.model(**features, use_cache=False, logits_to_keep=len(continuation) + 1).logits
        scores = logits[0, :-1].float().log_softmax(-1)
        found = scores.gather(1, said[0, :, None]).sum().item()
        return float(found), bool((scores.argmax(-1) == said[0]).all())


__all__ = ["HybridCtxLM"]
