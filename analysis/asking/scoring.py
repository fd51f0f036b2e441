"""Outcomes of answers: by the metric that a task names. No answer depends on anything here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from analysis import provenance
from analysis.asking.rows import Outcome, Scorer
from analysis.scoring.metrics import Metric, metric

if TYPE_CHECKING:
    from analysis.asking.store import Store
    from analysis.tasks import Task, TaskItem


class Scoring(Protocol):
    """How the answers to a task are scored."""

    @property
    def scorer(self) -> Scorer:
        """What outcomes depend on, for the store."""
        ...

    def outcomes(self, answers: Iterable[tuple[TaskItem, str]]) -> list[Outcome]:
        """The outcomes of answers to questions."""
        ...


def scoring_of(task: Task) -> Scoring:
    """The scoring that a task names.

    Raises:
        UnknownNameError: It names an unknown metric.
        UnsupportedError: Its scores need something that is not installed.
    """
    from analysis.lmms.task import LmmsTask

    if isinstance(task, LmmsTask):
        from analysis.lmms.scoring import LmmsScoring

        return LmmsScoring.of(task)
    return MetricScoring.of(task)


@dataclass(frozen=True)
class MetricScoring:
    """Scoring by one of our metrics.

    Attributes:
        metric: The metric.
        scorer: What outcomes depend on, for the store.
    """

    metric: Metric
    scorer: Scorer

    @classmethod
    def of(cls, task: Task) -> MetricScoring:
        """The scoring by the metric that a task names.

        Raises:
            UnknownNameError: It names an unknown one.
        """
        named = metric(task.metric)
        scorer = Scorer(
            metric=named.name,
            truth=task.truth,
            code=provenance.code_of([named.scores], []),
            libraries=json.dumps(provenance.scoring_versions(), sort_keys=True),
        )
        return cls(named, scorer)

    def outcomes(self, answers: Iterable[tuple[TaskItem, str]]) -> list[Outcome]:
        return [
            Outcome(
                item.index,
                item.answers,
                self.metric.score(text, item.answers) if self.metric.per_item else None,
            )
            for item, text in answers
        ]


def catch_up(scoring: Scoring, key: str, items: Sequence[TaskItem], store: Store) -> None:
    """Score stored answers to some questions that the scorer has not seen."""
    by_index: Mapping[int, TaskItem] = {item.index: item for item in items}
    answers = [
        (by_index[index], text)
        for index, text in store.unscored(key, scoring.scorer)
        if index in by_index
    ]
    if answers:
        store.score(key, scoring.scorer, scoring.outcomes(answers))
