"""MixKV: the worked example, its hosts, and a reference in plain numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.catalogue import method
from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.methods.mixkv import MixedScore, MixedWithinHeads
from lightkv.eviction.methods.pyramidkv import Pyramid
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.heads import AcrossHeads
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.eviction.parts.selections import WindowFirst
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, causal, kept

KEYS = [[1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1], [-1, 0.3], [1, 1], [0.5, 0.5]]
NORMS = [1, 3, 1, 0.5, 1, 1, 1]
MODES = ("attention", "diversity", "plain", "headwise", "importance")


def example() -> LayerView:
    keys = torch.tensor(KEYS)[None, None].float()
    queries = torch.zeros(1, 1, 7, 2)
    queries[0, 0, 5:] = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    values = torch.tensor(NORMS)[None, None, :, None] * torch.tensor([1.0, 0.0])
    changed = {
        "keys": keys,
        "values": values,
        "attention": ProjectedAttention(queries, keys, 2**-0.5),
    }
    return LayerView(**{**vars(causal("vvvvvvt", heads=1)), **changed})


@pytest.mark.parametrize(
    ("mode", "best"),
    [
        ("attention", [0, 1]),
        ("diversity", [3, 4]),
        ("plain", [1, 4]),
        ("headwise", [1, 4]),
        ("importance", [0, 1]),
    ],
)
def test_the_example(mode, best):
    evictor = method("mixkv", entries=4, mode=mode, window=2, kernel=1)
    evictor = replace(evictor, protect_first=0, protect_last=0)
    assert kept(evictor.retain([evictor.observe(example())])[0]) == [*best, 5, 6]


def test_attention_of_the_example():
    score = MixedScore("attention", window=2, kernel=1).score(example())
    wanted = torch.tensor([0.2234, 0.2010, 0.1810, 0.0819, 0.0335, 0, 0])
    assert_close(score[0, 0], wanted, 1e-3)


def test_a_measured_ratio_takes_the_place_of_the_prompts_own():
    view = example()
    by_layer = MixedScore(window=2, kernel=1).score(view)
    diversity, importance = (
        MixedScore(mode, window=2, kernel=1).score(view) for mode in ("diversity", "importance")
    )
    assert_close(by_layer, 0.3340 * diversity + 0.6660 * importance, 1e-3)
    at_ratio = MixedScore(window=2, kernel=1, ratios=((0.75,),)).score(view)
    assert_close(at_ratio, 0.75 * diversity + 0.25 * importance)


def test_equal_value_norms_count_for_nothing():
    view = example()
    same = LayerView(**{**vars(view), "values": torch.ones_like(view.values)})
    score = MixedScore("importance", window=2, kernel=1).score(same)
    assert_close(score, MixedScore("attention", window=2, kernel=1).score(same))


def reference(view, mode, window, kernel):
    """Scores (G, M) of the entries before the window, from one prompt of known arrays."""
    keys, values = view.keys[0].double().numpy(), view.values[0].double().numpy()
    heads, length, _ = keys.shape
    rows = view.attention.probabilities(torch.arange(length)[None])[0].double().numpy()
    group, outside = len(rows) // heads, length - window
    scores = []
    for g in range(heads):
        a = rows[g * group : (g + 1) * group, outside:, :outside].mean((0, 1))
        a = np.convolve(a, np.full(kernel, 1 / kernel), "same")
        unit = keys[g] / np.linalg.norm(keys[g], axis=1, keepdims=True)
        mean = unit.mean(0)
        r = (length * (mean @ mean) - 1) / (length - 1)

        def spread(x, a=a):
            x = (x - x.min()) / (x.max() - x.min())
            return x * a.mean() / x.mean()

        d = spread(-(unit[:outside] @ mean))
        v = spread(np.linalg.norm(values[g, :outside], axis=1))
        parts = {
            "attention": a,
            "diversity": d,
            "importance": a + v,
            "plain": 0.33 * (a + d + v),
            "headwise": r * d + (1 - r) * (a + v),
        }
        scores.append(parts[mode])
    return np.stack(scores)


@drawn(st.integers(8, 30), st.integers(1, 5), st.sampled_from([1, 3, 5]), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_scores_equal_a_reference(vision, window, kernel, seed):
    letters = "ss" + "v" * vision + "tt"
    view = Rows([letters], seed).views()[0]
    for mode in MODES:
        score = MixedScore(mode, window, kernel).score(view)[0].double().numpy()
        wanted = reference(view, mode, window, kernel)
        assert_close(score[:, :-window], wanted, 1e-4)
        assert (score[:, -window:] == 0).all()


@pytest.mark.parametrize("name", ["mixkv", "mixkv-pyramidkv", "mixkv-ada-kv"])
def test_attention_alone_is_the_host(name):
    """Under the mode "attention" nothing is left of the mix."""
    hosts = {
        "mixkv": method("snapkv", 0.4, window=4, per_head=True),
        "mixkv-pyramidkv": method("pyramidkv", 0.4, window=4, per_head=True),
        "mixkv-ada-kv": method("ada-kv", 0.4, window=4, kernel=5, pooling="avg"),
    }
    views = Rows(["ss" + "v" * 30 + "tttt", "v" * 20 + "tttttt"], 3).views()
    mixed = method(name, 0.4, mode="attention", window=4)
    if name == "mixkv-ada-kv":  # counts by other pooling than picks
        counting = replace(mixed.ranking.counting, kernel=5, pooling="avg")
        mixed = replace(mixed, ranking=replace(mixed.ranking, counting=counting))
    host = hosts[name]
    for ours, theirs in zip(
        mixed.retain([mixed.observe(view) for view in views]),
        host.retain([host.observe(view) for view in views]),
        strict=True,
    ):
        assert torch.equal(ours.index, theirs.index) and torch.equal(ours.valid, theirs.valid)


def test_on_ada_kv_heads_are_counted_by_attention_alone():
    views = Rows(["ss" + "v" * 40 + "tttt"], 1).views()
    mixed, host = method("mixkv-ada-kv", 0.3, window=4), method("ada-kv", 0.3, window=4)
    for ours, theirs in zip(
        mixed.retain([mixed.observe(view) for view in views]),
        host.retain([host.observe(view) for view in views]),
        strict=True,
    ):
        assert torch.equal(ours.counts, theirs.counts)
    # Within a head the mix decides: the best of it stay.
    scores = mixed.ranking.mixed.score(views[0])[0]
    retention = mixed.retain([mixed.observe(view) for view in views])[0]
    free = list(range(4, 42))
    for head in range(2):
        stays = [j for j in kept(retention, 0, head) if j in free]
        leaves = [j for j in free if j not in stays]
        assert float(scores[head, stays].min()) >= float(scores[head, leaves].max())


def test_heads_must_compete_where_the_ranking_has_claims():
    built = method("mixkv-ada-kv", 0.5, window=2)
    view = Rows(["ssvvvvvvtt"]).views()[0]
    alone = replace(built, selection=WindowFirst(2))
    with pytest.raises(UnsupportedError, match="AcrossHeads"):
        alone.retain([alone.observe(view)])


def test_options_by_name():
    built = method("mixkv", 0.5, joining="max", pooling="max")
    assert built.ranking == MixedScore("headwise", 32, 5, "max", "max", None)
    assert (built.budget, built.selection) == (Uniform(), WindowFirst(32))
    pyramid = method("mixkv-pyramidkv", 0.5, window=8, beta=5.0, form="released")
    assert pyramid.budget == Pyramid(5.0, 8, "released")
    ada = method("mixkv-ada-kv", 0.5, floor=0.5, normalise=False)
    assert ada.selection == AcrossHeads(32, 0.5, False, "exact")
    assert ada.ranking == MixedWithinHeads(
        ObservationWindow(32, 7, "max", True), MixedScore("headwise", 32, 5, "avg", "mean", None)
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: MixedScore(window=0), "window"),
        (lambda: MixedScore(kernel=4), "kernel"),
        (lambda: MixedScore("all"), "mode"),
        (lambda: MixedScore(joining="sum"), "joining"),
        (lambda: MixedScore(ratios=((0.5, 0.5),)), "ratios"),
        (lambda: MixedScore(ratios=((0.5,),) * 3), "ratios"),
        (lambda: MixedScore(ratios=((0.5, 1.5),) * 3), "ratios"),
        (lambda: MixedScore("plain", ratios=((0.5, 0.5),) * 3), "ratios"),
    ],
)
def test_values_out_of_range_are_named(make, name):
    with pytest.raises(InvalidValueError) as error:
        make().check(FACTS)
    assert error.value.name == name
    MixedScore(ratios=((0.0, 1.0),) * 3).check(FACTS)
