"""Budgets over layers: published examples and definitions."""

import pytest
import torch

from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.eviction.methods.aircache import StrengthSkewness
from lightkv.eviction.methods.cake import EntropyVariance
from lightkv.eviction.methods.prefixkv import CumulativeMass, Profile
from lightkv.eviction.methods.pyramidkv import Pyramid
from lightkv.eviction.methods.tgvkv_ablations import TextText, VisionVision
from lightkv.eviction.parts.allocation import round_to_sum
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.text_grounded import TextVision
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, causal, layer_of, layout_of


def decide(budget, strengths, nominal, lengths, floors=0, redistribute=True):
    """Entries of one prompt; one nominal number and one length for all layers, or one each."""
    layers = len(strengths)
    nominal = torch.as_tensor(nominal, dtype=torch.float64).expand(layers)[None]
    lengths = torch.as_tensor(lengths).expand(layers)[None]
    floors = torch.full_like(lengths, floors)
    strengths = [torch.as_tensor(s, dtype=torch.float32)[None] for s in strengths]
    return budget.decide(strengths, nominal, lengths, floors, redistribute).entries[0].tolist()


@pytest.mark.parametrize(
    ("budget", "queries", "keys"),
    [
        (TextVision(), "question", "vision"),
        (VisionVision(), "vision", "vision"),
        (TextText(), "question", "question"),
    ],
    ids=["TV", "VV", "TT"],
)
def test_strength_is_the_sum_of_a_block(budget, queries, keys):
    view = causal("ssvvvvttt")
    attention = view.read_attention().probabilities(torch.arange(9)[None])[0].mean(0)
    block = attention[getattr(view.layout, queries)[0]][:, getattr(view.layout, keys)[0]]
    assert_close(budget.strength(view, torch.zeros(1, 9)), block.sum()[None])


def test_text_vision_budgets_are_shares_of_the_total():
    # Eq. 5: 3 layers of 100 entries at 20 %: 60 entries by 1 : 2 : 3.
    assert decide(TextVision(), [1.0, 2.0, 3.0], 20.0, 100) == [10, 20, 30]


def test_a_layer_that_wants_more_than_it_has_shares_the_excess():
    strengths = [8.0, 1.0, 1.0]
    assert decide(TextVision(), strengths, 50.0, 100) == [100, 25, 25]
    assert decide(TextVision(), strengths, 50.0, 100, redistribute=False) == [100, 15, 15]


def test_strengths_that_are_all_zero_are_refused():
    with pytest.raises(UnsupportedError, match="TextVision"):
        decide(TextVision(), [0.0, 0.0], 5.0, 10)


def test_uniform_is_the_same_share_of_every_layer():
    assert decide(Uniform(), [1.0, 1.0, 1.0], [20.0, 20.0, 10.0], [100, 100, 50]) == [20, 20, 10]


PYRAMID = [
    (100, 12, 20, [20, 14, 8, 2]),
    (100, 12, 5, [18, 13, 8, 3]),
    (20, 12, 20, [18, 13, 8, 3]),
    (16, 12, 20, [10, 10, 10, 10]),
]


@pytest.mark.parametrize(("length", "capacity", "beta", "past"), PYRAMID)
def test_pyramid_released_examples(length, capacity, beta, past):
    budget = Pyramid(beta, window=2, form="released")
    entries = decide(budget, [1.0] * 4, float(capacity), length)
    assert [count - 2 for count in entries] == past


def test_pyramid_leaves_a_short_prompt_alone():
    assert decide(Pyramid(20, 2, "released"), [1.0] * 4, 12.0, 11) == [11] * 4


