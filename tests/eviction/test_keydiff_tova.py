"""KeyDiff and TOVA: the worked examples, options, and what they don't depend on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.catalogue import method
from lightkv.contract.view import LayerView
from lightkv.eviction import HoldBudget
from lightkv.eviction.methods.keydiff import KeyDifference
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.eviction.parts.selections import WindowFirst
from tests.closeness import assert_close
from tests.eviction.prompts import Rows, causal, kept, layer_of

KEYS = torch.tensor([[1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1], [-1, 0.3], [1, 1], [0.5, 0.5]])


def with_keys(keys: torch.Tensor) -> LayerView:
    """A layer with these keys (N, d) in one head."""
    view = causal("v" * (len(keys) - 1) + "t", heads=1)
    return LayerView(**{**vars(view), "keys": keys[None, None].float()})


def test_keydiff_example():
    view = with_keys(KEYS)
    score = KeyDifference().score(view)
    wanted = [-0.7459, -0.8149, -0.8852, -0.6661, 0.5230, -0.9984, -0.9984]
    assert_close(score[0, 0], torch.tensor(wanted), 1e-4)
    evictor = replace(method("keydiff", entries=3), protect_first=0, protect_last=0)
    assert kept(evictor.retain([evictor.observe(view)])[0]) == [0, 3, 4]
    # The ends are protected as for every other evictor, and paid for.
    evictor = method("keydiff", entries=6)
    assert kept(evictor.retain([evictor.observe(view)])[0]) == [0, 1, 2, 3, 4, 6]


@drawn(st.floats(0.1, 50), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_keydiff_reads_directions_and_real_entries_alone(scale, seed):
    """Lengths of keys, padding and other rows of the batch change nothing."""
    rows = Rows(["ssvvvvvtt", "vvvvvvvvvvvvtttt"], seed)
    ranking = KeyDifference()
    together = rows.views(padding=3)[0]
    factor = scale ** torch.rand(
        together.keys.shape[:3], generator=torch.Generator().manual_seed(seed)
    )
    longer = LayerView(**{**vars(together), "keys": together.keys * factor[..., None]})
    scores = ranking.score(longer)
    for row in range(2):
        alone = ranking.score(rows.views([row])[0])[0]
        assert_close(scores[row][..., -alone.shape[-1] :], alone)


def test_keydiff_may_share_one_set():
    view = Rows(["ssvvvvvtt"]).views()[0]
    shared = KeyDifference(per_head=False).score(view)
    assert_close(shared, KeyDifference().score(view).mean(1))
    assert method("keydiff", 0.5, per_head=False).ranking == KeyDifference(False)
    assert method("keydiff", 0.5).attention_layers(Rows(["vt"]).facts) == ()


def test_tova_example():
    rows = torch.zeros(2, 6, 6)
    rows[0, 5] = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.15, 0.05])
    rows[1, 5] = torch.tensor([0.3, 0.1, 0.2, 0.05, 0.05, 0.3])
    view = layer_of("vvvvvt", rows)
    evictor = replace(method("tova", entries=3), protect_first=0, protect_last=0)
    retention = evictor.retain([evictor.observe(view)])[0]
    assert retention.index.shape[1] == 1  # one set for both heads
    assert kept(retention) == [0, 1, 5]
    # The newest entry stays though it has little weight.
    assert kept(replace(evictor, entries=1).retain([evictor.observe(view)])[0]) == [5]


def test_tova_goes_on_while_decoding():
    evictor = method("tova", 0.5)
    assert evictor.decode == HoldBudget("attention", protect_first=4, recent=1)
    assert evictor.ranking == ObservationWindow(1, 1, "none", False)
    assert evictor.selection == WindowFirst(1)


@pytest.mark.parametrize("seed", range(3))
def test_tova_reads_the_last_row_alone(seed):
    texts, evictor = ["ssvvvvvttt"], method("tova", entries=6)
    view = causal(texts[0], seed)
    changed = causal(texts[0], seed + 50)
    rows = changed.attention.probabilities(torch.arange(10)[None])[0]
    rows[:, -1] = view.attention.probabilities(torch.arange(10)[None])[0, :, -1]
    other = layer_of(texts[0], rows)
    first, second = (kept(evictor.retain([evictor.observe(v)])[0]) for v in (view, other))
    assert first == second
