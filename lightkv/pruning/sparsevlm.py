"""SparseVLM: question words that look at the image rate the vision tokens; the rest is recycled.

*SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference*, Zhang et
al., ICML 2025, arXiv 2410.04417.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.checks import check_stages, require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction, compact
from lightkv.contract.registry import register
from lightkv.contract.rotary import logits_of_places
from lightkv.contract.view import LayerView, ModelFacts, PromptInputs
from lightkv.errors import InputError, InvalidValueError
from lightkv.pruning.density import cluster_centres
from lightkv.pruning.selection import top

# Vision tokens kept after layers 2, 6 and 15, by the average that they stand for.
TABLE = {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)}
TABLE_PLUS = {
    192: (300, 200, 118),
    128: (238, 108, 60),
    96: (246, 54, 28),
    64: (66, 34, 20),
}


@register("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(Reducer):
    """Keep the vision tokens that the rating question tokens attend to most, stage by stage.

    Of what a stage drops the best-rated 30 % (rounded down, plus one) are clustered into a tenth
    as many groups (rounded down, plus one) by density peaks, and each group's mean stays, at the
    place of the group's centre. A stage never keeps more than all vision tokens but one.

    Attributes:
        layers: 0-based layers after which a stage acts.
        kept: Vision tokens kept at each stage, besides recycled ones; see ``TABLE``.
        recycle: Cluster dropped tokens (version 1); "+" does not.
        heads: Heads that count: those with the most attention from raters to vision tokens; None
            for all. "+" takes 14.
        correct_rotary: Divide each attention by the logit that its places alone would give (of
            queries and keys of nothing but ones), as "+" does. That logit may be near zero, or
            below.
        positions: Survivors are renumbered ("reindex", version 1) or "keep" their position ("+");
            see :data:`~lightkv.contract.compressor.Positions`.
    """

    layers: tuple[int, ...] = (2, 6, 15)
    kept: tuple[int, ...] = TABLE[192]
    recycle: bool = True
    heads: int | None = None
    correct_rotary: bool = False
    positions: Positions = "reindex"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """The field ``layers``."""
        return self.layers

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """All stage layers."""
        return self.layers

    def needs_inputs(self) -> bool:
        """True: raters are chosen on the input embeddings."""
        return True

    def needs_rotary(self) -> bool:
        """True where attention is corrected for it."""
        return self.correct_rotary

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages and heads that the model does not have and numbers of tokens below 1."""
        check_stages(self.layers, facts)
        if self.heads is not None and not 1 <= self.heads <= facts.heads:
            raise InvalidValueError("heads", self.heads, f"None, or from 1 to {facts.heads}")
        if len(self.kept) != len(self.layers) or min(self.kept) < 1:
            allowed = f"{len(self.layers)} numbers of at least 1"
            raise InvalidValueError("kept", self.kept, allowed)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without an image or without text after it."""
        require_vision(layout)
        if not bool(layout.question.any(1).all()):
            raise InputError("SparseVLM needs text after the image to rate it")

    def reduce(self, view: LayerView) -> Reduction:
        """Prune, and recycle part of what is dropped."""
        layout = view.layout
        score = self._scores(view, self._raters(view))
        present = layout.vision.sum(1)
        wanted = self.kept[self.layers.index(view.layer)]
        counts = (present - 1).clamp(0, wanted)
        stays = top(score, layout.vision, counts)
        tokens = torch.arange(layout.length, device=score.device)
        representative = torch.where(layout.text | stays, tokens, -1)
        if self.recycle:
            dropped = layout.vision & ~stays
            share = (dropped.sum(1).double() * 0.3).floor().long() + 1
            recycled = top(score, dropped, share)
            centre = cluster_centres(view.hidden, recycled, recycled.sum(1) // 10 + 1)
            representative = torch.where(recycled, centre, representative)
        return Reduction.from_groups(representative, torch.ones_like(score))

    def _scores(self, view: LayerView, rating: Tensor) -> Tensor:
        """(B, N) attention of the raters, mean over the heads that count."""
        attention = view.read_attention()
        if self.heads is None and not self.correct_rotary:
            return attention.column_sums(rating)
        places = None
        if self.correct_rotary and view.keys is not None:
            places = logits_of_places(view.read_rotary(), view.keys.shape[-1])
            places = places.expand(len(rating), -1, -1)
        paid = torch.zeros(len(rating), attention.heads, attention.length, device=rating.device)
        for tile in attention.tiles(rating):
            block = tile.attention.probabilities(tile.index)  # (B, heads of the tile, T, N)
            if places is not None:
                where = tile.index[..., None].expand(-1, -1, attention.length)
                block = block / places.gather(1, where)[:, None]
            paid[:, tile.heads] += (block * tile.valid[:, None, :, None]).sum(2)
        if self.heads is None:
            return paid.mean(1)
        mass = (paid * view.layout.vision[:, None]).sum(-1)
        counting = top(mass, torch.ones_like(mass, dtype=torch.bool), _all(mass, self.heads))
        return (paid * counting[..., None]).sum(1) / self.heads

    def _raters(self, view: LayerView) -> Tensor:
        """(B, N) bool: the rating question tokens, at their places in this layer."""
        inputs = view.read_inputs()
        rating = raters(inputs)
        most = int(inputs.layout.position.max()) + 1
        table = torch.zeros(len(rating), most + 1, dtype=torch.bool, device=rating.device)
        spare = torch.where(inputs.layout.real, inputs.layout.position, most)
        table.scatter_(1, spare, rating)
        return table.gather(1, view.layout.position.clamp_min(0)) & view.layout.question


@register("sparsevlm-plus")
def sparsevlm_plus(average: Literal[192, 128, 96, 64] = 192) -> SparseVLM:
    """SparseVLM+: as its authors' second version, nothing recycled, corrected for the places.

    Args:
        average: Vision tokens that the counts stand for, over all layers.
    """
    return SparseVLM(
        kept=TABLE_PLUS[average], recycle=False, heads=14, correct_rotary=True, positions="keep"
    )


def _all(like: Tensor, count: int) -> Tensor:
    """(B,) int64, the same count in every row."""
    return torch.full((len(like),), count, device=like.device)


def raters(inputs: PromptInputs) -> Tensor:
    """Question tokens to which the vision tokens are more similar than on average.

    Each vision embedding spreads a softmax over the question embeddings by dot product; a question
    token rates if its mean share exceeds the mean of all. If none does, all of them rate.

    Returns:
        (B, N0) bool.
    """
    layout = inputs.layout
    seen, is_seen = compact(layout.vision)
    said, is_said = compact(layout.question)
    hidden = inputs.hidden.to(torch.promote_types(inputs.hidden.dtype, torch.float32))
    width = hidden.shape[-1]
    images = hidden.gather(1, seen[..., None].expand(-1, -1, width))  # (B, V, D)
    words = hidden.gather(1, said[..., None].expand(-1, -1, width))  # (B, W, D)
    logits = (images @ words.transpose(1, 2)).masked_fill(~is_said[:, None], -torch.inf)
    shares = torch.softmax(logits, -1) * is_seen[..., None]
    mean = torch.where(is_said, shares.sum(1) / is_seen.sum(1, keepdim=True).clamp_min(1), 0)
    average = mean.sum(1, keepdim=True) / is_said.sum(1, keepdim=True).clamp_min(1)
    above = is_said & (mean > average)
    above = torch.where(above.any(1, keepdim=True), above, is_said)
    marked = torch.zeros(len(said), layout.length + 1, dtype=torch.bool, device=hidden.device)
    marked.scatter_(1, torch.where(is_said, said, layout.length), above)
    return marked[:, :-1] & layout.question