def test_pyramid_kvpress_example():
    assert decide(Pyramid(10, 2, "kvpress"), [1.0] * 4, 40.0, 100) == [76, 52, 28, 4]
    assert decide(Pyramid(10, 8, "kvpress"), [1.0] * 4, 40.0, 100) == [40] * 4
    # The first layer is clipped to what lies before the window, the last gets the rest.
    assert decide(Pyramid(5, 8, "kvpress"), [1.0] * 4, 32.0, 64) == [56, 40, 24, 8]
    # The last layer is not floored.
    assert decide(Pyramid(5, 8, "kvpress"), [1.0] * 4, 128.0, 640) == [230, 162, 94, 26]
    # One entry less than the window in the last layer: uniform.
    assert decide(Pyramid(5, 9, "kvpress"), [1.0] * 4, 32.0, 64) == [55, 40, 24, 9]
    assert decide(Pyramid(5, 10, "kvpress"), [1.0] * 4, 31.0, 64) == [31] * 4


@pytest.mark.parametrize("capacity", [1.0, 12.0, 40.0, 77.0])
def test_linear_pyramid_meets_the_total_and_falls(capacity):
    entries = decide(Pyramid(window=2), [1.0] * 5, capacity, 100)
    assert sum(entries) == 5 * capacity
    assert entries == sorted(entries, reverse=True)


def test_prefixkv_example():
    masses = [[0.7, 0.1, 0.1, 0.05, 0.05], [0.3, 0.25, 0.2, 0.15, 0.1]]
    assert decide(CumulativeMass(), masses, 0.6 * 5, 5) == [2, 4]


def test_prefixkv_search_has_no_tolerance():
    # The released search stops within 5 entries and keeps (3, 4) of the same two layers.
    masses = [[0.7, 0.1, 0.1, 0.05, 0.05], [0.3, 0.25, 0.2, 0.15, 0.1]]
    for total in range(2, 10):
        assert sum(decide(CumulativeMass(), masses, total / 2, 5)) == total


def test_cumulative_mass_is_the_common_threshold():
    masses = torch.rand(4, 30, generator=torch.Generator().manual_seed(0)) ** 3
    masses = masses / masses.sum(1, keepdim=True)
    entries = decide(CumulativeMass(), list(masses), 9.0, 30)
    ordered = masses.double().sort(1, descending=True).values.cumsum(1)
    held = [0.0 if n == 0 else float(row[n - 1]) for n, row in zip(entries, ordered, strict=True)]
    before = [0.0 if n <= 1 else float(row[n - 2]) for n, row in zip(entries, ordered, strict=True)]
    assert sum(entries) == 36
    # One threshold lies above the mass before every layer's last entry, and not above the mass
    # that comes before its first evicted one.
    assert max(before) <= min(held)


def test_mass_ignores_padding_and_heads():
    view = Rows(["svvtt", "sssvvvvvtttt"]).views()[0]
    score = torch.rand(2, 2, view.layout.length) + 0.1
    mass = CumulativeMass().strength(view, score)
    assert_close(mass.sum(1), torch.ones(2))
    assert (mass[0, :-5] == 0).all()
    expected = score[0, :, -5:].mean(0)
    assert_close(mass[0, -5:], expected / expected.sum())


def test_profile_gives_the_measured_shares_at_any_retention():
    profile = Profile.measured(torch.tensor([[10, 30], [30, 50]]), torch.tensor([100, 100]))
    assert_close(profile.shares, (0.2, 0.4))
    assert decide(profile, [1.0, 1.0], 30.0, 100) == [20, 40]
    assert decide(profile, [1.0, 1.0], 15.0, 100) == [10, 20]


def test_cake_example():
    rows = torch.zeros(6, 6)
    rows[4, :4] = 0.25
    rows[5, :4] = torch.tensor([0.7, 0.1, 0.1, 0.1])
    view = layer_of("vvvvtt", rows)
    strength = EntropyVariance(window=2).strength(view, torch.zeros(1, 6))
    assert_close(strength, torch.tensor([2.327 * 0.135]), 1e-3)
    warm = EntropyVariance(window=2, tau1=2.0, tau2=0.5).strength(view, torch.zeros(1, 6))
    assert_close(warm, torch.tensor([2.327**0.5 * 0.135**2]), 1e-3)


def test_cake_window_rows_that_agree_have_no_strength():
    rows = torch.zeros(6, 6)
    rows[4, :4] = rows[5, :4] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    strength = EntropyVariance(window=2).strength(layer_of("vvvvtt", rows), torch.zeros(1, 6))
    assert float(strength) == pytest.approx(0, abs=1e-6)


