"""Scores of entries: published examples, definitions, and independence of padding."""

from dataclasses import replace

import pytest
import torch

from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.methods.cake import WindowIndicator
from lightkv.eviction.methods.key_norm import KeyNorm
from lightkv.eviction.methods.streamingllm import Recency
from lightkv.eviction.methods.tgvkv_ablations import CrossPlusText, VisionPlusText
from lightkv.eviction.parts.rankings import ObservationWindow, Random, SelfAttention, pool
from lightkv.eviction.parts.text_grounded import TextWeighted
from tests.closeness import SINGLE, assert_close
from tests.eviction.prompts import FACTS, Rows, causal, layer_of

H2O_ROWS = [
    [1.0],
    [0.5, 0.5],
    [0.4, 0.2, 0.4],
    [0.4, 0.3, 0.1, 0.2],
    [0.3, 0.1, 0.3, 0.1, 0.2],
    [0.2, 0.1, 0.1, 0.5, 0.05, 0.05],
]


def mean_map(view: LayerView) -> torch.Tensor:
    every = torch.arange(view.layout.length)[None]
    return view.read_attention().probabilities(every)[0].mean(0).double()


@pytest.mark.parametrize("text", ["ssvvvvtttt", "vvvttttt", "ssvvtvvttt", "sv|vttt"])
@pytest.mark.parametrize("normalise", [True, False])
def test_text_weighted_is_equations_7_to_9(text, normalise):
    view = causal(text, seed=len(text))
    attention, layout = mean_map(view), view.layout
    question = layout.question[0].nonzero()[:, 0].tolist()
    count = len(question)
    weight = [
        sum(float(attention[i, j]) for i in question[place:]) / (count - place)
        for place, j in enumerate(question)
    ]
    if normalise:
        weight = [w / sum(weight) for w in weight]
    expected = []
    for j in range(layout.length):
        if layout.vision[0, j]:
            paired = zip(weight, question, strict=True)
            expected.append(sum(w * float(attention[i, j]) for w, i in paired))
        else:
            expected.append(sum(float(attention[i, j]) for i in question))
    score = TextWeighted(normalise=normalise).score(view)[0]
    assert_close(score, expected)


@pytest.mark.parametrize("scope", ["text", "all"])
def test_text_scope_decides_who_ranks_the_system_text(scope):
    view = causal("sssvvvvtttt")
    attention, layout = mean_map(view), view.layout
    voters = layout.text[0] if scope == "text" else layout.real[0]
    score = TextWeighted(text_scope=scope).score(view)[0].double()
    system = attention[voters].sum(0)[:3]
    assert_close(score[:3], system, SINGLE)
    # A question token is seen by later question tokens alone.
    narrow = TextWeighted().score(view)[0].double()
    assert_close(score[3:], narrow[3:], SINGLE)


def test_normalising_the_text_weights_keeps_the_order_of_vision():
    view = causal("ssvvvvvvvvtttttt")
    a, b = (TextWeighted(normalise=n).score(view)[0, 2:10] for n in (True, False))
    assert a.argsort().tolist() == b.argsort().tolist()


def test_self_attention_is_the_column_sum():
    score = SelfAttention().score(layer_of("ssvvtt", H2O_ROWS))
    assert_close(score, torch.tensor([[2.8, 1.2, 0.9, 0.8, 0.25, 0.05]]))


def test_vision_plus_text_stays_within_each_modality():
    view = causal("ssvvvttt")
    attention = mean_map(view).float()
    score = VisionPlusText().score(view)[0]
    assert_close(score[2:5], attention[2:5].sum(0)[2:5])
    assert_close(score[5:], attention[5:].sum(0)[5:])


def test_cross_plus_text_is_what_the_question_reads():
    view = causal("ssvvvttt")
    attention = mean_map(view).float()
    assert_close(CrossPlusText().score(view)[0], attention[5:].sum(0))
    wide = CrossPlusText(text_scope="all").score(view)[0]
    assert_close(wide[:2], attention.sum(0)[:2])
    assert_close(wide[2:5], attention[5:].sum(0)[2:5])


@pytest.mark.parametrize(
    ("pooling", "best"), [("avg", {1, 2, 3}), ("max", {1, 2, 3}), ("none", {0, 2, 5})]
)
def test_snapkv_example(pooling, best):
    rows = torch.zeros(8, 8)
    rows[6, :6] = torch.tensor([0.10, 0.05, 0.60, 0.05, 0.0, 0.10])
    rows[7, 5] = 0.20
    rows[6, 6] = rows[7, 6] = 0.9  # the window's own columns must not leak
    score = ObservationWindow(2, 3, pooling).score(layer_of("svvvvttt", rows))[0]
    assert set(score[:6].topk(3).indices.tolist()) == best
    if pooling == "avg":
        assert_close(score[:6], [0.05, 0.25, 0.7 / 3, 0.65 / 3, 0.35 / 3, 0.10])
    assert (score[6:] == 0).all()


