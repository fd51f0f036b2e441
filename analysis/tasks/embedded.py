"""The embedded model's question families as tasks: generated pictures, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from analysis.tasks.base import Task, TaskItem, check_samples, register
from lightkv.embedded import questions
from lightkv.errors import InvalidValueError

PREFIX = "embedded/"
EVERY_FAMILY = tuple(PREFIX + family for family in questions.FAMILIES)

# Words of the longest answer and its end: up to eight things of five words for a caption.
_MAX_NEW_TOKENS = {"read": 6, "list": 8, "caption": 44}
_SHORT_ANSWER = 4


@dataclass(frozen=True)
class EmbeddedFamily(Task):
    """One question family of :mod:`lightkv.embedded.questions`.

    Captions are scored by ROUGE-L, since one wrong word of forty is not a wrong caption; all other
    families have one right answer and are scored by exact match.

    Attributes:
        family: One of :data:`lightkv.embedded.questions.FAMILIES`.
    """

    family: str

    @property
    def name(self) -> str:
        """``embedded/`` and the family."""
        return PREFIX + self.family

    @property
    def metric(self) -> str:
        """ROUGE-L for captions, else exact match."""
        return "rouge_l" if self.family == "caption" else "exact"

    @property
    def max_new_tokens(self) -> int:
        """The longest answer of the family fits."""
        return _MAX_NEW_TOKENS.get(self.family, _SHORT_ANSWER)

    @property
    def fingerprint(self) -> str:
        """Constant: the generator is part of the code."""
        return "generated"

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """The first held-out questions of the family."""
        if samples is None:
            raise InvalidValueError("samples", samples, "a number; these questions have no end")
        check_samples(samples)
        return [
            TaskItem(
                index=item.index,
                identity=f"{seed}/{item.index}",
                images=(item.image,),
                question=item.question,
                answers=(item.answer,),
                cells=item.cells,
                earlier=item.earlier,
            )
            for item in questions.items(self.family, samples, seed=seed)
        ]


def _family(name: str, argument: str) -> EmbeddedFamily:
    if argument:
        raise InvalidValueError(f"argument of task {PREFIX}{name}", argument, "none")
    return EmbeddedFamily(name)


for _name in questions.FAMILIES:
    register(PREFIX + _name, partial(_family, _name))
