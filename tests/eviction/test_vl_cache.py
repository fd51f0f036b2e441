"""VL-Cache: the worked example, its forms, and a reference in plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from lightkv.catalogue import method
from lightkv.contract.layout import TokenKind
from lightkv.errors import InputError, InvalidValueError
from lightkv.eviction.methods.vl_cache import Density, PostVision, after_vision
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, kept, layer_of, layout_of

FIRST = [
    [0.5, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01],
    [0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.02, 0.02, 0.01],
    [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01],
]
SECOND = [
    [0.992, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.002],
    [0.05, 0.9, 0.04, 0.002, 0.002, 0.002, 0.001, 0.001, 0.002],
    [0.01, 0.01, 0.9, 0.05, 0.01, 0.005, 0.005, 0.005, 0.0025, 0.0025],
]


def layers():
    """The two layers of the example: seven vision tokens, three text tokens."""
    for rows in (FIRST, SECOND):
        full = [[1.0] for _ in range(7)] + rows
        yield layer_of("v" * 7 + "t" * 3, full)


def test_sparsity_of_the_example():
    for view, sparsity in zip(layers(), (1 / 27, 2 / 3), strict=True):
        density = Density().strength(view, torch.zeros(1, 10))
        assert_close(density, torch.tensor([1 - sparsity]), 1e-6)


@pytest.mark.parametrize(
    ("window", "sets"),
    [("same", ([0, 1, 2, 3, 4, 9], [0, 9])), ("own", ([0, 1, 2, 3, 4, 9], [0, 2, 9]))],
)
def test_kept_sets_of_the_example(window, sets):
    evictor = method("vl-cache", 0.4, window=window, form="released")
    evictor = replace(evictor, protect_first=0, protect_last=0)
    retentions = evictor.retain([evictor.observe(view) for view in layers()])
    assert tuple(kept(one) for one in retentions) == sets


def test_the_exact_form_meets_the_total():
    evictor = replace(method("vl-cache", 0.4), protect_first=0, protect_last=0)
    retentions = evictor.retain([evictor.observe(view) for view in layers()])
    assert [len(kept(one)) for one in retentions] == [6, 2]
    # .9 of the shares 5.943 and 2.057, and .1 of the mean of 4.
    wishes = [0.9 * 8 * share / (0.9630 + 0.3333) + 0.4 for share in (0.9630, 0.3333)]
    assert [float(one.requested) for one in retentions] == pytest.approx(wishes, rel=1e-3)
    assert all(9 in kept(one) for one in retentions)
    uniform = replace(method("vl-cache", 0.4, adaptive=False), protect_first=0, protect_last=0)
    retentions = uniform.retain([uniform.observe(view) for view in layers()])
    assert [len(kept(one)) for one in retentions] == [4, 4]


def test_recent_entries_are_a_share_of_the_budget():
    view = layer_of("v" * 27 + "t" * 3, torch.eye(30))  # the text attends to itself alone
    for window, recent in (("same", 4), ("own", 4)):
        evictor = method("vl-cache", entries=20, recent=0.2, window=window)
        evictor = replace(evictor, protect_first=0, protect_last=0)
        places = kept(evictor.retain([evictor.observe(view)] * 2)[0])
        assert set(range(30 - recent, 30)) <= set(places) and 30 - recent - 1 not in places


def test_text_between_images_does_not_vote():
    assert after_vision(layout_of("svvttvv|tt"))[0].tolist() == [False] * 7 + [True] * 3


def test_it_needs_an_image_and_text_after_it():
    evictor = method("vl-cache", 0.5)
    for text in ("sstt", "ssvv"):
        with pytest.raises(InputError):
            evictor.check_layout(layout_of(text))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Density(threshold=-0.1), "threshold"),
        (lambda: Density(threshold=1.1), "threshold"),
        (lambda: Density(recent=-0.1), "recent"),
        (lambda: Density(recent=1.0), "recent"),
        (lambda: Density(window="none"), "window"),
        (lambda: Density(form="paper"), "form"),
    ],
)
def test_values_out_of_range_are_named(make, name):
    with pytest.raises(InvalidValueError) as error:
        make().check(FACTS)
    assert error.value.name == name


@drawn(
    st.text("s", max_size=4),
    st.text("v|t", max_size=12),
    st.text("t", max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([0.01, 0.1, 0.5]),
)
@settings(max_examples=40, deadline=None)
def test_density_and_scores_equal_a_reference_in_plain_loops(system, image, text, seed, threshold):
    letters = f"{system}v{image}vt{text}"
    view = Rows([letters], seed).views()[1]
    length = len(letters)
    rows = view.attention.probabilities(torch.arange(length)[None])[0].double().numpy()
    last = max(j for j in range(length) if view.layout.kind[0, j] == TokenKind.VISION)
    counted = scored = 0.0
    for head in rows:
        for i in range(last + 1, length):
            counted += sum(head[i, j] >= threshold * head[i].max() for j in range(i + 1))
    causal = len(rows) * sum(i + 1 for i in range(last + 1, length))
    scored = rows[:, last + 1 :].sum(1).mean(0)
    made = Density(threshold=threshold).strength(view, torch.zeros(1, length))
    assert_close(made.double().numpy(), np.array([counted / causal]), 1e-6)
    assert_close(PostVision().score(view)[0].double().numpy(), scored, 1e-5)


def test_a_row_of_a_batch_has_its_own_sparsity():
    rows = Rows(["ssvvvvvvttt", "vvvvttttttt", "sssvv|vvvvvvvvtttttt"], seed=5)
    for layer, together in enumerate(rows.views(padding=3)):
        batch = Density().strength(together, torch.zeros(together.layout.kind.shape))
        for row in range(3):
            alone = rows.views([row])[layer]
            single = Density().strength(alone, torch.zeros(alone.layout.kind.shape))
            assert_close(batch[row], single[0])
