"""Scores of whole sets: formulas against counting by hand, units drawn together, differences."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.scoring import captions
from analysis.scoring.aggregates import FEWEST, Formula, over_strata, ratio
from analysis.scoring.captions import Caption
from analysis.scoring.formulas import FORMULAS, formula, mean
from lightkv.errors import InputError, UnsupportedError
from tests.closeness import DOUBLE, assert_close


def pope(truth: str, said: str) -> dict[str, Any]:
    return {"ground_truth": truth, "prediction": said, "score": float(truth == said)}


def mme(picture: str, score: float, category: str = "count") -> dict[str, Any]:
    return {"question_id": picture, "category": category, "score": score}


def value(name: str, outcomes: Sequence[Any], pictures: Sequence[str] | None = None) -> float:
    named = [str(number) for number in range(len(outcomes))] if pictures is None else pictures
    return FORMULAS[name].value(outcomes, named)


def test_pope_counts_what_is_neither_yes_nor_no_as_wrong_only() -> None:
    # 3 true positives, 1 false positive, 2 false negatives, 1 true negative, 2 other answers.
    said = [("yes", "yes")] * 3 + [("no", "yes"), ("no", "no")] + [("yes", "no")] * 2
    outcomes = [pope(*pair) for pair in (*said, ("yes", "yes."), ("no", "maybe"))]
    assert_close(value("pope_precision", outcomes), 3 / 4, DOUBLE)
    assert_close(value("pope_recall", outcomes), 3 / 5, DOUBLE)
    assert_close(value("pope_f1_score", outcomes), 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), DOUBLE)
    assert_close(value("pope_accuracy", outcomes), 4 / 9, DOUBLE)
    assert_close(value("pope_yes_ratio", outcomes), 6 / 9, DOUBLE)


@pytest.mark.parametrize("name", ["pope_precision", "pope_recall", "pope_f1_score"])
def test_pope_without_a_positive_answer_is_zero(name: str) -> None:
    assert value(name, [pope("no", "no"), pope("yes", "no")]) == 0
    assert value(name, [pope("no", "no")]) == 0


def test_mme_adds_points_of_pairs_over_categories() -> None:
    outcomes = [
        *(mme("a", score) for score in (1, 1)),  # 100 + 100
        *(mme("b", score) for score in (1, 0)),  # 50
        *(mme("c", score, "color") for score in (0, 0)),  # 0
        *(mme("a", score, "OCR") for score in (1, 1)),  # the same name in another category
    ]
    assert_close(value("mme_perception_score", outcomes), (200 + 50) / 2 + 0 + 200, DOUBLE)
    shuffled = [outcomes[place] for place in (7, 2, 4, 0, 6, 3, 1, 5)]
    assert_close(value("mme_cognition_score", shuffled), 325, DOUBLE)


@pytest.mark.parametrize("count", [1, 3])
def test_mme_takes_whole_pairs_only(count: int) -> None:
    with pytest.raises(InputError, match=rf"2 answers to each picture, 'b' has {count}"):
        value("mme_perception_score", [mme("a", 1), mme("a", 1), *[mme("b", 1)] * count])


def test_multiple_choice_compares_letters() -> None:
    pairs = [("a", "A"), ("B ", "b"), ("", "C")]
    outcomes = [{"pred": said, "answer": right} for said, right in pairs]
    assert_close(value("seed_image", outcomes), 2 / 3, DOUBLE)


# Counts of matches and guesses of orders 1 to 4, length, nearest reference length.
COUNTS = [
    [5, 3, 2, 1, 7, 6, 5, 4, 7, 9],
    [4, 2, 1, 0, 6, 5, 4, 3, 6, 6],
    [3, 1, 0, 0, 4, 3, 2, 1, 4, 4],
]


def test_bleu_from_frozen_counts() -> None:
    matches, guesses = np.array(COUNTS)[:, :4].sum(0), np.array(COUNTS)[:, 4:8].sum(0)
    length, reference = 17, 19
    for order in (1, 2, 3, 4):
        precision = np.prod(matches[:order] / guesses[:order]) ** (1 / order)
        expected = precision * math.exp(1 - reference / length)
        bleu_scores = captions.bleu(np.array(COUNTS, float).sum(0)[None], order)
        assert_close(bleu_scores, [expected], 1e-8)


def test_bleu_without_a_match_or_a_guess_is_nothing_and_long_captions_pay_no_brevity() -> None:
    assert 0 <= captions.bleu(np.zeros(10), 4) < 1e-6
    perfect = np.array([5, 4, 3, 2, 5, 4, 3, 2, 5, 4.0])
    assert_close(captions.bleu(perfect, 4), 1.0, 1e-8)


SPLIT = [
    Caption("a red ball on grass", ("a red ball lies on the grass", "red ball")),
    Caption("two dogs", ("two small dogs run", "dogs run fast")),
    Caption("", ("a man eats", "one man")),
    Caption("a man eats green soup today", ("a man eats soup",)),
]


def test_captions_equal_the_published_scorers_on_the_same_words() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    wanted = {number: list(one.references) for number, one in enumerate(SPLIT)}
    answers = {number: [one.answer] for number, one in enumerate(SPLIT)}
    bleu, _ = Bleu(4).compute_score(wanted, answers, verbose=0)
    for order in (1, 2, 3, 4):
        assert_close(value(f"coco_Bleu_{order}", SPLIT), bleu[order - 1], DOUBLE)
    assert_close(value("nocaps_ROUGE_L", SPLIT), Rouge().compute_score(wanted, answers)[0], DOUBLE)
    assert_close(value("coco_CIDEr", SPLIT), Cider().compute_score(wanted, answers)[0], DOUBLE)


def test_document_frequencies_are_those_of_the_whole_set() -> None:
    alone = captions.cider_scores(SPLIT[:1])
    assert alone != captions.cider_scores(SPLIT)[:1]


def test_captions_without_java_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnsupportedError, match="no java on the PATH"):
        captions.tokenised([{"pred": "a", "answer": ["a"]}])
    assert captions.tokenised(SPLIT) == SPLIT, "what is tokenised needs none"


needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java here")


@needs_java
def test_words_are_split_as_the_java_tokeniser_does() -> None:
    (words,) = captions.tokenised(
        [{"pred": "It's a T-shirt, isn't it?", "answer": ["A ball.", "b"]}]
    )
    assert words == Caption("it 's a t-shirt is n't it", ("a ball", "b"))


def test_captions_without_java_have_the_same_scores_from_words_split_by_a_pattern() -> None:
    answers = ["A red ball, on grass.", "two dogs", "a man eats green soup today"]
    references = [["a red ball lies on the grass", "Red ball!"], ["two small dogs run"], ["a man"]]
    scores = captions.caption_scores(answers, references)
    assert tuple(scores) == captions.CAPTION_METRICS
    split = captions.split_by_words(answers, references)
    assert split[0] == Caption("a red ball on grass", ("a red ball lies on the grass", "red ball"))
    for order in (1, 2, 3, 4):
        assert_close(scores[f"bleu{order}"], value(f"coco_Bleu_{order}", split), DOUBLE)
    assert_close(scores["rouge_l"], value("coco_ROUGE_L", split), DOUBLE)
    assert_close(scores["cider"], value("coco_CIDEr", split), DOUBLE)


def test_unknown_scores_of_numbers_are_means_and_others_have_no_formula() -> None:
    estimate = formula("exact_match", [1.0, 0, 0.5])
    assert estimate is not None
    assert_close(estimate.value([1.0, 0, 0.5], ["a", "b", "c"]), 0.5, DOUBLE)
    assert formula("coco_METEOR", [{"pred": "a"}]) is None
    assert formula("pope_f1_score", []) is FORMULAS["pope_f1_score"]


# ------------------------------------------------------------------ intervals


def many(size: int, seed: int = 0, worse: float = 0.0) -> tuple[list[dict[str, Any]], list[str]]:
    generator = np.random.default_rng(seed)
    outcomes, pictures = [], []
    for picture in range(size):
        chance = generator.beta(6, 2)
        for question in range(4):
            truth = "yes" if question % 2 else "no"
            right = generator.random() < chance - worse
            outcomes.append(pope(truth, truth if right else "yes"))
            pictures.append(str(picture))
    return outcomes, pictures


def test_pictures_are_left_out_whole() -> None:
    """Ten equal questions a picture say no more than one, so the interval must not shrink."""
    outcomes = [pope("yes", "yes" if picture % 3 else "no") for picture in range(60)]
    pictures = [str(picture) for picture in range(60)]
    once = FORMULAS["pope_recall"].estimate(outcomes, pictures)
    often = FORMULAS["pope_recall"].estimate(outcomes * 10, pictures * 10)
    assert (often.low, often.high) == (once.low, once.high)
    alone = [str(number) for number in range(600)]
    narrow = FORMULAS["pope_recall"].estimate(outcomes * 10, alone)
    assert narrow.high - narrow.low < 0.5 * (once.high - once.low)


def test_the_interval_of_a_mean_nears_the_normal_one() -> None:
    scores = np.random.default_rng(3).gamma(2, 1, 400)
    estimate = mean("x").estimate(scores.tolist(), [str(number) for number in range(400)])
    half = 1.96 * scores.std(ddof=1) / 20
    assert_close(estimate.value, scores.mean(), DOUBLE)
    assert_close((estimate.low, estimate.high), (scores.mean() - half, scores.mean() + half), 0.01)
    assert estimate.method == "t" and estimate.n == 400


def test_pairs_vary_within_their_category_only() -> None:
    """One category is all right, the other all wrong."""
    outcomes = [
        mme(str(picture), float(category == "a"), category)
        for category in ("a", "b")
        for picture in range(30)
        for _ in range(2)
    ]
    pictures = [f"{one['category']} {one['question_id']}" for one in outcomes]
    estimate = FORMULAS["mme_perception_score"].estimate(outcomes, pictures)
    assert estimate.value == 200
    assert estimate.method == "none", "nothing varies within a category"


def test_few_units_and_sets_that_do_not_vary_have_no_interval() -> None:
    for size, method in ((FEWEST - 1, "none"), (FEWEST, "jackknife")):
        outcomes, pictures = many(size)
        assert FORMULAS["pope_f1_score"].estimate(outcomes, pictures).method == method
    right = [pope("yes", "yes")] * 50
    estimate = FORMULAS["pope_f1_score"].estimate(right, [str(number) for number in range(50)])
    assert (estimate.value, estimate.method, math.isnan(estimate.low)) == (1.0, "none", True)


def test_a_small_category_takes_the_interval_away() -> None:
    outcomes = [mme(str(p), float(p % 2), "a") for p in range(40) for _ in range(2)]
    few = [mme(str(p), float(p % 2), "b") for p in range(FEWEST - 1) for _ in range(2)]
    name = FORMULAS["mme_cognition_score"]
    assert name.estimate(outcomes, [str(n) for n in range(80)]).method == "jackknife"
    both = [*outcomes, *few]
    assert name.estimate(both, [str(n) for n in range(len(both))]).method == "none"


def test_both_sides_of_a_difference_leave_out_the_same_pictures() -> None:
    one, pictures = many(60)
    other, _ = many(60, worse=0.1)
    f1 = FORMULAS["pope_f1_score"]
    gained = f1.difference(one, other, pictures)
    assert_close(gained.value, f1.value(one, pictures) - f1.value(other, pictures), DOUBLE)
    apart = f1.estimate(one, pictures).error ** 2 + f1.estimate(other, pictures).error ** 2
    assert gained.error**2 < 0.8 * apart, "pairing narrows the interval"
    same = f1.difference(one, one, pictures)
    assert (same.value, same.method) == (0.0, "none")
    back = f1.difference(other, one, pictures)
    assert_close((back.low, back.high), (-gained.high, -gained.low), DOUBLE)


def test_a_difference_of_other_units_is_refused() -> None:
    one = [mme("a", 1), mme("a", 1)]
    with pytest.raises(InputError, match="asked about different things"):
        FORMULAS["mme_perception_score"].difference(one, [mme("b", 1)] * 2, ["a", "a"])


def test_nothing_to_score() -> None:
    with pytest.raises(InputError, match="at least one answer"):
        mean("x").estimate([], [])


def test_the_interval_is_that_of_leaving_pictures_out_by_hand() -> None:
    outcomes, pictures = many(30)
    score = FORMULAS["pope_f1_score"].estimate(outcomes, pictures)
    left = [
        value("pope_f1_score", [o for o, p in zip(outcomes, pictures, strict=True) if p != str(n)])
        for n in range(30)
    ]
    error = math.sqrt(29 / 30 * sum((one - np.mean(left)) ** 2 for one in left))
    assert_close(score.error, error, DOUBLE)
    reach = error * float(stats.t.ppf(0.975, 29))
    assert_close((score.low, score.high), (score.value - reach, score.value + reach), DOUBLE)
    wide = FORMULAS["pope_f1_score"].estimate(outcomes, pictures, level=0.99)
    assert_close(wide.high - wide.value, error * float(stats.t.ppf(0.995, 29)), DOUBLE)


def test_errors_of_categories_add_up() -> None:
    """The score of two categories is a sum of two means, each with an error of its own."""
    generator = np.random.default_rng(2)
    right = {"a": generator.random((25, 2)) < 0.6, "b": generator.random((40, 2)) < 0.8}
    outcomes = [
        mme(str(number), float(one), category)
        for category, pairs in right.items()
        for number, pair in enumerate(pairs)
        for one in pair
    ]
    score = FORMULAS["mme_perception_score"].estimate(outcomes, [""] * len(outcomes))
    points = [pairs.mean(1) * 100 + pairs.all(1) * 100 for pairs in right.values()]
    variances = [one.var(ddof=1) / len(one) for one in points]
    assert_close(score.value, sum(one.mean() for one in points), DOUBLE)
    assert_close(score.error, math.sqrt(sum(variances)), 1e-9)
    welch = stats.ttest_ind(*points, equal_var=False).df
    assert_close(score.pivot.freedom, welch, 1e-9)  # type: ignore[union-attr]


def test_sums_are_over_strata() -> None:
    sums = np.arange(12.0).reshape(2, 3, 2)
    assert over_strata(sums).tolist() == [[6, 9], [24, 27]]
    assert ratio(np.array([1.0, 2.0]), np.array([0.0, 4.0])).tolist() == [0, 0.5]
    assert isinstance(FORMULAS["pope_f1_score"], Formula)
