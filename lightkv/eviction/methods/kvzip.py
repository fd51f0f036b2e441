"""KVzip, as our port to vision tokens: what the model reads again when it repeats the images.

*KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction*, Kim et al., NeurIPS 2025,
arXiv 2505.23416. The paper repeats text; no form for images was published. Here the images (and
what lies between them) are the context, fed a second time after the published instruction, and the
text before them is kept as the sinks are there. Nothing of a question is read, so the method needs
the question-agnostic protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_share
from lightkv.contract.compressor import Evictor, Observation, RepeatedReading
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.retention import Retention
from lightkv.contract.view import EntriesView, LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.eviction.evictor import require
from lightkv.eviction.parts.selections import keep_best

Competition = Literal["model", "layer", "head"]
ZipForm = Literal["exact", "released"]


@register("kvzip")
@dataclass(frozen=True)
class KVzip(RepeatedReading):
    """KVzip for vision tokens (our port): what is attended to while the images are repeated.

    An entry's score is the largest attention that it gets from any token of the repetition, in any
    query head of its KV head. All heads may hold different numbers of entries.

    Attributes:
        retention: Share of the context (from the first vision token on) that stays, in (0, 1]; the
            text before it stays as well.
        over: Who competes for it: the entries of all layers and heads of the "model", those of the
            heads of a "layer", or those of a "head".
        form: "exact" keeps as many as asked for. "released" rounds down, and over the model keeps
            what lies above the score of that rank: one entry less, and fewer where scores tie.
        instruction: What is fed between the context and its repetition.
    """

    retention: float
    over: Competition = "model"
    form: ZipForm = "exact"
    instruction: str = "\n\nRepeat the previous context exactly."

    @property
    def between(self) -> str:
        return self.instruction

    def check(self, facts: ModelFacts) -> None:
        check_share("retention", self.retention)
        if self.form == "released" and self.over == "layer":
            raise InvalidValueError("over", self.over, "'model' or 'head' where form is 'released'")
        if not self.instruction.strip():
            raise InvalidValueError("instruction", self.instruction, "words to feed")

    def check_layout(self, layout: TokenLayout) -> None:
        require(layout.vision, type(self).__name__, "a vision token (an image)")
        if not bool(layout.vision[:, -1].all()):
            raise InputError(
                f"{type(self).__name__} compresses images before a question is read, and this "
                "prompt goes on after them; use the question-agnostic protocol, or Session.read"
            )

    def decode_policy(self) -> DecodePolicy:
        return Grow()

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def score_repetition(self, view: LayerView, context: Tensor, repeated: Tensor) -> Tensor:
        if view.keys is None:
            raise UnsupportedError(f"layer {view.layer} has no keys to tell its KV heads from")
        attention, heads = view.read_attention(), view.keys.shape[1]
        best = torch.zeros(*view.keys.shape[:3], device=attention.device)
        for index, valid in attention.blocks(repeated):
            rows = attention.probabilities(index) * valid[:, None, :, None]  # (B, H, T, N)
            # Query heads of a KV head lie next to each other.
            largest = rows.amax(2).view(len(rows), heads, -1, rows.shape[3])
            best = torch.maximum(best, largest.amax(2))
        return best * context[:, None]

    def with_scores(self, scores: Sequence[Tensor]) -> Evictor:
        options = (self.retention, self.over, self.form, self.instruction)
        return ScoredKVzip(*options, tuple(scores))

    def observe(self, view: EntriesView) -> Observation:
        raise UnsupportedError(
            f"{type(self).__name__} has not seen the images repeated; use the question-agnostic "
            "protocol, or Session.read"
        )

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        layout = observations[0].layout
        context = context_of(layout)
        scores = torch.stack([seen.score for seen in observations], 1)  # (B, L, H_kv, N)
        if self.retention == 1:
            stays = context[:, None, None].expand_as(scores)
        elif self.form == "exact":
            stays = highest(scores, context, self.retention, self.over)
        else:
            stays = released(scores, context, self.retention, self.over)
        keep = (stays | ~context[:, None, None]) & layout.real[:, None, None]
        requested = self._requested(keep, layout, context)
        unused = layout.length if self.form == "released" else 0
        tail = torch.ones_like(layout.prompt_lengths)
        return [
            Retention.from_keep(
                keep[:, layer],
                requested[:, layer],
                requested[:, layer] / layout.prompt_lengths,
                tail,
                unused=unused,
            )
            for layer in range(len(observations))
        ]

    def _requested(self, keep: Tensor, layout: TokenLayout, context: Tensor) -> Tensor:
        """(B, L) float32: what each layer got of what was asked for, mean over its heads."""
        kept = keep.sum(3).double().mean(2)
        fixed = (layout.real & ~context).sum(1)
        asked = (fixed + self.retention * context.sum(1).double())[:, None]
        return (kept + asked - kept.mean(1, keepdim=True)).float()


@dataclass(frozen=True)
class ScoredKVzip(KVzip):
    """KVzip after the repetition.

    Attributes:
        scores: (B, H_kv, N) float32 of each layer, for the prompt as it is compressed.
    """

    scores: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return str(KVzip(self.retention, self.over, self.form, self.instruction))

    def observe(self, view: EntriesView) -> Observation:
        score = self.scores[view.layer]
        return Observation(view.layout, score, torch.ones(len(score), device=score.device))


def context_of(layout: TokenLayout) -> Tensor:
    """(B, N) bool: everything from the first vision token on."""
    return layout.real & (layout.kind != TokenKind.SYSTEM)


def highest(scores: Tensor, context: Tensor, retention: float, over: Competition) -> Tensor:
    """Mark the highest scores of the context.

    Args:
        scores: (B, L, H_kv, N).
        context: (B, N) bool.
        retention: Share of the context that is marked, to the nearest number.
        over: Within what scores compete.

    Returns:
        bool, of the shape of ``scores``.
    """
    batch, layers, heads, _ = scores.shape
    groups = {"model": 1, "layer": layers, "head": layers * heads}[over]
    together = layers * heads // groups  # heads that compete with each other
    # (B, L, H_kv, N) to (B, groups, heads together x N)
    pooled = scores.reshape(batch, groups, -1)
    tier = context[:, None].repeat(1, 1, together).long()
    budget = (context.sum(1).double() * retention * together).round().long()[:, None]
    best = keep_best(pooled, tier, budget).view(scores.shape)
    return best & context[:, None, None]


def released(scores: Tensor, context: Tensor, retention: float, over: Competition) -> Tensor:
    """As :func:`highest`, with the released arithmetic."""
    share = context.sum(1).double() * retention
    if over == "head":
        tier = context[:, None].long()
        best = keep_best(scores.flatten(1, 2), tier, share.long()[:, None])
        return best.view(scores.shape) & context[:, None, None]
    lowest = threshold(scores, context, retention)[:, None, None, None]
    return (scores > lowest) & context[:, None, None]


def threshold(scores: Tensor, context: Tensor, retention: float) -> Tensor:
    """(B,) the score above which the released code keeps entries of all layers and heads."""
    _, layers, heads, _ = scores.shape
    candidates = scores.masked_fill(~context[:, None, None], -torch.inf).flatten(1)
    rank = ((context.sum(1) * layers * heads).double() * retention).long() - 1
    ordered = candidates.sort(1, descending=True).values
    return ordered.gather(1, rank.clamp_min(0)[:, None])[:, 0]
