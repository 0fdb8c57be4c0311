# SPDX-License-Identifier: Apache-2.0
"""A document read once, for any number of questions, in this process or from a file.

With pages first, a document is a prefix that no question changes; the spans of a policy that does not look at the
question belong to it, too. What the decoder made of them is kept, and bound to the checkpoint and to the pages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import BatchFeature

from ..documents.scans import ScannedPages
from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.paged_document import PagedDocument
from ..planning.plan import ContextPlan, Span
from ..planning.policies.base import Selection, SpanCosts, TextPolicy
from ..planning.policies.middle import MiddlePolicy
from ..planning.policies.none import NonePolicy
from ..planning.policies.registry import resolve_text_policy
from ..prompting.features import prompt_features
from ..rendering.checkpoint_fonts import portable_config
from ..rendering.paged_text import PagedText
from .prefix import PrefixCache

QUESTION_TOKENS = 256
"""Tokens of a budget that a reading leaves free, for the question and for spans that are copied for it."""
_FORMAT = "hybridctx document cache 1"
_READ_AGAIN = "read the document again with this checkpoint: pipe.read(document)"


@dataclass(frozen=True)
class _KeptSpans(TextPolicy):
    """Copies the spans that were copied when the document was read: all of them, as they are in the prefix."""

    name: ClassVar[str] = "as read"
    spans: tuple[Span, ...]

    @property
    def required(self) -> bool:
        return True

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        return Selection([(span.start, span.end) for span in self.spans], [])

    def smallest(self, costs: SpanCosts) -> int | None:
        return sum(span.tokens for span in self.spans) or None


@dataclass(frozen=True)
class _Request:
    """What was asked for when a document was read; all that, with the document, decides the prefix's tokens."""

    budget: ContextBudget
    text_policy: TextPolicy
    fusion_order: str
    question_tokens: int

    def plan(self, processor: Any, document: PagedDocument) -> tuple[list[int], ContextPlan]:
        """The tokens of the prefix, and the plan of a prompt that ends with the document."""
        budget, policy = self.budget, self.text_policy
        if budget.max_context_tokens is not None:
            budget = replace(budget, max_context_tokens=max(0, budget.max_context_tokens - self.question_tokens))
        options = {"document": document, "fusion_order": self.fusion_order}
        try:
            if policy.looks_at_question:
                self._check_that_pages_lead()
                # Pages leave the room that a policy may claim, as they do for one that wants the whole text.
                scale = processor.plan(**options, budget=budget, text_policy=MiddlePolicy()).scale
                budget, policy = replace(budget, min_scale=scale, max_scale=scale), NonePolicy()
            features, plan = processor(
                **options, budget=budget, text_policy=policy, draw_pages=False, return_plan=True
            )
        except ContextBudgetError as error:
            smallest = error.smallest
            if error.field == "max_context_tokens":
                smallest += self.question_tokens
            raise ContextBudgetError(
                f"{error}; with question_tokens={self.question_tokens} kept free for a question: {smallest}",
                smallest,
                error.field,
            ) from error
        return features["input_ids"][0][: plan.prefix_tokens], plan

    def _check_that_pages_lead(self) -> None:
        for name, value in (("visual_share", self.budget.visual_share), ("fusion_order", self.fusion_order)):
            if value in (0, "tokens_first"):
                raise ValueError(
                    f"{name}={value!r} leaves nothing to read before the question is known, as the text policy "
                    f"{self.text_policy.name!r} looks at it; put pages first, or choose 'anchors', 'full' or 'none'"
                )


