"""Outcomes of benchmarks of lmms-eval: what its own functions make of an answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analysis import provenance
from analysis.asking.rows import Outcome, Scorer
from analysis.lmms import harness
from analysis.scoring import captions

if TYPE_CHECKING:
    from analysis.lmms.task import LmmsTask
    from analysis.tasks import TaskItem

SUBMISSION: Final = "submission"
"""What writes a file for a server; left out."""


@dataclass(frozen=True)
class LmmsScoring:
    """How the answers to a benchmark are scored.

    Attributes:
        task: The benchmark.
        scorer: What outcomes depend on, for the store.
    """

    task: LmmsTask
    scorer: Scorer

    @classmethod
    def of(cls, task: LmmsTask) -> LmmsScoring:
        """The scoring of a benchmark.

        Raises:
            UnsupportedError: Its scores need a program that is not installed.
        """
        if any(captions.is_caption_score(name) for name in task.lmms.aggregation()):
            captions.check_java()
        scorer = Scorer(
            metric=task.metric,
            truth="",
            code=f"{provenance.code_of([cls], [])}+{harness.code_beside(task.file)}",
            libraries=json.dumps({"lmms-eval": harness.version()}),
        )
        return cls(task, scorer)

    def outcomes(self, answers: Iterable[tuple[TaskItem, str]]) -> list[Outcome]:
        """What the harness makes of answers to questions."""
        return [self._outcome(item, text) for item, text in answers]

    def _outcome(self, item: TaskItem, text: str) -> Outcome:
        # The harness's functions change the documents that they are given.
        doc = copy.deepcopy(self.task.lmms.eval_docs_no_media[item.index])
        results = self.task.lmms.process_results(doc, [text])
        kept = {name: value for name, value in results.items() if name != SUBMISSION}
        return Outcome(item.index, item.answers, _score(kept), _packed(kept))


def _score(results: Mapping[str, Any]) -> float | None:
    """The first score that a question has by itself."""
    for value in results.values():
        score = value.get("score") if isinstance(value, Mapping) else value
        if isinstance(score, int | float):
            return float(score)
    return None


def _packed(results: Mapping[str, Any]) -> str:
    """Results as JSON, each once: captions have seven scores of the same texts."""
    by_value: dict[str, list[str]] = {}
    for name, value in results.items():
        by_value.setdefault(json.dumps(value, ensure_ascii=False, default=str), []).append(name)
    packed = [[names, json.loads(value)] for value, names in by_value.items()]
    return json.dumps({"results": packed}, ensure_ascii=False)
