# SPDX-License-Identifier: Apache-2.0
"""A latent encoder whose attention is set in closed form: each latent looks at the tokens of its own stretch of the text.

To find out where a latent's text stands takes most of an encoder's training, and is known: the last latent holds the
text's last tokens, the one before it those before. So the queries are sinusoids of that distance in the frequencies of
the encoder's own rotary positions, and each head of the first layer turns them by one token more. It copies the token
that it finds there to a place of its own, so that what is left to train are feed-forward layers over a window of tokens.
That needs no attention, and no text but the windows; and one training serves any number of latents, as only distances
differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

OFFSETS = range(-1, 10)
"""Tokens that a latent looks at, counted from the first one of its stretch."""
_CODE, _WIDTH, _HEAD = 42, 594, 64
"""Sizes of a token's code, of the encoder, and of its heads."""
_DIGIT, _IS_DIGIT, _ENDS_WORD, _SPELLED = slice(0, 9), 9, 10, slice(11, _CODE)
"""What stands where in a code: which digit, whether it is one, whether it ends with white space, and its spelling."""
_STARTS, _PLACES = 4, 7
"""Tokens of a window at which a number may begin, and digits of it that are put in line."""
_SHARPNESS = 36.0
"""Size of a query times that of a key: the neighbours of a token get a ten thousandth of the attention."""


def encoder_fields(vocab_size: int, layers: int) -> dict[str, Any]:
    """The encoder as a `latent_config`: a Llama with one head for each of `OFFSETS`, which share keys and values."""
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": len(OFFSETS),
        "num_key_value_heads": 1,
        "head_dim": _HEAD,
        "attention_bias": True,
        "mlp_bias": True,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    }


def queries(encoder: Any, num_latents: int, stretch: int) -> nn.Embedding:
    """Sinusoids of how far before each query the first token of its stretch stands; they are not trained."""
    number = torch.arange(num_latents)
    angle = (number + stretch * (num_latents - number))[:, None] * encoder.rotary_emb.inv_freq
    code = torch.cat([angle.cos(), angle.sin()], 1) * (_WIDTH / len(encoder.rotary_emb.inv_freq)) ** 0.5
    return nn.Embedding.from_pretrained(nn.functional.pad(code, (_WIDTH - _HEAD, 0)))


@torch.no_grad()
def set_lookups(encoder: Any, codes: torch.Tensor) -> None:
    """Set all that is not trained, and begin token embeddings as `codes`, `[vocabulary, 42]`."""
    embeddings, frequencies = encoder.get_input_embeddings().weight.zero_(), encoder.rotary_emb.inv_freq
    embeddings[:, :_CODE] = codes
    for layer in encoder.layers:
        for weight in layer.self_attn.parameters():
            weight.zero_()
    attention, size = encoder.layers[0].self_attn, (_WIDTH / len(frequencies)) ** 0.5
    attention.k_proj.bias[: len(frequencies)] = 1
    attention.v_proj.weight[:_CODE, :_CODE] = (_CODE / _WIDTH) ** 0.5 * torch.eye(_CODE)
    for head, offset in enumerate(OFFSETS):
        cos, sin = (offset * frequencies).cos().diag(), (offset * frequencies).sin().diag()
        turned = torch.cat([torch.cat([cos, sin], 1), torch.cat([sin, -cos], 1)])
        attention.q_proj.weight[head * _HEAD : (head + 1) * _HEAD, -_HEAD:] = _SHARPNESS / size * turned
        attention.o_proj.weight[head * _CODE : (head + 1) * _CODE, head * _HEAD : head * _HEAD + _CODE] = torch.eye(
            _CODE
        )
    _put_numbers_in_line(encoder.layers[0].mlp)


