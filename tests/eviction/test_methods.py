"""The registry, and the compositions behind the names."""

import pytest

from lightkv import TGVKV
from lightkv.catalogue import method
from lightkv.catalogue import methods as catalogue
from lightkv.errors import InvalidValueError, UnknownNameError
from lightkv.eviction import HoldBudget
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.cake import WindowIndicator
from lightkv.eviction.methods.look_m import PivotMerge, RecentAndText
from lightkv.eviction.methods.prefixkv import CumulativeMass, Profile
from lightkv.eviction.methods.pyramidkv import Pyramid
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.heads import AcrossHeads
from lightkv.eviction.parts.rankings import ObservationWindow, SelfAttention
from lightkv.eviction.parts.selections import ByScore, TextFirst
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted

EVICTORS = [name for name, one in catalogue().items() if one.produces is Evicting]


def test_every_method_has_a_description_of_one_line():
    for name, one in catalogue().items():
        assert one.description.endswith("."), name
        assert len(one.description) < 100


@pytest.mark.parametrize("name", EVICTORS)
def test_every_method_says_what_it_is(name):
    built = method(name, 0.2)
    assert isinstance(built, Evicting)
    assert built.retention == 0.2
    for part in (built.budget, built.ranking, built.selection):
        assert type(part).__name__ in repr(built)
    assert built == method(name, 0.2)
    assert hash(built) == hash(method(name, 0.2))
    assert built.parts == (built,)


def test_unknown_names_list_the_nearest():
    with pytest.raises(UnknownNameError, match="snapkv"):
        method("snap-kv", 0.5)


def test_a_share_or_a_number_of_entries():
    assert method("h2o", entries=64).entries == 64
    with pytest.raises(InvalidValueError, match="retention"):
        method("h2o", 0.5, entries=64)


def test_the_full_ablation_row_is_tgvkv():
    full, named = method("tvb1-twr1-tpr1", 0.2), TGVKV(retention=0.2)
    for part in ("budget", "ranking", "selection", "retention", "decode", "redistribute"):
        assert getattr(full, part) == getattr(named, part)


def test_ablation_rows_switch_one_part_each():
    for tvb in (0, 1):
        for twr in (0, 1):
            for tpr in (0, 1):
                row = method(f"tvb{tvb}-twr{twr}-tpr{tpr}", 0.2)
                assert row.budget == (TextVision() if tvb else Uniform())
                assert row.ranking == (TextWeighted() if twr else SelfAttention())
                assert row.selection == (TextFirst() if tpr else ByScore())


def test_options_reach_the_parts():
    assert method("prefixkv", 0.2).budget == CumulativeMass()
    assert method("prefixkv", 0.2, shares=(0.1, 0.3)).budget == Profile((0.1, 0.3))
    every = method("look-m", 0.2, keep_all_text=True, recent=0.1, merging="weighted")
    assert every.selection == RecentAndText(TextFirst("text"), 0.1)
    assert every.merge == PivotMerge("weighted")
    assert method("snapkv", 0.2, window=8, per_head=True).ranking.per_head
    ada = method("ada-kv", 0.2, normalise=False, form="released", floor=0.1, kernel=3)
    assert ada.selection == AcrossHeads(32, 0.1, False, "released")
    assert ada.ranking == ObservationWindow(32, 3, "max", True)
    pyramid = method("pyramidkv", 0.2, window=8, beta=5.0, form="kvpress", kernel=3, per_head=True)
    assert pyramid.budget == Pyramid(5.0, 8, "kvpress")
    assert pyramid.ranking == ObservationWindow(8, 3, "avg", True)
    cake = method("cake", 0.2, window=8, kernel=3, decode_kernel=5)
    assert cake.ranking == WindowIndicator(8, 200.0, 3)
    assert cake.decode == HoldBudget("attention", recent=8, kernel=5)
    assert method("tgvkv", 0.2, system="extra", text_scope="text") == TGVKV(
        ranking=TextWeighted("text"), selection=TextFirst("extra"), retention=0.2
    )
