"""KVzip: the worked examples, and references in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.catalogue import method
from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.compressor import Observation
from lightkv.contract.retention import verify
from lightkv.contract.view import LayerView
from lightkv.errors import InputError, InvalidValueError
from lightkv.eviction.methods.kvzip import KVzip, context_of, threshold
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, causal, kept, layout_of

EXAMPLE = [
    [[0.9, 0.1, 0.5, 0.3], [0.8, 0.2, 0.2, 0.7]],
    [[0.4, 0.6, 0.05, 0.15], [0.35, 0.25, 0.95, 0.45]],
]


def retained(compressor, text, scores):
    """Kept entries by layer and head, given scores (L, G, N)."""
    layout = layout_of(text)
    seen = [Observation(layout, torch.tensor(one)[None], torch.ones(1)) for one in scores]
    retentions = compressor.retain(seen)
    verify(retentions, [layout.lengths] * len(retentions))
    return [[kept(one, 0, head) for head in range(len(scores[0]))] for one in retentions]


def test_the_examples_of_selection():
    pair = [[[0, 2], [0, 3]], [[1], [2, 3]]]
    assert retained(KVzip(0.5, "model", "released"), "vvvv", EXAMPLE) == pair
    uniform = [[[0, 2], [0, 3]], [[0, 1], [2, 3]]]
    assert retained(KVzip(0.5, "head", "released"), "vvvv", EXAMPLE) == uniform
    assert retained(KVzip(0.5, "head"), "vvvv", EXAMPLE) == uniform
    # Eight of sixteen, where the released code keeps seven.
    assert retained(KVzip(0.5), "vvvv", EXAMPLE) == [[[0, 2], [0, 3]], [[0, 1], [2, 3]]]
    # Four of eight in each layer.
    assert retained(KVzip(0.5, "layer"), "vvvv", EXAMPLE) == [[[0, 2], [0, 3]], [[0, 1], [2, 3]]]
    assert retained(KVzip(0.25, "layer"), "vvvv", EXAMPLE) == [[[0], [0]], [[1], [2]]]
    lowest = threshold(torch.tensor(EXAMPLE)[None], torch.ones(1, 4).bool(), 0.5)
    assert lowest.tolist() == pytest.approx([0.4])


def test_equal_scores_leave_nothing_in_the_released_form():
    equal = [[[0.5] * 4] * 2] * 2
    assert retained(KVzip(0.5, "model", "released"), "svvv", equal) == [[[0], [0]], [[0], [0]]]
    assert retained(KVzip(0.5), "svvvv", [[[0.5] * 5]]) == [[[0, 1, 2]]]


def test_the_text_before_the_image_stays_and_is_not_counted():
    scores = [[[9.0, 9.0, 0.1, 0.4, 0.3, 0.2]]]
    assert retained(KVzip(0.5), "ssvvtv", scores) == [[[0, 1, 3, 4]]]
    assert context_of(layout_of("ssv|tv"))[0].tolist() == [False] * 2 + [True] * 4
    assert retained(KVzip(1.0), "ssvvtv", scores) == [[[0, 1, 2, 3, 4, 5]]]


def test_the_example_of_scores():
    keys = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0], [0, 0.5]]).float()
    queries = torch.zeros(6, 2)
    queries[4:] = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    attention = ProjectedAttention(queries[None, None], keys[None, None], 2**-0.5)
    view = causal("svvvtt", heads=1)
    view = LayerView(**{**vars(view), "attention": attention, "keys": keys[None, None]})
    place = torch.arange(6)[None]
    score = KVzip(1.0).score_repetition(view, (place > 0) & (place < 4), place >= 4)
    assert_close(score[0, 0], torch.tensor([0, 0.2711, 0.3103, 0.3103, 0, 0]), 1e-3)


@drawn(st.integers(2, 20), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_scores_are_the_largest_attention_of_the_repetition(vision, words, seed):
    letters = "ss" + "v" * vision + "t" * words + "v" * vision
    view = Rows([letters], seed).views()[0]
    length = len(letters)
    place = torch.arange(length)[None]
    context = (place >= 2) & (place < 2 + vision)
    score = KVzip(1.0).score_repetition(view, context, place >= 2 + vision)[0]
    rows = view.attention.probabilities(place)[0].double().numpy()
    wanted = np.zeros((FACTS.kv_heads, length))
    group = FACTS.heads // FACTS.kv_heads
    for head in range(FACTS.heads):
        for i in range(2 + vision, length):
            for j in range(2, 2 + vision):
                g = head // group
                wanted[g, j] = max(wanted[g, j], rows[head, i, j])
    assert_close(score.double().numpy(), wanted, 1e-5)


@drawn(
    st.integers(0, 3),
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.sampled_from(["model", "layer", "head"]),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_as_many_stay_as_were_asked_for(system, vision, retention, over, seed):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, 2, system + vision, generator=draw).tolist()
    kept_places = retained(KVzip(retention, over), "s" * system + "v" * vision, scores)
    together = {"model": 6, "layer": 2, "head": 1}[over]
    budget = round(retention * vision * together)
    counts = [len(one) - system for layer in kept_places for one in layer]
    groups = [counts[i : i + together] for i in range(0, 6, together)]
    assert all(abs(sum(group) - budget) <= 1e-9 for group in groups) or retention == 1


def test_it_is_for_prompts_that_end_with_their_images():
    for text in ("ssvvtt", "sstt"):
        with pytest.raises(InputError):
            method("kvzip", 0.5).check_layout(layout_of(text))
    method("kvzip", 0.5).check_layout(layout_of("ssvvttv"))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: KVzip(0.0), "retention"),
        (lambda: KVzip(1.1), "retention"),
        (lambda: KVzip(0.5, "row"), "over"),
        (lambda: KVzip(0.5, "layer", "released"), "over"),
        (lambda: KVzip(0.5, form="paper"), "form"),
        (lambda: KVzip(0.5, instruction=" "), "instruction"),
    ],
)
def test_values_out_of_range_are_named(make, name):
    with pytest.raises(InvalidValueError) as error:
        make().check(FACTS)
    assert error.value.name == name


def test_rows_of_a_batch_repeat_as_many_tokens_as_they_have():
    texts = ["ssvvvtvvv", "svvvvvvttvvvvvv"]
    rows = Rows(texts, 5)
    view = rows.views()[0]
    length = view.layout.length
    place = torch.arange(length) - torch.tensor([[length - len(text)] for text in texts])
    begin, again = torch.tensor([[2], [1]]), torch.tensor([[6], [9]])
    context = (place >= begin) & (place < begin + torch.tensor([[3], [6]]))
    together = KVzip(1.0).score_repetition(view, context, place >= again)
    for row, text in enumerate(texts):
        alone = rows.views([row])[0]
        start = length - len(text)
        score = KVzip(1.0).score_repetition(
            alone, context[row : row + 1, start:], (place >= again)[row : row + 1, start:]
        )
        assert_close(together[row, :, start:], score[0])
