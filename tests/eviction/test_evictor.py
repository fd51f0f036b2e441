"""The composition: every registered method under the invariants that all must meet."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkv import TGVKV
from lightkv.catalogue import method, methods
from lightkv.contract.decoding import Grow
from lightkv.contract.retention import verify
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import HoldBudget
from lightkv.eviction.parts.rankings import Random
from lightkv.eviction.parts.selections import ByScore, VisionOnly
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, causal, kept

NAMES = [name for name, one in methods().items() if one.produces is Evicting]
# Released behaviour that departs from its budget by more than rounding.
LOSSY = {"tgvkv-released", "elasticcache-released", "snapkv-window-only"}
SHORT = {"window": 4}
WINDOWED = {"snapkv", "snapkv-window-only", "pyramidkv", "cake", "ada-kv"} | {
    "mixkv",
    "mixkv-pyramidkv",
    "mixkv-ada-kv",
}


def build(name, retention):
    return method(name, retention, **(SHORT if name in WINDOWED else {}))


def run(compressor, views):
    compressor.check(FACTS)
    compressor.check_layout(views[0].layout)
    return compressor.retain([compressor.observe(view) for view in views])


texts = st.builds(
    lambda s, v, t: "s" * s + "v" * v + "t" * t,
    st.integers(0, 8),
    st.integers(3, 25),
    st.integers(1, 12),
)


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(texts, min_size=1, max_size=3), st.integers(0, 3), st.floats(0.05, 0.95))
@settings(max_examples=6, deadline=None)
def test_invariants_of_every_method(name, rows, seed, retention):
    rows = Rows(rows, seed)
    compressor = build(name, retention)
    views = rows.views()
    retentions = run(compressor, views)
    layout = views[0].layout
    guarded = compressor.guarded(layout)
    for retention_ in retentions:
        assert (retention_.index.diff(dim=-1) > 0)[retention_.valid[..., :-1]].all()  # in order
        for row in range(layout.batch_size):
            sets = [kept(retention_, row, group) for group in range(retention_.index.shape[1])]
            must = set(guarded[row].nonzero()[:, 0].tolist())
            real = set(layout.real[row].nonzero()[:, 0].tolist())
            for stays in sets:
                assert must <= set(stays) <= real
    _check_totals(name, compressor, layout, guarded, retentions)


def _check_totals(name, compressor, layout, guarded, retentions):
    if name in LOSSY:
        return
    counted = compressor.selection.counted(layout)
    free = (layout.real & ~counted).sum(1)
    for row in range(layout.batch_size):
        entries = [float(r.counts[row].float().mean()) - float(free[row]) for r in retentions]
        wanted = compressor.retention * float(counted[row].sum()) * len(retentions)
        floor = float((guarded & counted)[row].sum()) * len(retentions)
        assert abs(sum(entries) - max(wanted, floor)) <= 0.5 + 1e-3
        asked = sum(float(r.requested[row] - free[row]) for r in retentions)
        assert asked == pytest.approx(wanted, abs=0.51)


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(texts, min_size=2, max_size=3), st.integers(0, 3), st.floats(0.1, 0.9))
@settings(max_examples=3, deadline=None)
def test_a_row_of_a_batch_is_treated_as_alone(name, rows, seed, retention):
    rows = Rows(rows, seed)
    compressor = build(name, retention)
    together = rows.views(padding=2)
    batch = run(compressor, together)
    for row, layout in enumerate(rows.layouts):
        padding = together[0].layout.length - layout.length
        alone = run(compressor, rows.views([row]))
        for part, single in zip(batch, alone, strict=True):
            for group in range(single.index.shape[1]):
                assert kept(part, row, group, padding) == kept(single, 0, group)
            assert_close(part.budget_ratio[row], single.budget_ratio[0])
            assert part.tail[row] == single.tail[0]


@pytest.mark.parametrize("name", NAMES)
def test_retention_one_keeps_everything_and_grows(name):
    rows = Rows(["ssvvvvvvttt", "vvvvvttttttt"])
    compressor = build(name, 1.0)
    views = rows.views()
    for retention, view in zip(run(compressor, views), views, strict=True):
        assert torch.equal(retention.index[0, 0], torch.arange(view.layout.length))
        assert torch.equal(retention.valid[:, 0], view.layout.real)
        assert retention.merge is None
    assert compressor.decode_policy() == Grow()


@given(texts, st.floats(0.05, 1), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_text_is_complete_whenever_the_budget_allows(text, retention, seed):
    rows = Rows([text], seed)
    layout = rows.layouts[0]
    compressor = TGVKV(retention=retention)
    for part in run(compressor, rows.views()):
        stays = torch.zeros(layout.length, dtype=torch.bool)
        stays[kept(part)] = True
        free_vision = stays & layout.vision[0] & ~compressor.guarded(layout)[0]
        if free_vision.any():
            assert stays[layout.text[0]].all()


def test_the_example_of_the_paper_in_one_layer():
    view = causal("ssvvvvvvvvttt", sharpness=2.0)
    compressor = TGVKV(retention=8 / 13, protect_first=0, protect_last=0)
    stays = kept(compressor.retain([compressor.observe(view)])[0])
    best = TextWeighted().score(view)[0, 2:10].topk(3).indices + 2
    assert stays == sorted([0, 1, *best.tolist(), 10, 11, 12])


def test_system_text_is_protected_as_an_option():
    view = causal("sssssvvvvvvvttt")
    open_ = Evicting(Uniform(), Random(), ByScore(), 0.4, protect_first=0, protect_last=0)
    assert not set(range(5)) <= set(kept(open_.retain([open_.observe(view)])[0]))
    closed = replace(open_, protect_system=True)
    stays = kept(closed.retain([closed.observe(view)])[0])
    assert set(range(5)) <= set(stays)
    assert len(stays) == 6


@pytest.mark.parametrize("entries", [1, 7, 12, 500])
def test_absolute_counts(entries):
    rows = Rows(["ssvvvvvvttt", "sssssvvvvvvvvvvvvttt"])
    for part in run(method("snapkv", entries=entries, window=3), rows.views()):
        for row, layout in enumerate(rows.layouts):
            assert int(part.counts[row, 0]) == min(max(entries, 5), layout.length)


def test_layers_of_different_lengths_keep_the_same_share():
    rows = Rows(["ssvvvvvvvvvvvvvvvvvvvvvvttt"])
    views = rows.views()
    short = torch.arange(9, 27)[None]
    layout = views[2].layout.select(short, torch.ones_like(short).bool())
    cut = replace(views[2], layout=layout)
    compressor = Evicting(Uniform(), Random(), ByScore(), 1 / 3, protect_first=1)
    counts = [int(r.counts[0, 0]) for r in run(compressor, [views[0], views[1], cut])]
    assert counts == [9, 9, 6]


def test_vision_only_counts_vision_entries():
    view = causal("ssvvvvvvvvvvtt")
    compressor = Evicting(TextVision(), TextWeighted(), VisionOnly(), 0.5, protect_first=0)
    part = compressor.retain([compressor.observe(view)])[0]
    assert int(part.counts) == 9
    assert float(part.requested) == 9
    assert float(part.budget_ratio) == pytest.approx(9 / 14)


def test_a_capacity_holds_although_prefill_keeps_everything():
    bounded = method("streamingllm-reindexed", 1.0, capacity=6)
    assert bounded.decode_policy() == HoldBudget("oldest", protect_first=4, capacity=6)
    assert bounded.position_rule() == "reindex"
    assert not bounded.keeps_all
    whole = method("streamingllm-reindexed", 1.0)
    assert whole.keeps_all and whole.decode_policy().static and whole.position_rule() == "keep"
    for part in run(bounded, Rows(["ssvvvttt"]).views()):
        assert kept(part) == list(range(8))


FORMS = {
    "pyramidkv": {"form": "released"},
    "ada-kv": {"form": "released"},
    "look-m": {"keep_all_text": True},
    "aircache": {"normalisation": "minmax"},
    "tgvkv": {"system": "extra"},
}


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in NAMES), *FORMS.items()], ids=str
)
@given(st.integers(0, 10**6), st.floats(0.2, 0.999))
@settings(max_examples=3, deadline=None)
def test_the_request_is_what_was_asked_for_where_layers_differ_in_length(
    name, options, seed, retention
):
    """Layers of a model that shortens its prompt hold different numbers of entries."""
    compressor = method(name, retention, **options, **(SHORT if name in WINDOWED else {}))
    long, short = (Rows([f"sss{'v' * count}{'t' * 9}"], seed) for count in (40, 9))
    retentions = run(compressor, [*long.views()[:2], *short.views()[2:]])
    layouts = [long.layouts[0]] * 2 + [short.layouts[0]]
    shared = [int(compressor.selection.shared(one).sum()) for one in layouts]
    free = [int((one.real & ~compressor.selection.counted(one)).sum()) for one in layouts]
    asked = sum(float(r.requested) for r in retentions)
    assert asked == pytest.approx(retention * sum(shared) + sum(free), rel=1e-5)
    for layout, retention_ in zip(layouts, retentions, strict=True):
        if name not in LOSSY:
            verify([retention_], [layout.lengths])


def test_a_prompt_that_released_tgvkv_leaves_alone_was_asked_for_a_share():
    rows = Rows(["ssvvvvvvvv"])  # no text after the image
    retentions = run(method("tgvkv-released", 0.5), rows.views())
    for part in retentions:
        assert kept(part) == list(range(10))
        assert float(part.requested) == 5
        verify([part], [[10]])
