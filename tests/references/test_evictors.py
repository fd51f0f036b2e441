"""Every registered evictor keeps what its reference keeps, row by row, layer by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightkv.catalogue import method
from lightkv.contract.compressor import Evictor, RepeatedReading
from lightkv.contract.retention import Retention
from tests.closeness import assert_close
from tests.references.calls import Calls
from tests.references.cases import FACTS, Batch, batch, told
from tests.references.evictors import (
    EVICTORS,
    MERGES,
    WINDOW,
    kvzip,
    kvzip_scores,
    uniform_counts,
)
from tests.references.rules import ends, tome_cache
from tests.references.scores import Prompt

WINDOWED = ("snapkv", "pyramidkv", "cake", "ada-kv", "mixkv")
DRAWS = 28
LEAST = 200
"""Cases (one layer of one prompt) that every test compares: 252 are drawn, close calls left out."""

DRAWN = {
    "random": ("", 0),
    "random-vision": ("st", 0),
    "evict-vision-first": ("s", 5),
    "evict-text-first": ("s", 5),
}
"""Methods that draw: kinds that stay, and entries at the ends that do."""


def options(name: str) -> dict[str, int]:
    return {"window": WINDOW} if name.startswith(WINDOWED) else {}


def retained(evictor: Evictor, drawn: Batch, together: bool = False) -> list[Retention]:
    evictor.check(FACTS)
    evictor.check_layout(drawn.layout)
    if together and evictor.queries(drawn.layout) is not None:
        return evictor.retain(evictor.observe_together(drawn.views))
    return evictor.retain([evictor.observe(view) for view in drawn.views])


def kept(retention: Retention, drawn: Batch, row: int) -> list[set[int]]:
    return [
        set((index[valid] - drawn.padding(row)).tolist())
        for index, valid in zip(retention.index[row], retention.valid[row], strict=True)
    ]


def merge_of(retention: Retention, drawn: Batch, row: int, group: int) -> np.ndarray:
    """(K, N) weights of one set of entries."""
    assert retention.merge is not None
    set_number = row * retention.index.shape[1] + group
    weights = retention.merge.matrix()[set_number]
    return weights[retention.merge.valid[set_number]][:, drawn.padding(row) :].double().numpy()


@pytest.mark.parametrize("name", EVICTORS)
def test_an_evictor_keeps_what_its_reference_keeps(name: str) -> None:
    compared = 0
    for number in range(DRAWS):
        drawn = batch(number, large=name == "rank-window")
        retentions = retained(method(name, drawn.share, **options(name)), drawn, number % 2 == 0)
        for row, prompt in enumerate(drawn.prompts):
            wanted = told(EVICTORS[name], prompt, drawn.share)
            for layer, retention in enumerate(retentions if wanted else []):
                kept_places, note = kept(retention, drawn, row), (number, row, layer, drawn.share)
                assert wanted is not None and kept_places == wanted[layer], note
                compared += 1
    assert compared >= LEAST


@pytest.mark.parametrize("name", MERGES)
def test_evicted_entries_leave_what_their_reference_says(name: str) -> None:
    compared = 0
    for number in range(DRAWS):
        drawn = batch(number)
        retentions = retained(method(name, drawn.share), drawn)
        for row, prompt in enumerate(drawn.prompts):
            for retention, layer in zip(retentions, prompt.layers, strict=True):
                for group, kept_places in enumerate(kept(retention, drawn, row)):
                    wanted = told(MERGES[name], prompt, kept_places, layer.keys[group])
                    if wanted is not None:
                        weights = merge_of(retention, drawn, row, group)
                        assert_close(weights, wanted, 1e-6, note=(number, row, group))
                        compared += 1
    assert compared >= LEAST


def test_tome_merges_entries_as_its_reference_does() -> None:
    compared = 0
    for number in range(DRAWS):
        drawn = batch(number)
        for layer, retention in enumerate(retained(method("tome-cache"), drawn)):
            for row, prompt in enumerate(drawn.prompts):
                wanted = told(tome_cache, prompt, prompt.layers[layer])
                if wanted is not None:
                    assert kept(retention, drawn, row) == [wanted[0]], (number, row, layer)
                    assert_close(merge_of(retention, drawn, row, 0), wanted[1], 1e-6)
                    compared += 1
    assert compared >= LEAST


def test_kvzip_keeps_what_its_reference_keeps() -> None:
    """The prompt ends with its last image; what follows it plays the repetition."""
    compared = 0
    for number in range(DRAWS):
        drawn = batch(number)
        evictor = method("kvzip", drawn.share)
        assert isinstance(evictor, RepeatedReading)
        layout = drawn.layout
        later = layout.vision.flip(1).cumsum(1).flip(1) == 0
        repeated = layout.real & later
        before = layout.vision.cumsum(1) > 0
        context = layout.real & before & ~later
        scores = [evictor.score_repetition(view, context, repeated) for view in drawn.views]
        # What the prompt itself holds: everything up to the last vision token of each row.
        rows = [alone(evictor, drawn, row, scores, later) for row in range(len(drawn.prompts))]
        for row, prompt in enumerate(drawn.prompts):
            vision = prompt.places("v")
            scores_of_prompt = [
                kvzip_scores(
                    layer.attention,
                    FACTS.kv_heads,
                    range(vision[0], vision[-1] + 1),
                    range(vision[-1] + 1, prompt.length),
                )
                for layer in prompt.layers
            ]
            wanted = told(kvzip, scores_of_prompt, drawn.share)
            for layer, sets in enumerate(wanted or []):
                fixed = set(range(vision[0]))
                assert rows[row][layer] == [fixed | one for one in sets], (number, row, layer)
                compared += 1
    assert compared >= LEAST


def alone(
    evictor: RepeatedReading,
    drawn: Batch,
    row: int,
    scores: list[torch.Tensor],
    later: torch.Tensor,
) -> list[list[set[int]]]:
    """What one row keeps of its prompt up to the last vision token."""
    here = (~later[row] & drawn.layout.real[row]).nonzero()[:, 0][None]
    everyone = here.expand(drawn.layout.batch_size, -1)
    cut = drawn.layout.select(everyone, torch.ones_like(everyone, dtype=torch.bool))
    made = evictor.with_scores([one[:, :, here[0]] for one in scores])
    views = [replace(view, layout=cut) for view in drawn.views]
    retentions = made.retain([made.observe(view) for view in views])
    return [
        [
            set(index[valid].tolist())
            for index, valid in zip(one.index[row], one.valid[row], strict=True)
        ]
        for one in retentions
    ]


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_keeps_the_budget_and_its_order(name: str) -> None:
    compared = 0
    fixed, guarded = DRAWN[name]
    for number in range(DRAWS):
        drawn = batch(number)
        retentions = retained(method(name, drawn.share), drawn)
        for row, prompt in enumerate(drawn.prompts):
            always = set(prompt.places(fixed)) | (ends(prompt, 4, 1) if guarded else set())
            counts = told(counted, prompt, drawn.share, len(always))
            for layer, retention in enumerate(retentions if counts else []):
                (kept_places,) = kept(retention, drawn, row)
                assert (
                    counts is not None
                    and len(kept_places) == counts[layer]
                    and always <= kept_places
                )
                _in_order(
                    name, prompt, kept_places - always, set(range(prompt.length)) - kept_places
                )
                compared += 1
    assert compared >= LEAST


def counted(prompt: Prompt, share: float, floors: int, calls: Calls) -> list[int]:
    """Entries that a uniform budget leaves each layer."""
    return uniform_counts(prompt, share, floors, prompt.length, calls)


def _in_order(name: str, prompt: Prompt, stays: set[int], gone: set[int]) -> None:
    """No entry of the kind that goes last has gone while one that goes first stays."""
    last = {"evict-vision-first": "t", "evict-text-first": "v"}.get(name, "")
    lost = {j for j in gone if prompt.kinds[j] in last}
    spared = {j for j in stays if prompt.kinds[j] not in last}
    assert not (last and lost and spared), (name, sorted(lost), sorted(spared))