def test_heads_of_a_group_are_averaged_before_pooling():
    # Max pooling does not commute with the mean: mean first gives .5 .5 .5.
    rows = torch.zeros(2, 4, 4)
    rows[0, 3, 0] = rows[1, 3, 2] = 1.0
    view = layer_of("vvvt", rows)
    one_group = replace(view, attention=GivenAttention(rows[None], group=2))
    score = ObservationWindow(1, 3, "max", per_head=True).score(one_group)
    assert score.tolist() == [[[0.5, 0.5, 0.5, 0.0]]]
    separate = ObservationWindow(1, 3, "max", per_head=True).score(view)
    assert separate.tolist() == [[[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]]


def test_average_pooling_counts_zeros_beyond_the_ends():
    pooled = pool(torch.ones(1, 1, 4), 3, "avg")
    assert_close(pooled, torch.tensor([[[2 / 3, 1.0, 1.0, 2 / 3]]]))


def test_window_longer_than_the_prompt_ranks_nothing():
    assert (ObservationWindow(64).score(causal("svvtt")) == 0).all()


def test_window_indicator_example():
    rows = torch.zeros(6, 6)
    rows[4, :4] = 0.25
    rows[5, :4] = torch.tensor([0.7, 0.1, 0.1, 0.1])
    score = WindowIndicator(window=2, gamma=200, kernel=1).score(layer_of("vvvvtt", rows))
    expected = torch.tensor([20.725, 2.425, 2.425, 2.425, 0, 0])
    assert_close(score[0, 0], expected, 1e-3)


def test_recency_and_key_norm():
    view = causal("svvt")
    assert Recency().score(view).tolist() == [[0, 1, 2, 3]]
    keys = torch.tensor([[[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [2.0, 0.0]]]])
    with_keys = LayerView(**{**vars(view), "keys": keys})
    assert KeyNorm().score(with_keys).tolist() == [[-5, -1, 0, -2]]


def test_random_belongs_to_seed_layer_and_place_in_the_row():
    rows = Rows(["svvvttt", "ssvvvvvvvvtttt"])
    batch = [Random().score(view) for view in rows.views()]
    alone = [Random().score(view) for view in rows.views([0])]
    for together, single in zip(batch, alone, strict=True):
        assert torch.equal(together[0, -7:], single[0])
    assert not torch.equal(batch[0], batch[1])
    assert torch.equal(batch[0], Random().score(rows.views()[0]))
    reseeded = LayerView(**{**vars(rows.views()[0]), "seed": 1})
    assert not torch.equal(batch[0], Random().score(reseeded))


RANKINGS = [
    TextWeighted(),
    TextWeighted(text_scope="all", normalise=False),
    SelfAttention(),
    SelfAttention(per_head=True),
    VisionPlusText(),
    CrossPlusText(),
    ObservationWindow(3, 3),
    ObservationWindow(3, 5, "max", per_head=True),
    WindowIndicator(3),
    Random(),
    Recency(),
    KeyNorm(),
]


@pytest.mark.parametrize("ranking", RANKINGS, ids=repr)
def test_scores_do_not_depend_on_padding_or_company(ranking):
    rows = Rows(["ssvvvvvvttt", "vvvvttttttt", "sssvvvvvvvvvvvvtttttt"], seed=3)
    batch = rows.views(padding=4)
    for row, layout in enumerate(rows.layouts):
        for together, single in zip(batch, rows.views([row]), strict=True):
            part = ranking.score(together)[row : row + 1, ..., -layout.length :]
            assert_close(part, ranking.score(single))


@pytest.mark.parametrize("ranking", RANKINGS, ids=repr)
def test_scores_do_not_depend_on_the_size_of_blocks(ranking, monkeypatch):
    rows = Rows(["ssvvvvvvttt", "sssvvvvvvvvvvvvtttttt"], seed=3)
    whole = [ranking.score(view) for view in rows.views()]
    monkeypatch.setattr("lightkv.contract.attention.BLOCK_NUMBERS_CPU", 500)
    for view, expected in zip(rows.views(), whole, strict=True):
        assert_close(ranking.score(view), expected)


@pytest.mark.parametrize(
    ("ranking", "name"),
    [
        (lambda: ObservationWindow(0), "window"),
        (lambda: ObservationWindow(8, 4), "kernel"),
        (lambda: ObservationWindow(8, 5, "median"), "pooling"),
        (lambda: WindowIndicator(1), "window"),
        (lambda: TextWeighted(text_scope="image"), "text_scope"),
        (lambda: VisionPlusText(text_scope=""), "text_scope"),
        (lambda: CrossPlusText(text_scope=""), "text_scope"),
    ],
)
def test_values_out_of_range_are_named(ranking, name):
    with pytest.raises(InvalidValueError) as error:
        ranking().check(FACTS)
    assert error.value.name == name


def test_rankings_that_need_keys_say_so():
    view = LayerView(**{**vars(causal("svvt")), "keys": None})
    with pytest.raises(UnsupportedError, match="layer 0"):
        KeyNorm().score(view)
