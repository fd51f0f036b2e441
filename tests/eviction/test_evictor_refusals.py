"""What evictors need and refuse, in words and before anything runs."""

from dataclasses import replace

import pytest
import torch

from lightkv import TGVKV
from lightkv.catalogue import method
from lightkv.contract.attention_sources import GivenAttention
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import EvictOne, HoldBudget
from lightkv.eviction.parts.rankings import ObservationWindow, Random, SelfAttention
from lightkv.eviction.parts.selections import ByScore, TextFirst
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted
from tests.eviction.prompts import FACTS, Rows, causal, layout_of


def test_what_decode_policies_need():
    view = causal("ssvvvvvvttt")
    compressor = Evicting(TextVision(), TextWeighted(), TextFirst(), 0.6, decode=EvictOne())
    part = compressor.retain([compressor.observe(view)])[0]
    assert int(part.tail) == 3
    assert float(part.budget_ratio) == pytest.approx(0.6)
    assert compressor.decode_policy() == EvictOne()


def test_attention_is_asked_for_only_where_needed():
    assert method("random", 0.5).attention_layers(FACTS) == ()
    assert method("streamingllm", 0.5).attention_layers(FACTS) == ()
    assert method("tgvkv", 0.5).attention_layers(FACTS) == (0, 1, 2)
    mixed = Evicting(TextVision(), Random(), ByScore(), 0.5)
    assert mixed.attention_layers(FACTS) == (0, 1, 2)


@pytest.mark.parametrize(
    ("compressor", "name"),
    [
        (lambda: TGVKV(retention=0.0), "retention"),
        (lambda: TGVKV(retention=1.1), "retention"),
        (lambda: TGVKV(retention=float("nan")), "retention"),
        (lambda: TGVKV(0.2), "budget"),
        (lambda: TGVKV(retention=1.0, entries=0), "entries"),
        (lambda: TGVKV(retention=0.5, entries=64), "retention"),
        (lambda: TGVKV(protect_first=-1), "protect_first"),
        (lambda: TGVKV(protect_last=-1), "protect_last"),
        (lambda: TGVKV(ranking=TextWeighted(text_scope="none")), "text_scope"),
        (lambda: TGVKV(decode=HoldBudget(recent=-1)), "recent"),
        (lambda: TGVKV(decode="grow"), "decode"),
        (lambda: TGVKV(merge="anchor"), "merge"),
        (lambda: Evicting(ranking=ObservationWindow(kernel=2)), "kernel"),
    ],
)
def test_values_out_of_range_are_named_before_anything_runs(compressor, name):
    with pytest.raises(InvalidValueError) as error:
        compressor().check(FACTS)
    assert error.value.name == name


@pytest.mark.parametrize("text", ["sstt", "tttt"])
def test_vision_methods_need_an_image(text):
    with pytest.raises(InputError, match="vision token"):
        TGVKV().check_layout(layout_of(text))
    with pytest.raises(InputError, match="vision token"):
        method("random-vision", 0.5).check_layout(layout_of(text))
    method("h2o", 0.5).check_layout(layout_of(text))


def test_the_prompt_at_fault_is_named():
    layout = Rows(["svvtt", "svv"]).views()[0].layout
    with pytest.raises(InputError, match="prompt 1"):
        TGVKV().check_layout(layout)


def test_attention_that_is_not_finite_names_the_layer():
    view = causal("svvtt")
    attention = view.read_attention().probabilities(torch.arange(5)[None])
    attention[0, 0, 4, 1] = torch.nan
    broken = replace(view, attention=GivenAttention(attention))
    for budget in (Uniform(), TextVision()):
        for ranking in (SelfAttention(), TextWeighted()):
            method = Evicting(budget, ranking, ByScore(), 0.5)
            seen = [method.observe(one) for one in (view, view, broken)]
            with pytest.raises(UnsupportedError, match="layer 2"):
                method.retain(seen)


def test_attention_that_was_not_asked_for_is_named():
    view = replace(causal("svvtt"), attention=None)
    with pytest.raises(RuntimeError, match="layer 0"):
        TGVKV().observe(view)
