# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire: OpenAI's chat completions, as far as they make sense here, and what this server adds.

Answers are built of the `openai` package's own types, so that they are what its clients expect. Requests are checked
field by field: what would change an answer and is not done here is refused, never passed over.
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import time
from typing import Any, Literal
from uuid import uuid4

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Fields that clients send and that change nothing of an answer here.
_IGNORED = frozenset(("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"))
# Values with which a field asks for nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none",),
    "logit_bias": ({},),
    "parallel_tool_calls": (True, False),
}


class HybridOptions(BaseModel):
    """The field `hybridctx` of a request: what of the context is this package's own.

    Attributes:
        budget: fields of a [`ContextBudget`].
        text_policy: name, or `{"name": ..., knob: value}`.
        chat_template_kwargs: such as `{"enable_thinking": False}`.
        look_closer: as in the pipeline: true, or knobs such as `{"zoom": 2}`.
        grounding, repair, abstain: how answers are held to the document, and checked, as in the pipeline.
    """

    model_config = ConfigDict(extra="forbid")

    budget: dict[str, Any] = Field(default_factory=dict)
    text_policy: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    look_closer: bool | dict[str, Any] = False
    grounding: Literal["quote", "strings", "none"] | None = None
    repair: bool = False
    abstain: bool = False


class StreamOptions(BaseModel):
    """OpenAI's field of this name."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: str | list[str] | None = None
    hybridctx: HybridOptions = Field(default_factory=HybridOptions)

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop or []
        # transformers holds each of their characters against the whole vocabulary
        if len(stops) > 4 or not all(stops) or sum(map(len, stops)) > 200:
            raise ValueError("give up to four stop strings, of up to 200 characters in all")
        return stop

    @field_validator("stream_options", mode="before")
    @classmethod
    def _given_options(cls, options: Any) -> Any:
        return {} if options is None else options

    @model_validator(mode="after")
    def _known(self) -> ChatRequest:
        extra = self.model_extra or {}
        refused = {
            name: value
            for name, value in extra.items()
            if name not in _IGNORED and value is not None and value not in _NOTHING.get(name, ())
        }
        if refused:
            name, value = next(iter(refused.items()))
            raise ValueError(f"{name}={value!r:.80} asks for something that is not done here; leave it out")
        return self

    def generation(self, longest: int) -> dict[str, Any]:
        """Generation parameters: greedy, or as the checkpoint has it, unless a temperature is given."""
        given = self.max_completion_tokens or self.max_tokens
        chosen: dict[str, Any] = {"max_new_tokens": min(given or longest, longest)}
        if self.temperature is not None:
            chosen |= {"do_sample": self.temperature > 0}
            if self.temperature:
                chosen |= {"temperature": self.temperature}
        if self.top_p is not None and self.temperature:
            chosen["top_p"] = self.top_p
        if self.stop:
            chosen["stop_strings"] = self.stop
        return chosen


class Completion:
    """One answer's names, and its forms: whole, or chunk by chunk."""

    def __init__(self, model: str) -> None:
        self._named = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, answer: dict[str, Any], reasoning: str, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        choice = {"index": 0, "finish_reason": answer["finish_reason"], "logprobs": None, "message": message}
        completion = {
            **self._named,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(answer),
            "hybridctx": answer["hybridctx"],
        }
        return ChatCompletion.model_validate(completion).model_dump(mode="json")

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> str:
        """A server-sent event; `more` are further fields."""
        choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}]
        return self._event(choices, **more)

    def usage_chunk(self, answer: dict[str, Any]) -> str:
        """The last chunk, where a client asked for the usage."""
        return self._event([], usage=usage_of(answer))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**self._named, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {ChatCompletionChunk.model_validate(chunk).model_dump_json(exclude_none=True)}\n\n"


def usage_of(answer: dict[str, Any]) -> CompletionUsage:
    """OpenAI's counts; `cached_tokens` are those that were read before this question."""
    used = answer["usage"]
    usage = {
        "prompt_tokens": used["prompt_tokens"],
        "completion_tokens": used["new_tokens"],
        "total_tokens": used["prompt_tokens"] + used["new_tokens"],
        "prompt_tokens_details": {"cached_tokens": used["cached_tokens"]},
    }
    return CompletionUsage.model_validate(usage)


__all__ = ["ChatRequest", "Completion", "HybridOptions", "usage_of"]
