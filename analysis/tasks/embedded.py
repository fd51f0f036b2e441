"""The embedded model's question kinds as tasks: generated pictures, nothing to download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from analysis.tasks.base import TaskItem, register
from analysis.tasks.generated import GeneratedKind
from lightkv.embedded import questions
from lightkv.embedded.question_kinds import QUESTION_KINDS
from lightkv.errors import InvalidValueError

NAME = "embedded"
PREFIX = f"{NAME}/"
EVERY_KIND = tuple(PREFIX + kind for kind in QUESTION_KINDS)


@dataclass(frozen=True)
class EmbeddedKind(GeneratedKind):
    """One of :data:`lightkv.embedded.question_kinds.QUESTION_KINDS`."""

    model = NAME

    def drawn(self, samples: int, seed: int) -> Iterator[TaskItem]:
        """Of :func:`lightkv.embedded.questions.items`."""
        for item in questions.items(self.kind, samples, seed=seed):
            yield TaskItem(
                index=item.index,
                identity=f"{seed}/{item.index}",
                images=(item.image,),
                question=item.question,
                answers=(item.answer,),
                cells=frozenset((0, row, column) for row, column in item.cells),
                earlier=item.earlier,
            )


def _kind(name: str, argument: str) -> EmbeddedKind:
    if argument:
        raise InvalidValueError(f"argument of task {PREFIX}{name}", argument, "none")
    return EmbeddedKind(name)


for _name in QUESTION_KINDS:
    register(PREFIX + _name, partial(_kind, _name))
