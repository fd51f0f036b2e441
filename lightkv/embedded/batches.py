"""Training batches: pictures, and many questions about each packed into one text row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.embedded import question_kinds as kinds
from lightkv.embedded import scenes
from lightkv.embedded.canvas import SQUARE
from lightkv.embedded.registry import Question
from lightkv.embedded.vocabulary import EOS_ID, PAD_ID, PREFIX_IDS, UNKNOWN_ID, WORDS, encode

IGNORE: Final = -100
NO_TURN: Final = 10_000
_ASSISTANT: Final = encode("assistant :")
_USER: Final = encode("user :")
_LONG: Final = ("list", "caption")
_DIGITS: Final = ("read", "number_at")
NAMES: Final = kinds.QUESTION_KINDS + kinds.HELPERS

Columns = tuple[list[int], list[int], list[int], list[int], list[int], list[float]]


@dataclass(frozen=True)
class TextSettings:
    """How the questions of a picture are drawn and packed.

    Attributes:
        length: Text tokens per picture ``T``.
        weights: Relative frequency of every kind and helper but ``caption``.
        caption: Share of pictures that ask for a caption.
        conversation: Share of batches whose turns see each other.
        other_system: Share of pictures with a random system sentence.
        long_weight: Weight of a token of the long answers, list and caption.
    """

    length: int
    weights: Mapping[str, float]
    caption: float
    conversation: float = 0.4
    other_system: float = 0.1
    long_weight: float = 0.5


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        pixels: ``(B, 128, 128, 3)`` bytes.
        labels: Per-patch supervision, each ``(B, 256)``.
        prefix: ``(B, P)`` ids before the image.
        text: ``(B, T)`` ids after it.
        target: ``(B, T)``, the id where the answer is supervised, else ``IGNORE``.
        turn: ``(B, T)``, turn number from 1, 0 in a passage that all turns see, ``NO_TURN`` on
            padding.
        sees: ``(B, T)``, like ``turn`` but all ones in a conversation.
        position: ``(B, T)``, position counted from the end of the image.
        kind: ``(B, T)``, index into ``NAMES``, -1 on padding.
        weight: ``(B, T)``, weight of the token in the loss.
    """

    pixels: Tensor
    labels: dict[str, Tensor]
    prefix: Tensor
    text: Tensor
    target: Tensor
    turn: Tensor
    sees: Tensor
    position: Tensor
    kind: Tensor
    weight: Tensor


def make_batch(
    rng: np.random.Generator,
    count: int,
    settings: TextSettings,
    *,
    shapes: tuple[int, int],
    numbers: tuple[int, int],
) -> Batch:
    """Draw ``count`` pictures and their questions."""
    drawn = scenes.sample(rng, count, shapes=shapes, numbers=numbers)
    pixels = scenes.render(rng, drawn)
    together = bool(rng.random() < settings.conversation)
    rows = []
    for index in range(count):
        ask = partial(kinds.ask, rng=rng, subject=kinds.picture_of(drawn, index))
        rows.append(pack(rng, ask, settings, together))
    text, target, turn, position, kind, weight = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    prefix = np.tile(np.array(PREFIX_IDS), (count, 1))
    other = rng.random(count) < settings.other_system
    prefix[other, 3:7] = rng.integers(UNKNOWN_ID, len(WORDS), (int(other.sum()), 4))
    sees = np.where((turn < NO_TURN) & together, 1, turn)
    labels = scenes.patch_labels(drawn)
    return Batch(
        pixels=torch.from_numpy(pixels),
        labels={name: torch.from_numpy(field) for name, field in vars(labels).items()},
        prefix=torch.from_numpy(prefix),
        text=torch.from_numpy(text),
        target=torch.from_numpy(target),
        turn=torch.from_numpy(turn),
        sees=torch.from_numpy(sees),
        position=torch.from_numpy(position),
        kind=torch.from_numpy(kind),
        weight=torch.from_numpy(weight).float(),
    )


