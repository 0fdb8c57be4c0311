# SPDX-License-Identifier: Apache-2.0
"""The last two decoder layers, set in closed form so that they say the digits of a number that stands in a cell.

Regressions on what the layers before them hold give the weights; nothing is trained by gradient through the model. What
they make is narrow, numbers of seven digits, one in a document: it is where the stage `answer` begins, not its end.

First layer: two heads look two places back and one (in the column of cells and in the text), so that a cell brings along
what stands above it; two more say how far back the last blank is, which counts the digits that have been said.
Second layer: one head attends to the cell that begins with a number and fetches its digits, each place in a subspace of
its own; the feed-forward part says the digit whose turn it is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .answer_batches import AnswerBatches
from .pages import CHARACTERS
from .reference import RECALL_LAYERS, look_back
from .stages import HybridCtxForReading

NUM_DIGITS = 7
_KINDS = {"pages": 0.7, "choice": 0.15, "text": 0.15}
_SILENT = 0.003
"""Scale behind a sublayer that is not set yet: it hardly writes."""


@dataclass
class States:
    """What the tokens of some batches hold before a sublayer, and what they are; the first axis is tokens.

    hidden: [tokens, hidden size], normalised. ids: of the tokens. is_page: whether each is visual. digits: [tokens, 7] of
    the number that a cell begins with, else -1. said: how many digits of a number have been said before the next one is,
    else -1. number: [tokens, 7] of which that is one.
    """

    hidden: Tensor
    ids: Tensor
    is_page: Tensor
    digits: Tensor
    said: Tensor
    number: Tensor


@torch.no_grad()
def set_appended_layers(
    model: HybridCtxForReading,
    tokenizer: PreTrainedTokenizerFast,
    prose: dict[str, str],
    num_batches: int = 40,
    tokens_per_batch: int = 2600,
) -> None:
    """Set the layers from `RECALL_LAYERS` on of a model whose others, and whose tower, are trained.

    Args:
        prose: see [`AnswerBatches`].
        num_batches, tokens_per_batch: of what each regression is fitted to.
    """
    model.eval()
    text: Any = model.model.language_model
    first, second = text.layers[RECALL_LAYERS:]
    for layer in (first, second):
        for name, parameter in layer.named_parameters():
            if "post_self_attn_layernorm" in name or "post_mlp_layernorm" in name:
                parameter.fill_(_SILENT)
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                parameter.zero_()
    batches = AnswerBatches(
        tokenizer,
        prose,
        steps=num_batches,
        kinds=_KINDS,
        num_chars=(60, 1200),
        tokens_per_batch=tokens_per_batch,
        seed=10_000,
    )
    observe = _Observer(model, tokenizer, batches)
    digit_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list("0123456789")))
    blank = tokenizer.encode(" ", add_special_tokens=False)[0]

    states = observe(first.input_layernorm)
    free = _free_directions(states)
    _set_looking_back(first, states, free, text.rotary_emb.inv_freq, states.ids == blank)
    states = observe(second.input_layernorm)
    _set_fetching(second, states, free[136:200])
    states = observe(second.post_attention_layernorm)
    _set_saying(second, states, text.embed_tokens.weight[digit_ids])


class _Observer:
    """Runs the model on batches and reads what one module is given."""

    def __init__(self, model: HybridCtxForReading, tokenizer: PreTrainedTokenizerFast, batches: AnswerBatches) -> None:
        self._model, self._batches = model, batches
        self._think, self._close = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
        self._values = {tokenizer.convert_tokens_to_ids(str(digit)): digit for digit in range(10)}

    def __call__(self, module: torch.nn.Module) -> States:
        given: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
        found = []
        for step in range(len(self._batches)):
            batch, characters = self._batches.with_characters(step)
            self._model(**batch)
            is_token, is_page = batch["attention_mask"].bool(), batch["mm_token_type_ids"].bool()
            digits = torch.full((*is_page.shape, NUM_DIGITS), -1)
            digits[is_page] = _leading_digits(characters)
            said, number = self._turns(batch["input_ids"], is_page.any(1))
            columns = (given.pop(), batch["input_ids"], is_page, digits, said, number)
            found.append([column[is_token] for column in columns])
        hook.remove()
        hidden, *others = (torch.cat(column) for column in zip(*found, strict=True))
        return States(hidden * (hidden.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt(), *others)

    def _turns(self, input_ids: Tensor, has_pages: Tensor) -> tuple[Tensor, Tensor]:
        """For each token, how many digits of a quoted number were said when the next one is due, and the number."""
        said = torch.full(input_ids.shape, -1)
        number = torch.full((*input_ids.shape, NUM_DIGITS), -1)
        for row in has_pages.nonzero()[:, 0].tolist():
            ids, is_quoting, count = input_ids[row].tolist(), False, 0
            for at, (token, following) in enumerate(itertools.pairwise(ids)):
                is_quoting = (is_quoting or token == self._think) and token != self._close
                if not (is_quoting and following in self._values):
                    count = 0
                    continue
                whole = [self._values.get(one, -1) for one in ids[at + 1 - count : at + 1 - count + NUM_DIGITS]]
                if count < NUM_DIGITS and len(whole) == NUM_DIGITS and min(whole) >= 0:
                    said[row, at], number[row, at] = count, torch.tensor(whole)
                count += 1
        return said, number


def _leading_digits(characters: Tensor) -> Tensor:
    """[cells, 7]: the digits that a cell's text begins with, -1 for cells that do not begin with so many."""
    value = torch.full((len(CHARACTERS),), -1)
    value[[CHARACTERS.index(digit) for digit in "0123456789"]] = torch.arange(10)
    digits = value[characters[:, :NUM_DIGITS]]
    return torch.where((digits >= 0).all(1, keepdim=True), digits, -1)