def test_cake_budgets_example():
    # Raw (15, 9, 6) beyond a window of 2, at most 12 beyond it, 30 in all.
    entries = decide(EntropyVariance(window=2), [15.0, 9.0, 6.0], 12.0, 14)
    assert [count - 2 for count in entries] == [12, 11, 7]


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (lambda: Pyramid(beta=0.5), "beta"),
        (lambda: Pyramid(window=-1), "window"),
        (lambda: Pyramid(form="steep"), "form"),
        (lambda: Profile((0.5, 0.5)), "shares"),
        (lambda: Profile((0.5, -0.5, 0.5)), "shares"),
        (lambda: Profile((0.0, 0.0, 0.0)), "shares"),
        (lambda: EntropyVariance(window=1), "window"),
        (lambda: EntropyVariance(tau1=0), "tau1"),
        (lambda: EntropyVariance(tau2=-1), "tau2"),
    ],
)
def test_values_out_of_range_are_named(budget, name):
    with pytest.raises(InvalidValueError) as error:
        budget().check(FACTS)
    assert error.value.name == name


@pytest.mark.parametrize(
    "budget",
    [TextVision(), VisionVision(), TextText(), EntropyVariance(3)],
    ids=repr,
)
def test_strengths_do_not_depend_on_padding_or_company(budget):
    rows = Rows(["ssvvvvvvttt", "vvvvttttttt", "sssvvvvvvvvvvvvtttttt"], seed=5)
    table = torch.rand(21, generator=torch.Generator().manual_seed(0))
    for layer, together in enumerate(rows.views(padding=3)):
        batch = budget.strength(together, table[together.layout.position.clamp_min(0)])
        for row in range(3):
            alone = rows.views([row])[layer]
            single = budget.strength(alone, table[alone.layout.position])
            assert_close(batch[row], single[0])


def test_round_to_sum_of_aircache_counts():
    assert round_to_sum(torch.tensor([[1.4, 2.6]], dtype=torch.float64)).tolist() == [[1, 3]]


def test_layout_letters():
    assert layout_of("sv|t").kind.tolist() == [[1, 2, 4, 3]]


CLAIMS = [
    (Uniform(), 1),
    (TextVision(), 1),
    (Pyramid(3, 4), 1),
    (Pyramid(3, 4, "released"), 1),
    (Pyramid(3, 4, "kvpress"), 1),
    (EntropyVariance(window=3), 1),
    (StrengthSkewness(), 2),
    (CumulativeMass(), 30),
]


@pytest.mark.parametrize(("budget", "width"), CLAIMS, ids=lambda value: str(value))
@pytest.mark.parametrize("seed", range(30))
def test_every_row_of_a_batch_has_its_own_wishes(budget, width, seed):
    draw = torch.Generator().manual_seed(seed)
    rows, layers = 3, int(torch.randint(1, 6, (1,), generator=draw))
    strengths = [torch.rand(rows, width, generator=draw) for _ in range(layers)]
    strengths = [one[:, 0] if width == 1 else one for one in strengths]
    lengths = torch.randint(5, 30, (rows, 1), generator=draw).expand(-1, layers)
    nominal = lengths * torch.rand(rows, 1, generator=draw, dtype=torch.float64)
    wishes = budget.allocate(strengths, nominal, lengths)
    for row in range(rows):
        part = slice(row, row + 1)
        alone = budget.allocate([one[part] for one in strengths], nominal[part], lengths[part])
        assert_close(wishes[part], alone)


def test_cake_window_that_is_longer_than_a_row():
    texts = ["vvtt", "ssvvvvvvvtttt"]
    rows = Rows(texts, 3)
    budget = EntropyVariance(6)
    view = rows.views()[0]
    together = budget.strength(view, view.layout.real.float())
    for row in range(len(texts)):
        alone = rows.views([row])[0]
        assert_close(together[row : row + 1], budget.strength(alone, alone.layout.real.float()))
