"""Captions of a whole set as coco-caption scores them, each score from the words of the captions.

Words are split by the Java program that coco-caption brings along (:func:`tokenised`), or by a
regular expression (:func:`split_by_words`), which needs no Java and treats a few abbreviations and
hyphens differently.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.scoring.metrics import coco_rouge_l, words
from lightkv.errors import UnsupportedError

Array = NDArray[np.float64]
Outcome = Mapping[str, Any]

JAVA: Final = "java"
ORDERS: Final = (1, 2, 3, 4)
"""Lengths of n-grams."""

CAPTION_METRICS: Final = (*(f"bleu{order}" for order in ORDERS), "rouge_l", "cider")

_KNOWN: Final[dict[str, str]] = {}
"""Captions that the Java program has split: references are the same under every method."""

REMEMBERED: Final = 200_000
"""Captions whose n-grams stay counted."""

_SMALL, _TINY = 1e-9, 1e-15
"""What coco-caption adds below and above so that no quotient is undefined."""


@dataclass(frozen=True)
class Caption:
    """An answer and its references, words separated by spaces."""

    answer: str
    references: tuple[str, ...]


# ------------------------------------------------------------------ words


def is_caption_score(name: str) -> bool:
    """Whether a score of the harness is computed from tokenised captions."""
    return bool(re.search(r"_(Bleu_\d|METEOR|ROUGE_L|CIDEr|SPICE)$", name))


def check_java() -> None:
    """Refuse scores of captions where their tokeniser can't run.

    Raises:
        UnsupportedError: There is no Java here.
    """
    if shutil.which(JAVA) is None:
        raise UnsupportedError(
            "scores of captions are computed from words that a Java program splits, and there is "
            "no java on the PATH: install a Java runtime (8 or newer)"
        )


def tokenised(outcomes: Sequence[Outcome | Caption]) -> list[Caption]:
    """Answers and references of a set, split by one call of the Java program.

    Args:
        outcomes: Each with ``pred`` and ``answer`` (several); a :class:`Caption` stays as it is.

    Raises:
        UnsupportedError: There is no Java here.
    """
    raw = {number: one for number, one in enumerate(outcomes) if not isinstance(one, Caption)}
    split = _by_java(raw) if raw else {}
    return [
        one if isinstance(one, Caption) else split[number] for number, one in enumerate(outcomes)
    ]


def _by_java(outcomes: Mapping[int, Outcome]) -> dict[int, Caption]:
    check_java()
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [text for one in outcomes.values() for text in (one["pred"], *one["answer"])]
    new = [text for text in dict.fromkeys(texts) if text not in _KNOWN]
    if new:
        # The program is given a text a line: other line breaks would shift all that follow.
        lines = {n: [{"caption": " ".join(text.split())}] for n, text in enumerate(new)}
        split = PTBTokenizer().tokenize(lines)
        _KNOWN.update({text: split[number][0] for number, text in enumerate(new)})
    return {
        number: Caption(_KNOWN[one["pred"]], tuple(_KNOWN[text] for text in one["answer"]))
        for number, one in outcomes.items()
    }


def split_by_words(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[Caption]:
    """Answers and references of a set, split as for :func:`~analysis.scoring.metrics.cider`."""
    return [
        Caption(words(answer), tuple(map(words, several)))
        for answer, several in zip(answers, references, strict=True)
    ]


# ------------------------------------------------------------------ scores


def bleu_counts(captions: Sequence[Outcome | Caption]) -> list[list[float]]:
    """Per caption the matches and guesses of orders 1 to 4, its length and the nearest reference's.

    ``coco-caption`` takes the reference length that is closest, the shorter of two.
    """
    return [list(_counted(one)) for one in tokenised(captions)]


@lru_cache(REMEMBERED)
def _counted(caption: Caption) -> tuple[float, ...]:
    """The numbers of one caption."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=len(ORDERS))
    scorer += (caption.answer, list(caption.references))
    counted = scorer.ctest[0]
    length = counted["testlen"]
    nearest = min((abs(reference - length), reference) for reference in counted["reflen"])[1]
    return (*counted["correct"], *counted["guess"], length, nearest)


def bleu(sums: Array, order: int) -> Array:
    """BLEU of n-grams up to some order (Papineni et al., ACL 2002), as coco-caption computes it.

    Args:
        sums: (..., 10) sums of :func:`bleu_counts`.
        order: 1 to 4.

    Returns:
        (...) from 0 to 1.
    """
    matches, guesses = sums[..., :order], sums[..., len(ORDERS) : len(ORDERS) + order]
    length, reference = sums[..., -2], sums[..., -1]
    precisions = (matches + _TINY) / (guesses + _SMALL)
    brevity = np.minimum((length + _TINY) / (reference + _SMALL), 1)
    scores: Array = np.prod(precisions, axis=-1) ** (1 / order) * np.exp(1 - 1 / brevity)
    return scores


def rouge_scores(captions: Sequence[Outcome | Caption]) -> list[float]:
    """ROUGE-L of each caption, see :func:`~analysis.scoring.metrics.coco_rouge_l`."""
    from pycocoevalcap.rouge.rouge import Rouge

    score = Rouge().calc_score
    return [float(score([one.answer], list(one.references))) for one in tokenised(captions)]


def cider_scores(captions: Sequence[Outcome | Caption]) -> list[float]:
    """CIDEr-D of each caption, 0 to 10, with the document frequencies of the whole set."""
    from pycocoevalcap.cider.cider import Cider

    answers, references = _numbered(tokenised(captions))
    _, scores = Cider().compute_score(references, answers)
    return [float(score) for score in scores]


def caption_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr of a corpus, without Java.

    BLEU is that of the corpus: counts are summed over all captions before they are divided.
    ROUGE-L and CIDEr-D are means over captions.

    Args:
        answers: Captions, at least one.
        references: Of each caption.

    Returns:
        Scores by the names of :data:`CAPTION_METRICS`; CIDEr from 0 to 10, all others to 1.
    """
    split = split_by_words(answers, references)
    sums = np.asarray(bleu_counts(split), np.float64).sum(axis=0)
    return {
        **{f"bleu{order}": float(bleu(sums, order)) for order in ORDERS},
        "rouge_l": math.fsum(map(coco_rouge_l, answers, references)) / len(split),
        "cider": math.fsum(cider_scores(split)) / len(split),
    }


def _numbered(captions: Sequence[Caption]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Answers and references as the scorers of coco-caption take them."""
    answers = {number: [one.answer] for number, one in enumerate(captions)}
    return answers, {number: list(one.references) for number, one in enumerate(captions)}
