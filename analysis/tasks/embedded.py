"""The embedded model's question kinds as tasks: generated pictures, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from analysis.scoring.kinds import metric_of_kind
from analysis.tasks.base import Task, TaskItem, check_samples, register
from lightkv.embedded import questions
from lightkv.embedded.question_kinds import QUESTION_KINDS
from lightkv.errors import InvalidValueError

PREFIX = "embedded/"
EVERY_KIND = tuple(PREFIX + kind for kind in QUESTION_KINDS)

# Words of the longest answer and its end: up to eight things of five words for a caption.
_MAX_NEW_TOKENS = {"read": 6, "list": 8, "caption": 44}
_SHORT_ANSWER = 4


@dataclass(frozen=True)
class EmbeddedKind(Task):
    """One question kind of :mod:`lightkv.embedded.questions`.

    Attributes:
        kind: One of :data:`lightkv.embedded.question_kinds.QUESTION_KINDS`.
    """

    kind: str

    @property
    def name(self) -> str:
        """``embedded/`` and the kind."""
        return PREFIX + self.kind

    @property
    def metric(self) -> str:
        """See :mod:`analysis.scoring.kinds`."""
        return metric_of_kind(self.kind)

    @property
    def max_new_tokens(self) -> int:
        """The longest answer of the kind fits."""
        return _MAX_NEW_TOKENS.get(self.kind, _SHORT_ANSWER)

    @property
    def fingerprint(self) -> str:
        """Constant: the generator is part of the code."""
        return "generated"

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """The first held-out questions of the kind."""
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
                cells=frozenset((0, row, column) for row, column in item.cells),
                earlier=item.earlier,
            )
            for item in questions.items(self.kind, samples, seed=seed)
        ]


def _kind(name: str, argument: str) -> EmbeddedKind:
    if argument:
        raise InvalidValueError(f"argument of task {PREFIX}{name}", argument, "none")
    return EmbeddedKind(name)


for _name in QUESTION_KINDS:
    register(PREFIX + _name, partial(_kind, _name))
