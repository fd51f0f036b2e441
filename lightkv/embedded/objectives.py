"""Losses and running scores of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightkv.embedded import vocabulary as words
from lightkv.embedded.batches import IGNORE, NAMES, NO_TURN

if TYPE_CHECKING:
    from torch.nn import Embedding

PATCH_CLASSES: Final = {
    "color": len(words.COLORS) + 1,
    "kind": len(words.SHAPES) + 2,
    "digit": len(words.DIGITS) + 1,
    "center": len(words.SHAPES) + 2,
    "place": len(words.PLACES) + 1,
    "row": len(words.ROWS) + 1,
    "column": len(words.COLUMNS) + 1,
}
"""Classes of every patch label, nothing included."""

_NAMED: Final = {
    "color": words.COLORS,
    "kind": (*words.SHAPES, "number"),
    "digit": words.DIGITS,
    "place": words.PLACES,
    "row": words.ROWS,
    "column": words.COLUMNS,
}
_BACKGROUND_WEIGHT: Final = 0.15


class PatchHeads(nn.Module):
    """Linear classifiers of the patch features; discarded after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(PATCH_CLASSES.values()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, features: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Loss and (right, all) object patches per label; ``features`` is ``(B, N, D)``."""
        logits = self.linear(features.float()).split(list(PATCH_CLASSES.values()), -1)
        loss = features.new_zeros((), dtype=torch.float32)
        score = {}
        for (name, classes), logit in zip(PATCH_CLASSES.items(), logits, strict=True):
            weight = torch.ones(classes, device=logit.device)
            weight[0] = _BACKGROUND_WEIGHT
            loss = loss + F.cross_entropy(logit.flatten(0, 1), labels[name].flatten(), weight)
            shown = labels[name] > 0
            right = (logit.argmax(-1) == labels[name]) & shown
            score[name] = (right.sum(), shown.sum())
        return loss, score


class WordAlignment(nn.Module):
    """An image token should be closest to the words for what its patch shows.

    The similarity is the dot product with the tied word embeddings, that is the language model's
    own output layer. One learned threshold per label stands for "nothing".
    """

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(len(_NAMED)))
        ids = [words.TOKEN[word] for names in _NAMED.values() for word in names]
        # On the model's device once: a list that is copied there at every step waits for the GPU.
        self.register_buffer("ids", torch.tensor(ids), persistent=False)
        self.ids: Tensor

    def forward(self, image: Tensor, embed: Embedding, labels: dict[str, Tensor]) -> Tensor:
        """Loss of image tokens ``(B, N, D)`` with labels ``(B, N)``."""
        loss = image.new_zeros((), dtype=torch.float32)
        similarities = F.linear(image.float(), embed.weight[self.ids])
        parts = torch.split(similarities, [len(names) for names in _NAMED.values()], -1)
        for index, (name, similarity) in enumerate(zip(_NAMED, parts, strict=True)):
            nothing = self.nothing[index].expand(*similarity.shape[:2], 1)
            logit = torch.cat([nothing, similarity], -1)
            loss = loss + F.cross_entropy(logit.flatten(0, 1), labels[name].flatten())
        return loss


def answer_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean cross entropy of the answer tokens.

    Args:
        logits: ``(B, T, V)``.
        target: Ids ``(B, T)``, ``IGNORE`` where nothing is supervised.
        weight: ``(B, T)``.
    """
    loss = F.cross_entropy(
        logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return (loss * weight.flatten()).sum() / weight.sum()


def exact_answers(
    logits: Tensor, target: Tensor, turn: Tensor, kind: Tensor, names: tuple[str, ...] = NAMES
) -> dict[str, tuple[int, int]]:
    """(right, all) turns per question name, every token of the answer right (teacher forced).

    Args:
        logits: ``(B, T, V)``.
        target: Ids ``(B, T)``, ``IGNORE`` where nothing is supervised.
        turn: Number of the turn ``(B, T)``, ``NO_TURN`` on padding.
        kind: Index into ``names`` ``(B, T)``, -1 where no question stands.
        names: Every question there is.
    """
    right = (logits.argmax(-1) == target) | (target == IGNORE)
    turns = 64
    inside = turn < NO_TURN
    row = torch.arange(len(turn), device=turn.device)[:, None] * turns
    key = (row + turn)[inside]
    cells = len(turn) * turns
    good = torch.ones(cells, dtype=torch.int64, device=key.device)
    good = good.scatter_reduce(0, key, right[inside].long(), "amin")
    asked = torch.full((cells,), -1, device=key.device).scatter(0, key, kind[inside])
    total = torch.bincount(asked[asked >= 0], minlength=len(names)).tolist()
    hits = torch.bincount(asked[(asked >= 0) & (good > 0)], minlength=len(names)).tolist()
    return {name: (hits[i], total[i]) for i, name in enumerate(names) if total[i]}