class DocumentCache:
    """
    A document that a checkpoint has read. [`LongDocQAPipeline.read`] makes it; each question then costs its own tokens.

    Attributes:
        prefix ([`PrefixCache`]): tokens, keys and values of the prompt's beginning.
        checkpoint: checksum of the weights and the config that made them.
    """

    def __init__(
        self,
        prefix: PrefixCache,
        request: _Request,
        document: PagedDocument | str,
        checkpoint: str,
        render: Any,
        plan: ContextPlan | None = None,
    ) -> None:
        self.prefix = prefix
        self.checkpoint = checkpoint
        self._request = request
        self._document = document
        self._render = render
        self._plan = plan

    @classmethod
    def read(
        cls,
        model: Any,
        processor: Any,
        document: Any,
        *,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: str | None = None,
        question_tokens: int = QUESTION_TOKENS,
        prefill_chunk_size: int | None = None,
    ) -> Self:
        """
        Read a document.

        Args:
            model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
            processor ([`HybridCtxProcessor`]): the one of the model's checkpoint.
            document: what `processor(document=...)` takes, one document.
            budget, text_policy, fusion_order: as in `processor(document=...)`; they hold for all questions, and fix the
                pages' scale. With a policy that looks at the question, the pages are read, and each question brings its
                own spans; other policies' spans are read with the pages.
            question_tokens: what to leave of `max_context_tokens` for a question and the spans copied for it.
            prefill_chunk_size: tokens that go through the decoder at a time; None: all at once.

        Raises:
            ContextBudgetError, ValueError: before the model runs.
        """
        if question_tokens < 1:
            raise ValueError(f"question_tokens={question_tokens} leaves no room for a question: give 1 or more")
        request = _Request(
            ContextBudget.of(budget).filled_from(ContextBudget.of(processor.default_budget)),
            resolve_text_policy(text_policy or processor.default_text_policy),
            fusion_order or processor.fusion_order,
            question_tokens,
        )
        laid_out = processor.read_document(document)
        input_ids, plan = request.plan(processor, laid_out)
        features: dict[str, Any] = prompt_features([input_ids], model.config.image_token_id)
        if plan.num_pages:
            features |= processor.draw_pages(plan, return_tensors="pt")
        features = {name: value.to(model.device) for name, value in features.items()}
        prefix = PrefixCache.read(model, features, prefill_chunk_size)
        render = portable_config(laid_out.config) if isinstance(laid_out, PagedText) else None
        return cls(prefix, request, laid_out, checkpoint_checksum(model), render, plan)

    @property
    def plan(self) -> ContextPlan:
        """The plan of the document without a question."""
        if self._plan is None:
            raise ValueError("the document is not laid out yet: call attach(model, processor), as the pipeline does")
        return self._plan

    @property
    def text_policy(self) -> TextPolicy:
        """What is copied for a question, unless it says otherwise."""
        return self._request.text_policy

    def __len__(self) -> int:
        """Tokens that are read."""
        return len(self.prefix)

    def attach(self, model: Any, processor: Any) -> Self:
        """
        Make sure that this model made the cache, and lay the document out with this processor where that is to be done.

        Raises:
            ValueError: another checkpoint, render config, font, tokenizer or chat template.
        """
        checksum = checkpoint_checksum(model)
        if checksum != self.checkpoint:
            raise ValueError(
                f"the document cache was made by another checkpoint (checksum {self.checkpoint[:12]}, this model's is "
                f"{checksum[:12]}): its weights, adapters, dtype or config differ; {_READ_AGAIN}"
            )
        if self._plan is None:
            render = json.loads(json.dumps(portable_config(processor.render_config)))
            if self._render is not None and self._render != render:
                raise ValueError(
                    f"the document cache was made with another render config ({_difference(self._render, render)}); "
                    f"{_READ_AGAIN}"
                )
            document = processor.read_document(self._document)
            input_ids, plan = self._request.plan(processor, document)
            if input_ids != self.prefix.input_ids.tolist():
                raise ValueError(
                    "the document cache holds other tokens than this processor writes for the document: its tokenizer, "
                    f"chat template or image size differ; {_READ_AGAIN}"
                )
            self._plan, self._document = plan, document
            if len(getattr(model, "hf_device_map", None) or ()) < 2:  # else each layer's part goes where the layer is
                self.prefix = self.prefix.to(model.device)
        return self

    def prompt(
        self,
        processor: Any,
        question: str,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: str | None = None,
    ) -> tuple[list[int], ContextPlan]:
        """
        The whole prompt for a question, which begins with what is read, and its plan.

        Raises:
            ContextBudgetError: the question does not fit; its `smallest` would.
            ValueError: a budget or a policy that would change the pages.
        """
        if fusion_order not in (None, self._request.fusion_order):
            raise ValueError(
                f"the document was read with fusion_order={self._request.fusion_order!r}, not {fusion_order!r}; read it "
                "with that"
            )
        asked = ContextBudget.of(budget)
        filled = asked.filled_from(self._request.budget)
        scale = self.plan.scale
        if not filled.scales[0] <= scale <= filled.scales[1]:
            raise ValueError(
                f"the document was read at scale {scale:g}, which is not within min_scale={filled.scales[0]:g} and "
                f"max_scale={filled.scales[1]:g}; read it again, or leave the scales out"
            )
        policy = self._request.text_policy if text_policy is None else resolve_text_policy(text_policy)
        as_read = policy == self._request.text_policy and not policy.looks_at_question
        features, plan = processor(
            document=self.plan.document,
            question=question,
            budget=replace(filled, min_scale=scale, max_scale=scale),
            text_policy=_KeptSpans(self.plan.spans) if as_read else policy,
            fusion_order=self._request.fusion_order,
            draw_pages=False,
            return_plan=True,
        )
        if as_read:
            plan = replace(plan, policy=self.plan.policy, omitted=self.plan.omitted)
        input_ids = features["input_ids"][0]
        if not self.prefix.shared_length(input_ids):
            raise ValueError(
                f"text_policy={text_policy!r} or budget={asked} puts something else before the pages than was read; "
                "read the document with them"
            )
        return input_ids, plan

    def inputs(self, processor: Any, question: str | Sequence[str], **options: Any) -> BatchFeature:
        """
        What `model.generate` takes for one question or several: a row of the whole prompt for each, and
        `past_key_values`, which hold its beginning.

        Args:
            options: as in [`DocumentCache.prompt`].
        """
        questions = [question] if isinstance(question, str) else question
        prompts = [self.prompt(processor, one, **options)[0] for one in questions]
        return self.prefix.features(prompts, processor.tokenizer.pad_token_id)

    # Files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """
        Write the cache to a safetensors file: keys and values, the document (its text or its page pictures, so treat the
        file as you would the document), and the checksums that bind it.

        Raises:
            ValueError: a text policy that cannot be written down.
        """
        path, policy = Path(path), self._request.text_policy
        if not is_dataclass(policy):
            raise ValueError(f"the text policy {policy!r} is not a dataclass, so its settings cannot be saved")
        tensors = {"input_ids": self.prefix.input_ids}
        if self.prefix.image_grid_thw is not None:
            tensors["image_grid_thw"] = self.prefix.image_grid_thw
        for index, layer in enumerate(self.prefix.states):
            tensors |= {f"{name}.{index}": part for name, part in zip(("keys", "values"), layer, strict=True)}
        tensors |= _as_tensors(self._document)
        header = {
            "format": _FORMAT,
            "checkpoint": self.checkpoint,
            "render": self._render,
            "image_token_id": self.prefix.image_token_id,
            "budget": vars(self._request.budget),
            "text_policy": {"name": policy.name, **asdict(policy)},
            "fusion_order": self._request.fusion_order,
            "question_tokens": self._request.question_tokens,
        }
        # Beside the target and then in its place: a write that fails leaves what was there.
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
                unfinished,
                metadata={"hybridctx": json.dumps(header)},
            )
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """
        Read a file that `save` wrote. Whether it fits is seen when it is used: [`DocumentCache.attach`].

        Raises:
            FileNotFoundError, ValueError: no such file, or another kind of file, or a damaged one.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no document cache at {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("hybridctx", "{}"))
                if header.get("format") != _FORMAT:
                    raise ValueError(
                        f"{str(path)!r} is not a document cache of this version: it states the format "
                        f"{header.get('format')!r}, not {_FORMAT!r}"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it has no __iter__)
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is not a safetensors file, or a damaged one: {error}") from error
        layers = sum(name.startswith("keys.") for name in tensors)
        prefix = PrefixCache(
            tensors["input_ids"],
            header["image_token_id"],
            tensors.get("image_grid_thw"),
            tuple((tensors[f"keys.{index}"], tensors[f"values.{index}"]) for index in range(layers)),
        )
        request = _Request(
            ContextBudget.of(header["budget"]),
            resolve_text_policy(header["text_policy"]),
            header["fusion_order"],
            header["question_tokens"],
        )
        return cls(prefix, request, _from_tensors(tensors), header["checkpoint"], header["render"])


