"""Attention of a model that runs elsewhere: rows of the question, by one nnsight trace.

nnsight ships the body of a trace as source to a server (NDIF) that has torch, transformers and
nnsight, and not this package. So the body reads what enters the attention of each layer and makes
the question's rows of the map of it, with torch alone; layout and checks stay here, and need the
config of the model but no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from analysis.probing.capture import decoder_layers
from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.families import family_of
from lightkv.inputs import completed

Where = Literal[True, False, "local"]
"""On the server, here, or here as the server would: shipped, unpacked without this package, run."""

PLAIN: Final = ("llama", "mistral", "qwen2")
"""Decoders whose attention is a product of rotated projections, and nothing else."""


@dataclass(frozen=True)
class RemoteAttention:
    """Attention of a prompt's question.

    Attributes:
        attention: (layers, heads, T, N), rows of the question's T tokens.
        layers: Which layers, ascending.
        layout: Of the prompt's N tokens.
    """

    attention: Tensor
    layers: tuple[int, ...]
    layout: TokenLayout

    @property
    def vision_mass(self) -> Tensor:
        """(layers,): attention of the question to vision tokens, summed over both and averaged over
        heads (TGV-KV, Eq. 5)."""
        return self.attention[..., self.layout.vision[0]].sum((-2, -1)).mean(-1)


def remote_attention(
    model: Any,
    inputs: Mapping[str, Tensor],
    *,
    layers: Sequence[int] | None = None,
    remote: Where = True,
) -> RemoteAttention:
    """Rows of the attention map from the question's tokens, of one prompt.

    Args:
        model: ``nnsight.modeling.transformers.TransformersModel`` of a hub id, whose weights are
            not loaded here, or of a model that is.
        inputs: Its processor's output for one prompt, as tensors: ``input_ids`` (1, N) and so on.
        layers: 0-based layers of the decoder, None for all.
        remote: Where it runs.

    Raises:
        InvalidValueError: A layer does not exist, or ``remote`` is not one of these.
        InputError: There are several prompts, or no question after the picture.
        UnsupportedError: The decoder's attention is computed in another way.
        UnknownNameError: The family of the model is unknown.
    """
    if remote not in get_args(Where):
        raise InvalidValueError("remote", remote, "True, False or 'local'")
    config = model.config
    text = config.get_text_config()
    batch = completed(inputs)
    _check_decoder(text, batch["input_ids"].shape[1])
    picked = decoder_layers(_facts(text), layers)
    layout = family_of(config.model_type).layout(config, batch)
    if layout.batch_size != 1:
        raise InputError(f"{layout.batch_size} prompts are given; pass one at a time")
    rows = layout.question[0].nonzero()[:, 0].tolist()
    if not rows:
        raise InputError("the prompt has no question after its picture")
    width = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    maps = _traced(model, dict(inputs), picked, rows, width, remote)
    return RemoteAttention(torch.stack([one.detach() for one in maps]), picked, layout)


def _traced(
    model: Any,
    inputs: dict[str, Tensor],
    layers: tuple[int, ...],
    rows: list[int],
    width: int,
    remote: Where,
) -> list[Tensor]:
    """Per layer the (heads, T, N) rows of its map; the body is shipped, and knows torch only."""
    decoder = model.model.language_model.layers
    with model.trace(inputs, remote=remote):
        maps: Any = list().save()  # type: ignore[attr-defined]  # noqa: C408
        for layer in layers:
            attention = decoder[layer].self_attn
            cos, sin = attention.inputs[1]["position_embeddings"]
            turned = []
            for states in (attention.q_proj.output, attention.k_proj.output):
                heads = states.unflatten(-1, (-1, width)).transpose(1, 2)  # (1, H, N, width)
                first, second = heads.chunk(2, dim=-1)
                swapped = torch.cat((-second, first), dim=-1)
                turned.append((heads * cos[:, None] + swapped * sin[:, None]).float())
            query, key = turned
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            logits = query[:, :, rows] @ key.transpose(-1, -2) * width**-0.5
            asking = torch.tensor(rows, device=key.device)[:, None]
            later = torch.arange(key.shape[2], device=key.device) > asking
            maps.append(logits.masked_fill(later, float("-inf")).softmax(-1)[0].cpu())
    read: list[Tensor] = maps
    return read


def _check_decoder(text: Any, tokens: int) -> None:
    kind = str(text.model_type)
    if kind not in PLAIN:
        raise UnsupportedError(
            f"attention of {kind} can't be read remotely; that of {', '.join(PLAIN)} can. Load the "
            "model here and use analysis.probing.probe"
        )
    window = getattr(text, "sliding_window", None)
    if window is not None and getattr(text, "use_sliding_window", True) and tokens > window:
        raise UnsupportedError(
            f"layers that attend to a window of {window} tokens can't be read remotely for a "
            f"prompt of {tokens}; load the model here and use analysis.probing.probe"
        )


def _facts(text: Any) -> ModelFacts:
    heads = int(text.num_attention_heads)
    return ModelFacts(
        layers=int(text.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        hidden_size=int(text.hidden_size),
    )
