# SPDX-License-Identifier: Apache-2.0
"""A server of OpenAI's protocol that knows transformers' own GLM-4V classes and nothing of this package."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, Glm4vImageProcessorPil


class Glm4vServer:
    """
    Greedy answers of a plain GLM-4V checkpoint.

    Attributes:
        requests: what was asked, as it came.
        pictures: those of the last request.
        prompt_ids: that of the last request, with one image token for each picture.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.cut = Glm4vImageProcessorPil.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.requests: list[dict[str, Any]] = []
        self.pictures: list[Image.Image] = []
        self.prompt_ids: list[int] = []
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(body)
        self.pictures = []
        messages = [{**message, "content": self._shown(message["content"])} for message in body["messages"]]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        self.prompt_ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        pixels = dict(self.cut(self.pictures, return_tensors="pt")) if self.pictures else {}
        counts = [int(grid.prod()) // self.cut.merge_size**2 for grid in pixels.get("image_grid_thw", [])]
        image, places = self.model.config.image_token_id, iter(counts)
        ids = [one for token in self.prompt_ids for one in ([token] * next(places) if token == image else [token])]
        input_ids = torch.tensor([ids])
        said = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            mm_token_type_ids=(input_ids == image).long(),
            max_new_tokens=body["max_tokens"],
            do_sample=False,
            **pixels,
        )
        words = self.tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True)
        message = {"role": "assistant", "content": words}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1},
        }

    def _shown(self, content: Any) -> Any:
        """A message's content as its template takes it; pictures are put aside."""
        if isinstance(content, str):
            return content
        parts = []
        for part in content:
            if part["type"] == "image_url":
                encoded = part["image_url"]["url"].removeprefix("data:image/png;base64,")
                self.pictures.append(Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB"))
                part = {"type": "image"}
            parts.append(part)
        return parts