def pack(
    rng: np.random.Generator,
    ask: Callable[[str], Question | None],
    settings: TextSettings,
    together: bool,
    names: tuple[str, ...] = NAMES,
    passage: Sequence[int] = (),
) -> Columns:
    """Questions about one subject until the row is full.

    Args:
        rng: Says which kinds are asked, and in which order.
        ask: Asks a question of a kind, None if there is none.
        settings: How many tokens and of which kinds.
        together: Whether the turns form a conversation.
        names: Every kind there is.
        passage: Text of the user before the first question, which every turn sees.

    Returns:
        The columns text to weight of :class:`Batch`, without ``sees``.
    """
    kinds_asked = list(settings.weights)
    share = np.array(list(settings.weights.values()))
    order = [str(name) for name in rng.choice(kinds_asked, 24, p=share / share.sum())]
    if rng.random() < settings.caption:
        order.insert(0, "caption")
    packed: dict[str, tuple[str, list[int], list[int]]] = {}
    used = len(passage)
    for name in order:
        question = ask(name)
        if question is None or question.text in packed:
            continue
        start = (_USER if together else []) + encode(question.text)
        answer = [*encode(question.answer), EOS_ID]
        size = len(start) + len(_ASSISTANT) + len(answer)
        if used + size <= settings.length:
            packed[question.text] = (name, start + _ASSISTANT, answer)
            used += size
    entries = list(packed.values())
    shuffled = [entries[i] for i in rng.permutation(len(entries))]
    return _lay_out(shuffled, settings, together, names, list(passage))


def _lay_out(
    entries: list[tuple[str, list[int], list[int]]],
    settings: TextSettings,
    together: bool,
    names: tuple[str, ...],
    passage: list[int],
) -> Columns:
    text = [*passage]
    target = [IGNORE] * len(passage)
    turn = [0] * len(passage)
    position = list(range(len(passage)))
    kind = [-1] * len(passage)
    weight = [0.0] * len(passage)
    for number, (name, start, answer) in enumerate(entries, 1):
        if together and number == 1:
            start = start[len(_USER) :]
        size = len(start) + len(answer)
        first = len(text) if together else len(passage)
        text += start + answer
        target += [IGNORE] * len(start) + answer
        turn += [number] * size
        position += range(first, first + size)
        kind += [names.index(name)] * size
        weight += [0.0] * len(start) + _token_weights(name, len(answer), settings.long_weight)
    rest = settings.length - len(text)
    return (
        text + [PAD_ID] * rest,
        target + [IGNORE] * rest,
        turn + [NO_TURN] * rest,
        position + [0] * rest,
        kind + [-1] * rest,
        weight + [0.0] * rest,
    )


def _token_weights(name: str, size: int, long_weight: float) -> list[float]:
    """The end of an answer counts little, the first digit of a number double."""
    weights = [long_weight if name in _LONG else 1.0] * (size - 1) + [0.1]
    if name in _DIGITS:
        weights[0] = 2.0
    return weights


def attention_inputs(batch: Batch, kept: Tensor, prefix_length: int) -> tuple[Tensor, Tensor]:
    """Mask and positions for :class:`~lightkv.embedded.lean.LeanModel`.

    Args:
        batch: The batch.
        kept: Patch index of the image tokens in use ``(B, N)``.
        prefix_length: Tokens before the image.

    Returns:
        Additive mask ``(B, 1, T + 1, P + N + T)`` and positions ``(B, P + N + T)``.
    """
    ahead = torch.arange(prefix_length, device=kept.device).expand(len(kept), -1)
    after = batch.position + prefix_length + SQUARE.patches
    position = torch.cat([ahead, kept + prefix_length, after], 1)
    return attention_mask(batch, prefix_length + kept.shape[1]), position


def attention_mask(batch: Batch, start: int) -> Tensor:
    """What is added to the scores of the rows that predict text ``(B, 1, T + 1, start + T)``.

    Args:
        batch: The batch.
        start: Tokens before the text, which every turn sees.
    """
    seen = seen_by_text(batch.sees, start)
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -1e4)


def seen_by_text(sees: Tensor, start: int) -> Tensor:
    """Which tokens the rows that predict text see ``(B, 1, T + 1, start + T)``, boolean.

    Args:
        sees: Of :class:`Batch`, ``(B, T)``.
        start: Tokens before the text, which every turn sees.
    """
    sees = F.pad(sees, (start, 0))
    index = torch.arange(sees.shape[1], device=sees.device)
    earlier = index[start - 1 :, None] >= index
    # (B, T + 1, start + T): a row and a column of one turn
    same = (sees[:, None] == 0) | (sees[:, None] == sees[:, start - 1 :, None])
    return (earlier & same)[:, None]
