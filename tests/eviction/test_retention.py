"""Retention rules: who stays under a budget."""

import pytest
import torch
from hypothesis import given as given_examples
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.contract.compressor import Observation
from lightkv.contract.layout import TokenKind
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.tgvkv_ablations import VisionFirst
from lightkv.eviction.parts.heads import AcrossHeads
from lightkv.eviction.parts.protection import protected
from lightkv.eviction.parts.selections import (
    ByScore,
    TextFirst,
    VisionOnly,
    WindowFirst,
    WithRecent,
    keep_best,
)
from tests.eviction.prompts import FACTS, layout_of


def stays(rule, text, score, budget, first=0, last=0, system=False):
    """Entries of one prompt that stay."""
    layout = layout_of(text)
    guard = protected(layout, first, last, system) | rule.fixed(layout)
    keep = rule.keep(torch.tensor([score]), layout, torch.tensor([budget]), guard)
    return keep[0].nonzero()[:, 0].tolist()


def test_ties_keep_the_lower_index():
    keep = keep_best(torch.zeros(1, 1, 5), torch.zeros(1, 1, 5).long(), torch.tensor([[2]]))
    assert keep.tolist() == [[[True, True, False, False, False]]]


@given_examples(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=20),
    st.integers(0, 25),
)
@settings(max_examples=80, deadline=None)
def test_keep_best_is_sorting_by_tier_score_index(entries, budget):
    tiers, scores = zip(*entries, strict=True)
    order = sorted(range(len(entries)), key=lambda i: (-tiers[i], -scores[i], i))
    keep = keep_best(
        torch.tensor([[scores]]).float(), torch.tensor([[tiers]]), torch.tensor([[budget]])
    )
    assert keep[0, 0].nonzero()[:, 0].tolist() == sorted(order[:budget])


SCORES = [0.1, 0.2, 0.9, 0.8, 0.7, 0.3, 0.6, 0.4]


def test_by_score():
    assert stays(ByScore(), "ssvvvttt", SCORES, 3) == [2, 3, 4]
    assert stays(ByScore(), "ssvvvttt", SCORES, 3, first=1, last=1) == [0, 2, 7]


def test_text_first_is_equation_10():
    for system in ("kept", "text"):
        # Budget above the text: all text, then the best vision.
        assert stays(TextFirst(system), "ssvvvttt", SCORES, 6) == [0, 1, 2, 5, 6, 7]
        # Budget not above the text: no vision, the best text.
        assert stays(TextFirst(system), "ssvvvttt", SCORES, 5) == [0, 1, 5, 6, 7]
    assert stays(TextFirst("text"), "ssvvvttt", SCORES, 2) == [6, 7]


def test_system_text_is_kept_and_paid_for():
    assert stays(TextFirst(), "ssvvvttt", SCORES, 4) == [0, 1, 6, 7]
    assert stays(TextFirst(), "ssvvvttt", SCORES, 2) == [0, 1]
    assert stays(TextFirst(), "ssvvvttt", SCORES, 1) == [0, 1]


def test_system_text_is_kept_beyond_the_budget():
    assert stays(TextFirst("extra"), "ssvvvttt", SCORES, 4) == [0, 1, 2, 5, 6, 7]
    assert stays(TextFirst("extra"), "ssvvvttt", SCORES, 2) == [0, 1, 6, 7]


@pytest.mark.parametrize(
    ("system", "kinds"), [("kept", (35, 0, 0)), ("extra", (35, 12, 20)), ("text", (14, 0, 18))]
)
def test_the_budget_of_a_common_prompt(system, kinds):
    """Of 35 + 576 + 20 tokens 5 % are 31.55; Eq. 10 with N_t = 20 leaves about 11 for vision."""
    layout = layout_of("s" * 35 + "v" * 576 + "t" * 20)
    evictor = Evicting(selection=TextFirst(system), retention=0.05, protect_first=0, protect_last=0)
    # The question scores above the system text, but for two tokens that score least.
    score = layout.question.float() - (layout.position >= 629).float() * 2
    one = torch.ones(1)
    retention = evictor.retain([Observation(layout, score, one)])[0]
    kept = retention.index[retention.valid]
    mask = torch.zeros_like(layout.real)
    mask[0, kept] = True
    of_kind = (layout.kind == TokenKind.SYSTEM, layout.vision, layout.question)
    assert tuple(int((mask & kind).sum()) for kind in of_kind) == kinds
    asked = 0.05 * 631 + (35 if system == "extra" else 0)
    assert float(retention.requested) == pytest.approx(asked)


