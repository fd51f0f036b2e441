"""The contract of an artefact: what a paper shows, its numbers, its claims, and our drawing.

An artefact is a value. It draws from a frame that a study returned; it never runs a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.style import styled
from figures.verdicts import Verdict, untestable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and how to judge it.

    Attributes:
        sentence: What is claimed.
        source: Where, for example "TGV-KV, Table 1 (a)".
        judge: From the study's frame to a verdict.
        rule: What counts as holding, in words.
    """

    sentence: str
    source: str
    judge: Callable[[pd.DataFrame], Verdict]
    rule: str


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict


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
        return tuple(Judged(claim, _judged(claim, frame)) for claim in self.claims)

    def verdicts(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Claims and verdicts as a table, for notebooks."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "claim": one.claim.sentence,
                    "verdict": one.verdict.outcome.value,
                    "numbers": one.verdict.reason,
                }
                for one in self.judge(frame)
            ]
        )


def _judged(claim: Claim, frame: pd.DataFrame) -> Verdict:
    if frame.empty:
        return untestable("the study returned no rows")
    return claim.judge(frame)