def _put_numbers_in_line(mlp: Any) -> None:
    """
    Some units of the first feed-forward layer begin with copying a number's digits to places that are counted from its
    first one, wherever in the stretch that is: a digit behind white space opens the gates of its turn.
    """
    for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        part.bias.zero_()
    size, unit = (_CODE / 3) ** 0.5 / 1.4, 0  # of a digit's and of a mark's entries in a normalised window
    for start in range(_STARTS):
        for place in range(_PLACES):
            for component in range(_DIGIT.stop):
                gate, up = mlp.gate_proj.weight[unit].zero_(), mlp.up_proj.weight[unit].zero_()
                gate[(start + 1) * _CODE + _IS_DIGIT] = gate[start * _CODE + _ENDS_WORD] = 6 / size
                mlp.gate_proj.bias[unit] = -9
                up[(start + 1 + place) * _CODE + component] = 1 / size
                down = mlp.down_proj.weight[:, unit].zero_()
                down[len(OFFSETS) * _CODE + place * _DIGIT.stop + component] = 1
                unit += 1


def is_set(encoder: Any) -> bool:
    """Whether attention is as [`set_lookups`] leaves it, and as no training does: keys are the same for all tokens."""
    return not encoder.layers[0].self_attn.k_proj.weight.any()


def trained_parameters(encoder: Any) -> list[nn.Parameter]:
    """Feed-forward layers, norms behind attention, and token embeddings."""
    parts = [part for layer in encoder.layers for part in (layer.mlp, layer.post_attention_layernorm)]
    return [weight for part in (*parts, encoder.norm) for weight in part.parameters()] + [encoder.embed_tokens.weight]


def windows_of(chunks: Sequence[Sequence[int]], num_latents: int, stretch: int, nothing: int) -> torch.Tensor:
    """The tokens at `OFFSETS` of each latent, int64 `[chunks, latents, 11]`: `nothing` behind the text; the first token
    before it, as that is what heads find there.
    """
    found = []
    for chunk in chunks:
        begins = len(chunk) - stretch * (num_latents - torch.arange(num_latents))
        places = (begins[:, None] + torch.tensor(OFFSETS)).clamp(min=0)
        found.append(torch.tensor([*chunk, nothing])[places.clamp(max=len(chunk))])
    return torch.stack(found)


def hidden_of_windows(encoder: Any, windows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """The encoder's last hidden states at `queries`, without its attention: what that finds are `windows`.

    Args:
        windows: of [`windows_of`], with the vocabulary's size for nothing.
        queries: `[..., width]`, alike in shape but for the last axis.
    """
    codes = encoder.layers[0].input_layernorm(encoder.embed_tokens.weight)[:, :_CODE] * (_CODE / _WIDTH) ** 0.5
    found = nn.functional.pad(codes, (0, 0, 0, 1))[windows].flatten(-2)
    hidden = queries + nn.functional.pad(found, (0, _WIDTH - found.shape[-1]))
    for layer in encoder.layers:
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return encoder.norm(hidden)


def codes_of(pieces: Sequence[str], counts: torch.Tensor) -> torch.Tensor:
    """Codes of tokens, of size 1: digits, white space, and principal components of which character is where.

    Args:
        pieces: each token's text.
        counts: how often each is seen.
    """
    letters = {
        letter: number for number, letter in enumerate(sorted({letter for piece in pieces for letter in piece}))
    }
    spelled = torch.zeros(len(pieces), 6, len(letters) + 1)
    for row, piece in zip(spelled, pieces, strict=True):
        for place, letter in enumerate(piece[:6]):
            row[place, letters[letter]] = 1
        row[min(len(piece), 6) - 1, -1] = 1  # where it ends
    weights = (counts + 1)[:, None].sqrt()
    centred = spelled.flatten(1) - (spelled.flatten(1) * weights**2).sum(0) / (weights**2).sum()
    weighted = (weights * centred).double()
    components = torch.linalg.eigh(weighted.T @ weighted)[1][:, _SPELLED.start - _CODE :].float()
    codes = torch.zeros(len(pieces), _CODE)
    codes[:, _SPELLED] = nn.functional.normalize(centred @ components)
    simplex = torch.linalg.svd(torch.eye(10) - 0.1)[0][:, : _DIGIT.stop]
    for code, piece in zip(codes, pieces, strict=True):
        if len(piece) == 1 and piece in "0123456789":
            code[_DIGIT], code[_IS_DIGIT] = nn.functional.normalize(simplex[int(piece)], dim=0), 1
        code[_ENDS_WORD] = float(piece[-1:].isspace())
    return nn.functional.normalize(codes)
