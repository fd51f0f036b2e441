"""What a task is: questions about images or videos, their right answers, and how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.prompting import QUESTION_FIRST, SECOND_TURN, Request

Cells = frozenset[tuple[int, int, int]]
Pictures = tuple[Image.Image | Path, ...]
Images = Pictures | Callable[[], Pictures]
Fact = str | int | float | bool
Factory = Callable[[str], "Task"]
Made = TypeVar("Made")


@dataclass(frozen=True)
class TaskItem:
    """One question.

    Attributes:
        index: Number of the question within its task and seed; the same question at any sample
            count.
        identity: Name of the question in its source.
        images: The pictures, files that are read when the question is asked, or what gives the
            pictures then.
        question: The user's text.
        answers: Reference answers.
        system: System text, None for the model's own.
        cells: (grid, row, column) vision tokens that the answer depends on, where the task knows
            them; a grid is a picture, or a step of a video, counted through the prompt.
        earlier: A question about the same images that comes before, for the protocol of two turns;
            None where the task has none.
        picture: Name of what the question is about, equal for questions about the same; "" for one
            that no other question is about.
        videos: Videos after the pictures, each a tuple of frames.
        facts: What the task says of the question besides, by name, such as whether it is led by a
            hint: columns of the rows by which scores can be told apart. No answer depends on them.
    """

    index: int
    identity: str
    images: Images
    question: str
    answers: tuple[str, ...]
    system: str | None = None
    cells: Cells = frozenset()
    earlier: str | None = None
    picture: str = ""
    videos: tuple[tuple[Image.Image, ...], ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def request(self, protocol: str = QUESTION_FIRST) -> Request:
        """The question as a model takes it.

        Args:
            protocol: One of :data:`lightkv.protocols.PROTOCOLS`. In the second turn the earlier
                question is the history, its answer left open.

        Raises:
            InputError: The protocol takes two turns and there is no earlier question.
        """
        history: tuple[tuple[str, str], ...] = ()
        if protocol == SECOND_TURN:
            if self.earlier is None:
                raise InputError(
                    f"question {self.identity!r} can't be asked as a {SECOND_TURN}: its task names "
                    "no earlier question about the same images"
                )
            history = ((self.earlier, ""),)
        return Request(self.pictures, self.question, history, self.system, self.videos)

    @property
    def pictures(self) -> Pictures:
        """The pictures, or their files."""
        return self.images() if callable(self.images) else self.images


@dataclass(frozen=True)
class Task(ABC):
    """A set of questions with a metric. Subclasses are frozen dataclasses of what defines them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in result rows."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """Name of the metric in :data:`analysis.scoring.metrics.METRICS`."""

    @property
    @abstractmethod
    def max_new_tokens(self) -> int:
        """Most tokens that an answer may have."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the questions of a seed would, or the pictures that they are about."""

    @property
    def truth(self) -> str:
        """Changes whenever the right answers would while the questions stay, if that can be."""
        return ""

    @property
    def source(self) -> Mapping[str, str]:
        """Where the questions come from, for readers of the results."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user, printed before the questions are asked."""
        return ()

    @abstractmethod
    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """The first ``samples`` questions (None: all) of a seed.

        Raises:
            InputError: The questions or their images can't be read.
            InvalidValueError: More questions are asked for than there are.
        """


_FACTORIES: dict[str, Factory] = {}
_CHECKS: dict[str, Callable[[str], object]] = {}


def register(name: str, factory: Factory, check: Callable[[str], object] | None = None) -> None:
    """Make ``factory`` answer to ``name``, or to ``name:argument``.

    Args:
        name: Of the task.
        factory: From the argument to the task.
        check: Refuses an argument as ``factory`` does, but loads nothing; None where that is quick.
    """
    _FACTORIES[name] = factory
    _CHECKS[name] = factory if check is None else check


def task_names() -> tuple[str, ...]:
    """Names of all tasks, sorted."""
    return tuple(sorted(_FACTORIES))


def task(spec: str) -> Task:
    """The task called ``name`` or ``name:argument``.

    Raises:
        UnknownNameError: No task has that name; the message lists the nearest ones.
        InvalidValueError: The argument is missing, or there is one too many.
    """
    return _named(spec, _FACTORIES)


def check_task(spec: str) -> None:
    """Refuse a task that :func:`task` would refuse, as far as that is known without its data.

    Raises:
        LightKVError: As :func:`task`.
    """
    _named(spec, _CHECKS)


def _named(spec: str, known: Mapping[str, Callable[[str], Made]]) -> Made:
    name, _, argument = spec.partition(":")
    if name not in known:
        raise UnknownNameError("task", name, known)
    return known[name](argument)


def check_samples(samples: int | None, available: int | None = None) -> None:
    """Raise :class:`InvalidValueError` unless that many questions can be asked."""
    if samples is None:
        return
    if samples < 1:
        raise InvalidValueError("samples", samples, "at least 1")
    if available is not None and samples > available:
        raise InvalidValueError("samples", samples, f"at most {available}, all that there are")