def _free_directions(states: States) -> Tensor:
    """Orthonormal rows [hidden size, hidden size]: those first in which the text's states vary least."""
    return torch.linalg.eigh(torch.cov(states.hidden[~states.is_page].T))[1].T


def _set_looking_back(layer: Any, states: States, free: Tensor, frequencies: Tensor, is_blank: Tensor) -> None:
    """Heads 0, 1: is there a blank five, six tokens back? Heads 2, 3: what is one, two places back."""
    attention, width = layer.self_attn, layer.self_attn.head_dim
    for head, distance in enumerate((5, 6)):
        look_back(attention, head, distance, frequencies, range(9), 7.0)
    for head, distance in ((2, 1), (3, 2)):
        look_back(attention, head, distance, frequencies, range(9), 7.0)
    text = ~states.is_page
    weight, bias = _ridge(states.hidden[text], is_blank[text].float()[:, None], 1e-3)
    attention.v_proj.weight[:width] *= 0.05
    attention.v_proj.weight[0], attention.v_proj.bias[0] = weight[:, 0], bias[0]
    attention.v_proj.weight[width:] = _projection(width, states.hidden.shape[1])
    output = attention.o_proj.weight.zero_()
    for head in range(2):
        output[:, head * width] = 0.25 * free[head]
        output[:, head * width + 1 : head * width + 5] = 0.03 * free[2 + 4 * head : 6 + 4 * head].T
    for head, at in ((2, 10), (3, 74)):
        output[:, head * width : (head + 1) * width - 2] = 0.15 * free[at : at + width - 2].T
    layer.post_self_attn_layernorm.weight.fill_(0.15)