def test_separators_are_text():
    assert stays(TextFirst(), "v|vt", [9.0, 0.0, 8.0, 1.0], 2) == [1, 3]


def test_protected_vision_stays_and_is_paid_for():
    assert stays(TextFirst(), "vvvvvttt", SCORES, 5, first=4, last=1) == [0, 1, 2, 3, 7]
    assert stays(TextFirst(), "vvvvvttt", SCORES, 6, first=4, last=1) == [0, 1, 2, 3, 6, 7]


def test_protection_may_exceed_the_budget():
    assert stays(ByScore(), "ssvvvttt", SCORES, 2, first=4, last=1) == [0, 1, 2, 3, 7]


def test_system_text_is_protected_as_an_option():
    assert stays(ByScore(), "ssvvvttt", SCORES, 4, system=True) == [0, 1, 2, 3]


def test_vision_first_drops_all_text_before_vision():
    assert stays(VisionFirst("text"), "ssvvvttt", SCORES, 4) == [2, 3, 4, 6]
    assert stays(VisionFirst("text"), "ssvvvttt", SCORES, 2) == [2, 3]
    assert stays(VisionFirst(), "ssvvvttt", SCORES, 4) == [0, 1, 2, 3]


def test_vision_only_counts_vision_or_all():
    assert stays(VisionOnly(), "ssvvvttt", SCORES, 1) == [0, 1, 2, 5, 6, 7]
    rule = VisionOnly(ratio_of="all")
    assert stays(rule, "ssvvvttt", SCORES, 7) == [0, 1, 2, 3, 5, 6, 7]
    assert stays(rule, "ssvvvttt", SCORES, 2) == [0, 1, 5, 6, 7]


def test_snapkv_example():
    pooled = [0.05, 0.25, 0.2333, 0.2167, 0.1167, 0.10, 0.0, 0.0]
    assert stays(WindowFirst(2), "ssvvvvtt", pooled, 5) == [1, 2, 3, 6, 7]


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("truncate_window", [5, 6, 7]),
        ("sinks_first", [0, 1, 7]),
        ("window_only", [4, 5, 6, 7]),
    ],
)
def test_a_budget_within_the_window(short, expected):
    rule = WindowFirst(4, short, sinks=2)
    assert stays(rule, "ssvvvttt", SCORES, 3) == expected


def test_a_budget_beyond_the_window_has_no_sinks():
    rule = WindowFirst(2, "sinks_first", sinks=2)
    assert stays(rule, "ssvvvttt", SCORES, 4) == [2, 3, 6, 7]


def test_truncated_window_with_protected_sinks():
    assert stays(WindowFirst(4), "ssvvvttt", SCORES, 4, first=2) == [0, 1, 6, 7]


def test_h2o_example():
    sums = [2.8, 1.2, 0.9, 0.8, 0.25, 0.05]
    assert stays(WithRecent(ByScore(), 0.5), "ssvvtt", sums, 4) == [0, 1, 4, 5]
    normalised = [0.467, 0.24, 0.225, 0.267, 0.125, 0.05]
    assert stays(WithRecent(ByScore(), 0.5), "ssvvtt", normalised, 4) == [0, 3, 4, 5]
    # Without a recent window, first and last protected.
    assert stays(ByScore(), "ssvvtt", sums, 4, first=1, last=1) == [0, 1, 2, 5]


LOOK_M = [2.0, 0.5, 0.9, 0.3, 0.6, 0.2, 0.4, 0.1]


