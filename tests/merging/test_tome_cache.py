"""ToMe (C): merging entries of the cache by their keys."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lightkv.contract.compressor import Evictor
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.rotary import rotate
from lightkv.contract.serving import rotary_of
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.merging import ToMeCache
from tests.closeness import assert_close
from tests.merging.views import random_view, row_layout

FACTS = ModelFacts(layers=2, heads=4, kv_heads=2, hidden_size=6)


def with_keys(layout: TokenLayout, seed: int = 0) -> LayerView:
    view = random_view(layout, seed=seed, width=8)
    return dataclasses.replace(view, keys=view.hidden.unflatten(-1, (2, 4)).transpose(1, 2))


def test_keys_and_values_follow_the_match_of_head_mean_keys() -> None:
    tokens = torch.tensor([[1, 0], [0.9, 0.1], [0, 1], [0.2, 1], [1, 1], [-1, 0]])
    layout = row_layout([Grid(1, 2, 3)], system=1, text=1)
    keys = torch.zeros(1, 2, 8, 2)
    keys[0, :, 1:7] = tokens * torch.tensor([0.5, 1.5])[:, None, None]
    view = dataclasses.replace(random_view(layout), keys=keys)
    method = ToMeCache(ratio=2 / 6)
    (retention,) = method.retain([method.observe(view)])
    assert retention.index.tolist() == [[[0, 2, 4, 5, 6, 7]]]
    assert retention.requested.tolist() == [6]
    merged = retention.apply(keys)[0, :, 1:5]
    expected = torch.tensor([[0.95, 0.05], [0.1, 1], [1, 1], [-1, 0]])
    assert_close(merged.mean(0), expected)


def test_keys_can_be_compared_as_they_were_before_the_rotary_embedding() -> None:
    """Entries with equal keys at different places: alike only where places don't count."""
    layout = row_layout([Grid(1, 1, 6)], system=1, text=1)
    plain = torch.zeros(1, 1, 8, 4)
    # Entries 0 and 5 had one key, in a direction that turns fast; 2 and 3 one that turns slowly,
    # and so do 1 and 4, whose keys were less alike.
    fast, slow = [1.0, 0, 0, 0], [0.0, 1, 0, 0]
    others = [0.0, -0.3, 0, 1], [0.0, 0.3, 0, 1]
    plain[0, 0, 1:7] = torch.tensor([fast, others[0], slow, slow, others[1], fast])
    rotary = rotary_of(layout, 4)
    keys = rotate(plain, rotary[0][:, None], rotary[1][:, None])
    view = dataclasses.replace(random_view(layout), keys=keys, rotary=rotary)
    kept_places = {}
    for metric in ("rotated", "unrotated"):
        method = ToMeCache(ratio=1 / 3, metric=metric)  # type: ignore[arg-type]
        assert method.needs_rotary() == (metric == "unrotated")
        (retention,) = method.retain([method.observe(view)])
        kept_places[metric] = retention.index[0, 0].tolist()
    assert kept_places["unrotated"] == [0, 2, 4, 5, 6, 7]
    assert kept_places["rotated"] == [0, 1, 2, 4, 6, 7]
    with pytest.raises(UnsupportedError, match="rotary"):
        ToMeCache(metric="unrotated").observe(dataclasses.replace(view, rotary=None))


def test_groups_can_be_weighed_by_what_their_members_stand_for() -> None:
    layout = row_layout([Grid(1, 1, 2)], system=1, text=1)
    keys = torch.tensor([[9.0, 9], [1, 0], [3, 0], [9, 9]]).view(1, 1, 4, 2)
    sizes = torch.tensor([[1, 3, 1, 1]])
    view = dataclasses.replace(random_view(layout), keys=keys, sizes=sizes)
    for weighting, merged in (("uniform", 2.0), ("size", 1.5)):
        method = ToMeCache(weighting=weighting)  # type: ignore[arg-type]
        (retention,) = method.retain([method.observe(view)])
        assert_close(retention.apply(keys)[0, 0, 1], torch.tensor([merged, 0]))


def test_rows_of_a_batch_merge_as_they_would_alone() -> None:
    layouts = [row_layout([Grid(1, 4, 4)]), row_layout([Grid(1, 2, 3)], text=6)]
    view = with_keys(TokenLayout.stack(layouts))
    method = ToMeCache()
    observation = method.observe(view)
    (retention,) = method.retain([observation])
    assert view.keys is not None
    together = retention.apply(view.keys)
    for row, layout in enumerate(layouts):
        keys = view.keys[row : row + 1, :, view.layout.real[row]]
        single = dataclasses.replace(random_view(layout, width=8), keys=keys)
        (alone,) = method.retain([method.observe(single)])
        assert_close(together[row][:, retention.valid[row, 0]], alone.apply(keys)[0])
        assert int(alone.counts) == layout.length - int(layout.vision.sum()) // 2


def test_limits() -> None:
    method = ToMeCache()
    assert isinstance(method, Evictor)
    assert method.attention_layers(FACTS) == ()
    assert method.decode_policy().static
    method.check(FACTS)
    for ratio in (-0.1, 0.6, float("nan")):
        with pytest.raises(InvalidValueError):
            ToMeCache(ratio).check(FACTS)
    with pytest.raises(InputError):
        method.check_layout(row_layout([]))
    view = dataclasses.replace(with_keys(row_layout([Grid(1, 2, 2)])), keys=None)
    with pytest.raises(UnsupportedError, match="keys"):
        method.observe(view)


def test_a_ratio_of_zero_keeps_everything() -> None:
    view = with_keys(row_layout([Grid(1, 2, 2)]))
    method = ToMeCache(ratio=0)
    (retention,) = method.retain([method.observe(view)])
    assert retention.merge is None
    assert retention.counts.tolist() == [[view.layout.length]]