def _as_tensors(document: PagedDocument | str) -> dict[str, torch.Tensor]:
    """A document's text as bytes, or its page pictures: uint8."""
    if isinstance(document, ScannedPages):
        pictures = document.draw_pages(1.0)
        return {f"page.{page}": torch.from_numpy(np.array(image)) for page, image in enumerate(pictures)}
    text = document if isinstance(document, str) else document.text
    return {"text": torch.frombuffer(bytearray(text.encode("utf-8", "surrogatepass")), dtype=torch.uint8)}


def _from_tensors(tensors: dict[str, torch.Tensor]) -> PagedDocument | str:
    if "text" in tensors:
        return tensors["text"].numpy().tobytes().decode("utf-8", "surrogatepass")
    pages = sum(name.startswith("page.") for name in tensors)
    return ScannedPages([tensors[f"page.{page}"].numpy() for page in range(pages)])


def _difference(one: Any, other: Any) -> str:
    """The first settings in which two portable configs differ, and whether it is the font files."""
    (config, fonts), (other_config, other_fonts) = one, other
    names = sorted(name for name in config.keys() | other_config if config.get(name) != other_config.get(name))
    if not names and fonts != other_fonts:
        return "other font files under the same names"
    return "; ".join(f"{name}={config.get(name)!r}, here {other_config.get(name)!r}" for name in names[:3])


