"""The embedded model's question kinds as tasks: generated pictures, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from analysis.tasks.base import Task, TaskItem, check_samples, register
from lightkv.embedded import questions
from lightkv.errors import InvalidValueError

PREFIX = "embedded/"
EVERY_KIND = tuple(PREFIX + kind for kind in questions.QUESTION_KINDS)

# Words of the longest answer and its end: up to eight things of five words for a caption.
_MAX_NEW_TOKENS = {"read": 6, "list": 8, "caption": 44}
_SHORT_ANSWER = 4


@dataclass(frozen=True)
class EmbeddedKind(Task):
    """One question kind of :mod:`lightkv.embedded.questions`.

    Captions are scored by the ROUGE-L of caption tables, since one wrong word of forty is not a
    wrong caption; all other kinds have one right answer and are scored by exact match.

    Attributes:
        kind: One of :data:`lightkv.embedded.questions.QUESTION_KINDS`.
    """

    kind: str

    @property
    def name(self) -> str:
        """``embedded/`` and the kind."""
        return PREFIX + self.kind

    @property
    def metric(self) -> str:
        """ROUGE-L of coco-caption for captions, else exact match."""
        return "coco_rouge_l" if self.kind == "caption" else "exact"

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
                cells=item.cells,
                earlier=item.earlier,
            )
            for item in questions.items(self.kind, samples, seed=seed)
        ]


def _kind(name: str, argument: str) -> EmbeddedKind:
    if argument:
        raise InvalidValueError(f"argument of task {PREFIX}{name}", argument, "none")
    return EmbeddedKind(name)


for _name in questions.QUESTION_KINDS:
    register(PREFIX + _name, partial(_kind, _name))
