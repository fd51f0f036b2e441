"""Known answers of every metric, worked out by hand or printed in its source."""

import math

import pytest

from analysis.scoring import metrics, vqa
from analysis.scoring.kinds import metric_of_kind
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from tests.closeness import assert_close


def score(name: str, answer: str, *references: str) -> float:
    return metrics.metric(name).score(answer, references)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("red", 1), (" Red. ", 1), ("RED", 1), ("dark red", 0), ("", 0), ("re d", 0)],
)
def test_exact_match_ignores_case_space_and_outer_punctuation(answer: str, expected: int) -> None:
    assert score("exact", answer, "blue", "red") == expected


def test_exact_match_folds_unicode() -> None:
    assert score("exact", "cafe\u0301", "caf\u00e9") == 1
    assert score("exact", "\uff12\uff14", "24") == 1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-95", "-100", 1),
        ("12%", "0.12", 1),
        ("0", "0", 1),
        ("0.0001", "0", 0),
        ("Blue", "blue", 1),
        ("blue sky", "blue", 0),
        ("nan", "100", 0),
        ("nan", "nan", 1),
        ("105.0001%", "100%", 0),
        ("5", "inf", 0),
        ("-5", "Infinity", 0),
        ("inf", "100", 0),
        ("inf", "-inf", 0),
        ("INF", "inf", 1),
        ("1e400", "1e401", 0),
    ],
)
def test_relaxed_accuracy(answer: str, reference: str, expected: int) -> None:
    assert score("relaxed_accuracy", answer, reference) == expected


def test_anls_thresholds_at_half() -> None:
    assert score("anls", "hello wrld", "hello world") == pytest.approx(1 - 1 / 11)
    assert score("anls", "hexxxx", "hello world") == 0
    assert score("anls", "HELLO", "other", "hello") == 1


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    # LCS "the cat the mat" of 4 words; precision 4/6, recall 4/5.
    answer, reference = "the cat sat on the mat", "the cat near the mat"
    assert score("rouge_l", answer, reference) == pytest.approx(2 * (4 / 6) * (4 / 5) / (22 / 15))
    assert score("rouge_l", answer, "nothing shared", answer) == 1
    assert score("rouge_l", "", reference) == 0


def test_rouge_l_of_caption_tables_takes_best_precision_and_best_recall_apart() -> None:
    # Of "a red ball": precision 3/4 against the first reference ("a red ball lies"), recall 3/6;
    # against the second ("a ball") precision 2/4, recall 1. Beta is 1.2.
    answer = "A red, round ball."
    references = ("a red ball lies over there", "a ball")
    precision, recall, weight = 3 / 4, 1.0, 1.2**2
    expected = (1 + weight) * precision * recall / (recall + weight * precision)
    assert score("coco_rouge_l", answer, *references) == pytest.approx(expected)
    assert score("rouge_l", answer, *references) == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer", ["", "...", "nothing shared here"])
def test_rouge_l_of_caption_tables_without_a_common_word(answer: str) -> None:
    assert score("coco_rouge_l", answer, "a red ball", "...") == 0
    assert score("coco_rouge_l", answer, "...") == 0


def test_cider_of_identical_captions_is_ten() -> None:
    captions = ["a red ball lies there", "two dogs run very fast", "one man eats green soup"]
    scores = metrics.metric("cider").scores(captions, [[caption] for caption in captions])
    assert_close(scores, [10.0] * 3)


def test_cider_against_a_hand_computed_corpus() -> None:
    # Two documents, unigrams and bigrams only. "a" is in both documents: idf 0; the rest log 2.
    # Answer "a cat" against "a dog": only "a" is shared, so nothing counts.
    scores = metrics.metric("cider").scores(["a cat", "a dog"], [["a dog"], ["a dog"]])
    assert_close(scores[0], 0, scale=10)
    # "red cat" and "red dog" share "red" (idf log 2 as in one document): cosine 1/2 on unigrams,
    # 0 on bigrams; four orders averaged, times 10.
    scores = metrics.metric("cider").scores(["red dog", "x y"], [["red cat"], ["x y"]])
    half = math.log(2) ** 2 / (2 * math.log(2) ** 2)
    assert scores[0] == pytest.approx(10 * half / 4)


def test_cider_needs_a_corpus() -> None:
    with pytest.raises(InvalidValueError, match="cider"):
        score("cider", "a cat", "a cat")
    assert metrics.metric("cider").scores([], []) == []


@pytest.mark.parametrize(
    ("agreeing", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_vqa_accuracy_of_ten_answers(agreeing: int, expected: float) -> None:
    # The published table: one agreeing person of ten gives 0.3, two 0.6, three 0.9, four 1.
    references = ["cat"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert score("vqa_accuracy", "Cat", *references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two dogs.", "2 dogs"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("none", "0"),
        ("a/b", "b"),
        ("1,000 miles", "1000 miles"),
        ("3.5", "3.5"),
        ("yes, it is", "yes it is"),
        ("left-hand", "left hand"),
        ("stop\n sign", "stop sign"),
    ],
)
def test_vqa_normalisation(text: str, expected: str) -> None:
    assert vqa.normalise(text) == expected


def test_vqa_accuracy_refuses_too_few_references() -> None:
    with pytest.raises(InputError, match="at least 4"):
        metrics.metric("vqa_accuracy").check(["cat"])


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="rouge_l"):
        metrics.metric("rouge")


def test_a_kind_of_question_has_its_metric() -> None:
    assert metric_of_kind("caption") == "coco_rouge_l"
    assert metric_of_kind("read") == metric_of_kind("legend") == "exact"
