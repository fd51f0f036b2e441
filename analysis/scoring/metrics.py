"""Metrics: an answer and its references in, a score out.

Each metric is one function, registered in one line. Most score a question by itself; CIDEr weighs
words by how rare they are in the whole set of references, so it is computed over a corpus and its
per-question numbers hold for that corpus only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from analysis.scoring import vqa
from lightkv.errors import InputError, InvalidValueError, UnknownNameError

References = Sequence[Sequence[str]]
Scores = Callable[[Sequence[str], References], list[float]]
OneScore = Callable[[str, Sequence[str]], float]

RELAXED_TOLERANCE: Final = 0.05
_PERCENT: Final = "%"
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Metric:
    """A named metric.

    Attributes:
        name: Key in :data:`METRICS`.
        scores: Scores of answers against their references, one per question.
        per_item: Whether a question's score is independent of the other questions.
        binary: Whether a score is 0 or 1 only.
        minimum_references: Fewest references with which the metric can reach its maximum.
    """

    name: str
    scores: Scores
    per_item: bool = True
    binary: bool = False
    minimum_references: int = 1

    def score(self, answer: str, references: Sequence[str]) -> float:
        """Score of one question.

        Raises:
            InvalidValueError: The metric is defined on a corpus only.
        """
        if not self.per_item:
            raise InvalidValueError("metric", self.name, "a metric that scores single questions")
        return self.scores([answer], [references])[0]

    def check(self, references: Sequence[str]) -> None:
        """Raise :class:`InputError` if there are too few references."""
        if len(references) < self.minimum_references:
            raise InputError(
                f"{self.name} needs at least {self.minimum_references} reference answers a "
                f"question, there are {len(references)}"
            )


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Add a metric to :data:`METRICS`."""
    METRICS[metric.name] = metric
    return metric


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UnknownNameError: No metric has that name; the message lists the nearest ones.
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]


def normalise(text: str) -> str:
    """Case, Unicode form, white space and punctuation around the text don't count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" .,;:!?\"'")


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the normalised answer equals a normalised reference."""
    return float(normalise(answer) in {normalise(reference) for reference in references})


def relaxed_accuracy(answer: str, references: Sequence[str]) -> float:
    """1 if a number is within 5 % of a reference, or a text equals it (ChartQA, Masry et al. 2022).

    A reference of zero, and any text, must be met exactly. "5 %" is read as 0.05; "inf" is a text.
    """
    return float(any(_relaxed_equal(answer, reference) for reference in references))


def anls(answer: str, references: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity, 0 below 0.5 (DocVQA), best of the references."""
    from anls_star import anls_score

    similarity: Any = anls_score(tuple(references), answer)
    return float(similarity)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words, best of the references (Lin 2004).

    As the rouge-score package computes it, which is not what caption tables print: see
    :func:`coco_rouge_l`.
    """
    best = _rouge().score_multi(list(references), answer)
    return float(best["rougeL"].fmeasure)


def coco_rouge_l(answer: str, references: Sequence[str]) -> float:
    """ROUGE-L of coco-caption, which caption tables print (beta 1.2, so recall counts for more).

    The best precision and the best recall are taken apart, of whichever reference each is. Words
    are split as for :func:`cider`. An answer without a word scores 0.
    """
    from pycocoevalcap.rouge.rouge import Rouge

    candidate, wanted = words(answer), [text for text in map(words, references) if text]
    if not (candidate and wanted):
        return 0.0
    return float(Rouge().calc_score([candidate], wanted))


def cider(answers: Sequence[str], references: References) -> list[float]:
    """CIDEr-D of each answer, 0 to 10 (Vedantam et al., CVPR 2015).

    Inverse document frequencies come from these references, one document a question; a corpus of
    one question scores 0. Words are split by a regular expression in place of the Java tokeniser
    of coco-caption, which treats a few abbreviations and hyphens differently.
    """
    from pycocoevalcap.cider.cider import Cider

    if not answers:
        return []
    candidates = {number: [words(answer)] for number, answer in enumerate(answers)}
    wanted = {
        number: [words(reference) for reference in texts] for number, texts in enumerate(references)
    }
    _, scores = Cider().compute_score(wanted, candidates)
    return [float(score) for score in scores]


def each(score: OneScore) -> Scores:
    """A per-question score as a function of many questions."""

    def scores(answers: Sequence[str], references: References) -> list[float]:
        return [score(answer, texts) for answer, texts in zip(answers, references, strict=True)]

    return scores


register(Metric("exact", each(exact_match), binary=True))
register(Metric("relaxed_accuracy", each(relaxed_accuracy), binary=True))
register(Metric("anls", each(anls)))
register(Metric("rouge_l", each(rouge_l)))
register(Metric("coco_rouge_l", each(coco_rouge_l)))
register(Metric("vqa_accuracy", each(vqa.accuracy), minimum_references=vqa.MINIMUM_REFERENCES))
register(Metric("cider", cider, per_item=False))


def words(text: str) -> str:
    """The words of a caption in lower case with one space between them, without punctuation."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))


def _number(text: str) -> float | None:
    """The finite number that a text stands for, None if it stands for none."""
    text = text.strip()
    scale = 0.01 if text.endswith(_PERCENT) else 1.0
    try:
        number = float(text.removesuffix(_PERCENT)) * scale
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _relaxed_equal(answer: str, reference: str) -> bool:
    predicted, wanted = _number(answer), _number(reference)
    if predicted is not None and wanted:
        return abs(predicted - wanted) <= RELAXED_TOLERANCE * abs(wanted)
    return normalise(answer) == normalise(reference)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