def _set_fetching(layer: Any, states: States, free: Tensor) -> None:
    """Head 2 attends to cells that begin with a number, or else to the sequence's start, and fetches the digits."""
    attention, width = layer.self_attn, layer.self_attn.head_dim
    flat, fetching = width // 2, 2
    is_number = states.digits[:, 0] >= 0
    is_start = states.ids == states.ids[0]
    sought = torch.where(is_number, 1.0, torch.where(is_start, 0.4, 0.0))[:, None]
    some = is_number | is_start | (torch.rand(len(is_number)) < 0.3)
    weight, bias = _logistic(states.hidden[some], sought[some])
    codes = torch.zeros(len(is_number), NUM_DIGITS, 9)
    codes[is_number] = _simplex()[states.digits[is_number]]
    some = is_number | (torch.rand(len(is_number)) < 0.2)
    values, value_bias = _ridge(states.hidden[some], codes[some].flatten(1), 1e-5)
    key, query = width + flat, fetching * width + flat  # both in the half of a head that does not rotate
    attention.k_proj.weight[width:key].mul_(0.1)
    attention.q_proj.weight[fetching * width : (fetching + 1) * width].zero_()
    attention.q_proj.weight[(fetching + 1) * width :].mul_(0.1)
    attention.k_proj.weight[key], attention.k_proj.bias[key] = weight[:, 0], bias[0]
    attention.q_proj.bias[query] = 12.0  # times the key, over the root of the width: one and a half times the logit
    attention.v_proj.weight[width : width + NUM_DIGITS * 9] = values.T
    attention.v_proj.bias[width : width + NUM_DIGITS * 9] = value_bias
    attention.o_proj.weight.mul_(0.002)
    attention.o_proj.weight[:, fetching * width : (fetching + 1) * width] = 0.12 * free.T
    layer.post_self_attn_layernorm.weight.fill_(0.3)


def _set_saying(layer: Any, states: States, embeddings: Tensor) -> None:
    """Feed-forward: how many digits have been said opens the gate of the next one's place; its code says the digit."""
    due = states.said >= 0
    text = ~states.is_page
    some = due | (text & (torch.rand(len(due)) < 0.5))
    turn = F.one_hot(states.said[some] + 1, NUM_DIGITS + 1).float()[:, 1:]
    gates, gate_bias = _logistic(states.hidden[some], turn)
    codes, code_bias = _ridge(states.hidden[due], _simplex()[states.number[due]].flatten(1), 1e-4)
    # The layer has no biases: they ride on a direction that hardly varies.
    constant = torch.linalg.lstsq(states.hidden[text], torch.ones(int(text.sum()), 1)).solution
    gate, code = gates + constant * gate_bias, codes + constant * code_bias
    mlp, inner = layer.mlp, layer.mlp.down_proj.weight.shape[1]
    mlp.gate_up_proj.weight[inner + NUM_DIGITS * 9 :].mul_(0.3)
    mlp.down_proj.weight.mul_(_SILENT / 10)
    said = _simplex().T @ (embeddings - embeddings.mean(0))
    for place in range(NUM_DIGITS):
        units = slice(place * 9, (place + 1) * 9)
        mlp.gate_up_proj.weight[units] = gate[:, place]
        mlp.gate_up_proj.weight[inner + place * 9 : inner + (place + 1) * 9] = code[:, units].T
        mlp.down_proj.weight[:, units] = 0.03 * said.T
    layer.post_mlp_layernorm.weight.fill_(0.8)


def _simplex() -> Tensor:
    """Ten digits as points of equal distance in nine dimensions, [10, 9]."""
    return torch.linalg.svd(torch.eye(10) - 0.1)[0][:, :9]


def _projection(size: int, hidden_size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(hidden_size, size))[0].T


def _ridge(inputs: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight [inputs, targets] and bias of least squares, the penalty in parts of the inputs' mean square."""
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
    moments = extended.T @ extended / len(inputs)
    moments += penalty * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.double)
    weight = torch.linalg.solve(moments, extended.T @ targets.double() / len(inputs)).float()
    return weight[:-1], weight[-1]


def _logistic(inputs: Tensor, targets: Tensor, steps: int = 300, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weight [inputs, targets] and bias of a logistic regression in which hits weigh as much as misses."""
    weight = torch.zeros(inputs.shape[1], targets.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    share = targets.mean(0).clamp(1e-4, 1 - 1e-4)
    balance = torch.where(targets > 0.3, 0.5 / share, 0.5 / (1 - share))

    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    for step in range(steps):
        if step == steps * 2 // 3:
            optimizer.param_groups[0]["lr"] = 0.01
        with torch.enable_grad():
            misses = F.binary_cross_entropy_with_logits(inputs @ weight + bias, targets, reduction="none")
            optimizer.zero_grad()
            ((misses * balance).mean() + decay * weight.pow(2).sum() / inputs.shape[1]).backward()
        optimizer.step()
    return weight.detach(), bias.detach()
