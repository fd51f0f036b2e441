"""Registries of questions: one function per kind, registered with one decorator line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Question:
    """A question, its only right answer, and the grid cells of the objects it asks about.

    Attributes:
        text: The user's text.
        answer: The expected text, words separated by single spaces.
        about: Cells of the objects; in a video and in a pair of pictures, cells are numbered on
            through the steps or the pictures.
        hint: Whether the text contains an answer that is ``right`` or ``wrong``, else ``none``.
        paraphrased: Whether it is worded in another than the first of several ways.
    """

    text: str
    answer: str
    about: tuple[int, ...] = ()
    hint: str = "none"
    paraphrased: bool = False


@dataclass(frozen=True)
class Registry(Generic[Subject]):
    """Question kinds about one sort of subject.

    Attributes:
        functions: By name; each asks a question about a subject, or returns None where the
            subject does not allow it.
        kinds: Names of the kinds, which are evaluated; the others are only asked in training.
    """

    functions: dict[str, Callable[[np.random.Generator, Subject], Question | None]] = field(
        default_factory=dict
    )
    kinds: list[str] = field(default_factory=list)

    def kind(
        self, name: str
    ) -> Callable[
        [Callable[[np.random.Generator, Subject], Question | None]],
        Callable[[np.random.Generator, Subject], Question | None],
    ]:
        """Register a question kind under ``name``."""
        self.kinds.append(name)
        return self.helper(name)

    def helper(
        self, name: str
    ) -> Callable[
        [Callable[[np.random.Generator, Subject], Question | None]],
        Callable[[np.random.Generator, Subject], Question | None],
    ]:
        """Register a question that is only asked while training."""

        def register(
            ask: Callable[[np.random.Generator, Subject], Question | None],
        ) -> Callable[[np.random.Generator, Subject], Question | None]:
            self.functions[name] = ask
            return ask

        return register

    def ask(self, name: str, rng: np.random.Generator, subject: Subject) -> Question | None:
        """Ask one question of the kind or helper ``name``; None where the subject allows none."""
        return self.functions[name](rng, subject)

    @property
    def helpers(self) -> tuple[str, ...]:
        """Names of the questions that are only asked in training."""
        return tuple(name for name in self.functions if name not in self.kinds)
