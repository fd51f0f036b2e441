"""The contract of an artefact: what a paper shows, its numbers, its claims, and our drawing.

An artefact is a value. It draws from a frame that a study returned; it never runs a model. Its
declaration is all there is to write: what lists, makes, tests or shows artefacts finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from figures.models import EMBEDDED
from figures.style import styled
from figures.verdicts import Verdict, untestable
from lightkv.embedded.location import ships
from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


PAPERS: Final = {"L": "LightKV", "T": "TGV-KV", "X": "both papers"}
"""What the first letter of an id says."""

_ID: Final = re.compile(r"([LTX])-([FT]?)(\d+)")
_KINDS: Final = ("F", "T", "")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and how to judge it.

    Attributes:
        sentence: What is claimed.
        source: Where, for example "TGV-KV, Table 1 (a)".
        judge: From the study's frame to a verdict.
        rule: What counts as holding, in words.
        main: Whether the paper rests on it, so that the report's first screen names it.
    """

    sentence: str
    source: str
    judge: Callable[[pd.DataFrame], Verdict]
    rule: str
    main: bool = False


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict


@dataclass(frozen=True)
class Published:
    """A score of a benchmark of a paper in lmms-eval.

    Attributes:
        full: Name of the task.
        lite: Name of its part of 500 questions; that of the whole where there is none.
        score: Which of its scores the paper prints.
    """

    full: str
    lite: str
    score: str


@dataclass(frozen=True)
class Artefact:
    """A figure or table of a paper, or one of our own across both.

    Attributes:
        id: "T-T5" is TGV-KV's Table 5, "L-F3" LightKV's Figure 3, "X-1" our own.
        title: One line.
        source: Where it stands in the paper, or whose it is.
        shows: What the paper shows there.
        study: Name of the study that yields the frame, in :mod:`analysis.studies`.
        plotted: From the study's frame to the numbers that the figure shows.
        draw: From the study's frame to a figure.
        table: From the study's frame to a table of our numbers beside the paper's.
        claims: What is to be judged.
        caption: What the figure shows, one or two sentences.
        explanation: How to read it.
        alt: What the picture shows, for those who can't see it.
        paper: Id of the paper's numbers in :mod:`figures.paper`, None where it prints none.
        options: What the study is called with besides its defaults.
        planned: What it is called with besides for the rows that ship: questions, seed and
            budgets, fixed before they were asked. Empty where none are to ship.
        seconds: What it usually takes on one core at the study's own number of questions.
        models: Embedded models that are asked where none is named; of several the frame has the
            rows of all.
        benchmarks: The paper's own, with the scores that it prints and that can be computed here;
            claims are judged on these scores where the benchmarks were asked.

    Raises:
        InvalidValueError: The id is not of that form.
    """

    id: str
    title: str
    source: str
    shows: str
    study: str
    plotted: Callable[[pd.DataFrame], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    table: Callable[[pd.DataFrame], pd.DataFrame]
    claims: tuple[Claim, ...]
    caption: str
    explanation: str
    alt: str
    paper: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    planned: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 10.0
    models: tuple[str, ...] = (EMBEDDED,)
    benchmarks: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidValueError("id of an artefact", self.id, "like L-F3, T-T5 or X-1")

    @property
    def place(self) -> tuple[str, int, int]:
        """Sort key: by paper, figures before tables, by number."""
        paper, kind, number = _ID.fullmatch(self.id).groups()  # type: ignore[union-attr]
        return paper, _KINDS.index(kind), int(number)

    @property
    def of(self) -> str:
        """Which paper it is of."""
        return PAPERS[self.id[0]]

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of its models whose weights don't ship yet."""
        return tuple(name for name in self.models if not ships(name))

    @property
    def lacking(self) -> str:
        """What would have to be here for it to be made where no model is named, "" for nothing."""
        return " and ".join(f"the weights of {name}" for name in self.absent)

    def figure(self, frame: pd.DataFrame) -> Figure:
        """The drawing, in the house style."""
        with styled():
            return self.draw(frame)

    def paper_numbers(self) -> pd.DataFrame | None:
        """The paper's printed numbers, None where it prints none."""
        from figures import paper

        return None if self.paper is None else paper.numbers(self.paper)

    def judge(self, frame: pd.DataFrame) -> tuple[Judged, ...]:
        """Every claim with its verdict."""
        rows = by_printed_score(frame, self.benchmarks)
        return tuple(Judged(claim, _judged(claim, rows)) for claim in self.claims)

    def verdicts(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Claims and verdicts as a table, for notebooks."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "claim": one.claim.sentence,
                    "verdict": one.verdict.outcome.value,
                    "p": one.verdict.p,
                    "numbers": one.verdict.reason,
                }
                for one in self.judge(frame)
            ]
        )


def by_printed_score(frame: pd.DataFrame, benchmarks: Iterable[Published]) -> pd.DataFrame:
    """The rows of a study, those of benchmarks once for each score that the paper prints.

    See :func:`analysis.scoring.leads.by_score`.
    """
    from analysis.scoring.benchmarks import PREFIX
    from analysis.scoring.leads import by_score

    scores: dict[str, list[str]] = {}
    for one in benchmarks:
        for task in {one.full, one.lite}:
            scores.setdefault(PREFIX + task, []).append(one.score)
    return by_score(frame, scores) if scores else frame


def _judged(claim: Claim, frame: pd.DataFrame) -> Verdict:
    if frame.empty:
        return untestable("the study returned no rows")
    return claim.judge(frame)