# What the checksum of a model was, and the state of its tensors then.
_known_checksums: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()
# Entries of a config that change nothing in what a model computes.
_INCIDENTAL = frozenset(
    (
        "_name_or_path",
        "transformers_version",
        "dtype",
        "architectures",
        "auto_map",
        "custom_pipelines",
        "vision_batch_bytes",
        "retrieval_heads",
    )
)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checkpoint_checksum(model: Any) -> str:
    """
    A checksum of all that decides what a model computes: its config, and of each tensor the name, the type, the shape
    and the sum of its bits (exact in any order, so the same on every device). Tensors that are not in memory (offloaded
    to disk) count without their bits.

    It is worked out again only where a tensor was changed or replaced.
    """
    settings = json.dumps(_without_incidentals(model.config.to_dict()), sort_keys=True)
    state: list[Any] = [
        (id(tensor), tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)
        for tensor in chain(model.parameters(), model.buffers())
        if _is_in_memory(tensor)
    ]
    state.append(settings)
    known = _known_checksums.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(model.state_dict().items()):
        line = f"{name} {tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else f"{name}"
        if _is_in_memory(tensor):
            bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()])
            line += f" {int(bits.sum(dtype=torch.int64))}"
        digest.update(line.encode())
    _known_checksums[model] = state, digest.hexdigest()
    return digest.hexdigest()


def _is_in_memory(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and not tensor.is_meta


def _without_incidentals(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _without_incidentals(value) for key, value in values.items() if key not in _INCIDENTAL}
    if isinstance(values, (list, tuple)):
        return [_without_incidentals(value) for value in values]
    return values if isinstance(values, (int, float, str, bool, type(None))) else str(values)


__all__ = ["DocumentCache", "checkpoint_checksum"]
