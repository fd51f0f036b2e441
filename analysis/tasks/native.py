"""The native-resolution model's question kinds as tasks: pictures of any size, pairs and videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analysis.scoring.kinds import metric_of_kind
from analysis.tasks.base import Task, TaskItem, check_samples
from lightkv.embedded.qwen.items import KINDS, native_items
from lightkv.errors import InvalidValueError, UnknownNameError

NAME: Final = "embedded-qwen"

# Words of the longest answer and its end: up to eight things of five words for a caption.
_MAX_NEW_TOKENS: Final = {"read": 6, "list": 8, "caption": 44, "changes": 6}
_SHORT_ANSWER: Final = 4


@dataclass(frozen=True)
class NativeKind(Task):
    """One kind of :func:`lightkv.embedded.qwen.items.native_items`.

    Attributes:
        kind: One of :data:`lightkv.embedded.qwen.items.KINDS`.
    """

    kind: str

    @classmethod
    def named(cls, argument: str) -> NativeKind:
        """The task ``embedded-qwen:KIND``.

        Raises:
            UnknownNameError: There is no such kind.
        """
        if argument not in KINDS:
            raise UnknownNameError(f"question kind of {NAME}:KIND", argument, KINDS)
        return cls(argument)

    @property
    def name(self) -> str:
        """``embedded-qwen/`` and the kind."""
        return f"{NAME}/{self.kind}"

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
                images=item.images,
                videos=(item.frames,) if item.frames else (),
                question=item.question,
                answers=(item.answer,),
                cells=item.cells,
                earlier=item.earlier,
            )
            for item in native_items(self.kind, samples, seed=seed)
        ]
