"""Question kinds that are drawn from a seed: a part of each is held out, and there is no end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from analysis.scoring.kinds import metric_of_kind
from analysis.tasks.base import Task, TaskItem, check_samples
from lightkv.errors import InvalidValueError

# Words of the longest answer and its end: up to eight things of five words for a caption.
_MAX_NEW_TOKENS: Final = {"read": 6, "list": 8, "caption": 44, "changes": 6}
_SHORT_ANSWER: Final = 4


@dataclass(frozen=True)
class GeneratedKind(Task):
    """One kind of questions that an embedded model was trained for.

    Attributes:
        kind: Which.
        model: Whose questions they are, the first part of the task's name.
    """

    kind: str
    model: ClassVar[str]

    @property
    def name(self) -> str:
        """The model, a slash and the kind."""
        return f"{self.model}/{self.kind}"

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
        """The first held-out questions of the kind.

        Raises:
            InvalidValueError: ``samples`` is not a number of at least 1.
        """
        if samples is None:
            raise InvalidValueError("samples", samples, "a number; these questions have no end")
        check_samples(samples)
        return list(self.drawn(samples, seed))

    @abstractmethod
    def drawn(self, samples: int, seed: int) -> Iterable[TaskItem]:
        """The first ``samples`` held-out questions of a seed."""
