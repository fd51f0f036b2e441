"""How sure each answer was: its tokens, and by how much the first choice led the second.

Two machines round differently, so an answer may change where two tokens are nearly as likely. The
smallest lead over an answer's tokens tells such a change from one of code or of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lightkv.prompting import SECOND_TURN

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.asking.rows import Row
    from lightkv import VLM

_DIGITS: Final = 12


@dataclass(frozen=True)
class Decision:
    """How one question was answered.

    Attributes:
        item: Which question of the task.
        tokens: Digest of the most likely token at each step of the answer; 12 hexadecimal digits.
        gap: Smallest difference of the two largest logits over these steps, and over those of the
            answer before it where that is part of what is read.
    """

    item: int
    tokens: str
    gap: float

    def values(self) -> tuple[Any, ...]:
        """Digest and gap, to four digits."""
        return self.tokens, float(f"{self.gap:.4g}")


class Steps:
    """What the output layer says at each step of a batch.

    Args:
        stops: Ids of tokens that end an answer.
    """

    def __init__(self, stops: Sequence[int]) -> None:
        self.stops = frozenset(stops)
        self._best: list[Tensor] = []
        self._gaps: list[Tensor] = []

    def see(self, module: object, inputs: object, logits: Tensor) -> None:
        """Note the most likely token of each row, and its lead; ``logits`` is (B, N, V)."""
        two = logits[:, -1].float().topk(2)
        self._best.append(two.indices[:, 0])
        self._gaps.append(two.values[:, 0] - two.values[:, 1])

    def decisions(self, rows: Sequence[Row], protocol: str) -> list[Decision]:
        """One decision a row of the batch.

        Args:
            rows: What was answered, in the order of the batch.
            protocol: Under which; an earlier turn's answer counts under the second-turn one.
        """
        best = [step.tolist() for step in self._best]
        gaps = [step.tolist() for step in self._gaps]
        first = len(best) - max(row.generated_tokens for row in rows)
        decisions = []
        for number, row in enumerate(rows):
            steps = range(first, first + row.generated_tokens)
            tokens = [best[step][number] for step in steps]
            earlier: list[int] = []
            if protocol == SECOND_TURN:
                earlier = self._until_stop([one[number] for one in best[:first]])
            gap = min(gaps[step][number] for step in (*earlier, *steps))
            digest = hashlib.sha256(",".join(map(str, tokens)).encode()).hexdigest()
            decisions.append(Decision(row.item, digest[:_DIGITS], gap))
        return decisions

    def _until_stop(self, tokens: Sequence[int]) -> list[int]:
        """Steps up to the first token that ends an answer."""
        ends = [step for step, token in enumerate(tokens) if token in self.stops]
        return list(range(ends[0] + 1 if ends else len(tokens)))


@contextmanager
def watched(vlm: VLM) -> Iterator[Steps]:
    """Watch the output layer while something is asked; nothing stays on the model."""
    steps = Steps(sorted(vlm.stop_tokens))
    handle = vlm.model.get_output_embeddings().register_forward_hook(steps.see)
    try:
        yield steps
    finally:
        handle.remove()