def test_look_m_example():
    # hh = 2 of text and one recent: exactly three, or every text entry.
    exact = WithRecent(TextFirst(), 1 / 3)
    assert stays(exact, "ttvvvvtt", LOOK_M, 3) == [0, 1, 7]
    released = WithRecent(VisionOnly(ratio_of="all"), 1 / 3)
    assert stays(released, "ttvvvvtt", LOOK_M, 3) == [0, 1, 6, 7]
    # hh = 4: the text has room for one vision entry.
    assert stays(WithRecent(TextFirst(), 0.2), "ttvvvvtt", LOOK_M, 5) == [0, 1, 2, 6, 7]


ADA = [[0.5, 0.3, 0.1, 0.05, 0.05], [0.25, 0.2, 0.2, 0.2, 0.15]]


def head_counts(rule, budget=3, scores=ADA):
    layout = layout_of("vvvvt"[: len(scores[0])])
    guard = protected(layout, 0, 0)
    keep = rule.keep(torch.tensor([scores]), layout, torch.tensor([budget]), guard)
    return keep[0].sum(-1).tolist()


def test_ada_kv_example():
    assert head_counts(AcrossHeads(0, 0.0)) == [2, 4]
    assert head_counts(AcrossHeads(0, 0.2, form="released")) == [2, 3]
    assert head_counts(AcrossHeads(0, 0.2)) == [2, 4]


def test_ada_kv_floor_is_kept_by_every_head():
    lopsided = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.01, 0.02, 0.01, 0.01, 0.01]]
    assert head_counts(AcrossHeads(0, 0.0), scores=lopsided) == [5, 1]
    assert head_counts(AcrossHeads(0, 0.7), scores=lopsided) == [4, 2]
    assert head_counts(AcrossHeads(0, 1.0), scores=lopsided) == [3, 3]


def test_ada_kv_normalised_scores_compare_by_what_an_equal_budget_would_hold():
    # Head 0 is concentrated (its top 3 hold .9), head 1 spread (.65): head 0 gains weight.
    counts = head_counts(AcrossHeads(0, 0.0, normalise=True))
    assert sum(counts) == 6
    assert counts[0] >= 2


def test_ada_kv_keeps_the_window_in_every_head_and_the_total():
    layout = layout_of("ssvvvvvvtt")
    score = torch.rand(1, 3, 10, generator=torch.Generator().manual_seed(0))
    guard = protected(layout, 1, 1)
    for budget in range(3, 11):
        keep = AcrossHeads(2, 0.2).keep(score, layout, torch.tensor([budget]), guard)
        assert int(keep.sum()) == 3 * budget
        assert keep[0, :, [0, 8, 9]].all()


def test_ada_kv_budget_within_the_window_keeps_its_newest():
    layout = layout_of("ssvvvvvvtt")
    guard = protected(layout, 1, 1)
    keep = AcrossHeads(6, 0.2).keep(torch.zeros(1, 2, 10), layout, torch.tensor([4]), guard)
    for head in range(2):
        assert keep[0, head].nonzero()[:, 0].tolist() == [0, 7, 8, 9]


def test_ada_kv_needs_scores_of_heads():
    layout = layout_of("svt")
    with pytest.raises(UnsupportedError, match="each head"):
        AcrossHeads(1).keep(torch.zeros(1, 3), layout, torch.tensor([1]), protected(layout, 0, 0))


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (lambda: VisionOnly("text"), "ratio_of"),
        (lambda: WindowFirst(-1), "window"),
        (lambda: WindowFirst(4, "none"), "budget_le_window"),
        (lambda: WindowFirst(4, sinks=-1), "sinks"),
        (lambda: WithRecent(share=1.5), "share"),
        (lambda: WithRecent(WindowFirst(-1)), "window"),
        (lambda: AcrossHeads(-1), "window"),
        (lambda: AcrossHeads(1, 1.5), "floor"),
        (lambda: AcrossHeads(1, 0.5, form="loose"), "form"),
    ],
)
def test_values_out_of_range_are_named(rule, name):
    with pytest.raises(InvalidValueError) as error:
        rule().check(FACTS)
    assert error.value.name == name
