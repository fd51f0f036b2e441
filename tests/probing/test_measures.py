"""Modality gap, redundancy, grounding, linear probes: against values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.probing import modality_gap as gap
from analysis.probing import redundancy
from analysis.probing.grounding import grid_numbers, grounding, word_weight
from analysis.probing.interventions import around, usual_width
from analysis.probing.linear_probe import decodability
from analysis.probing.patching import donors_for
from analysis.probing.probe import probe_inputs
from analysis.probing.quantities.geometry import effective_rank
from lightkv import TGVKV, VLM, LightKV
from lightkv.errors import InputError, InvalidValueError
from tests.closeness import assert_close
from tests.probing.models import BATCH


@pytest.fixture(scope="module")
def data(tiny_vlm: VLM) -> xr.Dataset:
    wanted = ["local_similarity", "block_sum", "accumulated_attention", "hidden", "column_sum"]
    wanted += ["text_weight", "effective_rank", "merge_error", "merge_agreement"]
    return probe_inputs(tiny_vlm, [BATCH], wanted)


def test_budgets_are_the_shares_of_the_strengths(data: xr.Dataset) -> None:
    frame = gap.budgets(data)
    assert_close(frame.groupby("sample")["value"].sum(), 1)
    one = frame[(frame["sample"] == 1) & (frame["layer"] == 2)]["value"].item()
    strength = data["block_sum"].sel(block="TV").isel(sample=1)
    assert one == pytest.approx(float(strength.sel(layer=2) / strength.sum()))


def test_accumulated_attention_keeps_the_top_share(data: xr.Dataset) -> None:
    frame = gap.accumulated(data, 0.2)
    for sample, of_sample in frame.groupby("sample"):
        assert len(of_sample) == int(data.length[int(str(sample))])
        assert of_sample["kept"].sum() == round(0.2 * len(of_sample))
        assert (
            of_sample[of_sample["kept"]]["value"].min()
            >= of_sample[~of_sample["kept"]]["value"].max()
        )
    lost = gap.evicted(data, 0.2)
    assert set(lost["kind"]) == {"vision", "text"} and lost["value"].between(0, 1).all()
    assert set(lost.columns) == {"sample", "layer", "kind", "value"}
    with pytest.raises(InvalidValueError, match="share"):
        gap.accumulated(data, 0.0)


def test_similarity_and_separation(data: xr.Dataset) -> None:
    frame = gap.similarity(data)
    one = data["local_similarity"].isel(sample=0, layer=1).sel(k=5).values
    mean = np.nanmean(one[data.key_kind.values[0] == "vision"])
    row = frame.query("sample == 0 and layer == 1 and k == 5 and kind == 'vision'")
    assert row["value"].item() == pytest.approx(float(mean), rel=1e-5)
    apart = data.copy(deep=True)
    shift = np.where(data.key_kind.values == "text", 1000.0, 0.0)
    apart["hidden"] = apart["hidden"] + shift[:, None, :, None]
    frame = gap.separation(apart)
    assert (frame[frame["measure"] == "separability"]["value"] == 1).all()
    assert (frame[frame["measure"] == "centroid distance"]["value"] > 10).all()


def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(torch.eye(6), centred=False) == pytest.approx(6)
    assert effective_rank(torch.ones(5, 3), centred=False) == pytest.approx(1)
    assert effective_rank(torch.ones(5, 3)) == 1.0
    weights = torch.diag(torch.tensor([3.0, 1.0]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(weights, centred=False) == pytest.approx(np.exp(entropy))


def test_redundancy_profile_and_provenance(tiny_vlm: VLM, data: xr.Dataset) -> None:
    frame = redundancy.profile(data)
    assert set(frame["measure"]) == {"effective_rank", "merge_error", "merge_agreement"}
    errors = frame[frame["measure"] == "merge_error"]
    assert errors["value"].between(0, 1).all()
    both = LightKV((1,), (2,), (0.5,)) | TGVKV(retention=0.5)
    merged = probe_inputs(tiny_vlm, [BATCH], ["merged_into", "kept"], compressor=both)
    cells = redundancy.provenance(merged, sample=0, layer=3)
    assert len(cells) == 16 and len(cells[["target_row", "target_col"]].drop_duplicates()) == 8
    before = redundancy.provenance(merged, sample=0, layer=0)
    assert (before["row"] == before["target_row"]).all() and before["kept"].isin([0, 1]).all()


def test_merging_what_is_alike_loses_nothing(tiny_vlm: VLM) -> None:
    from analysis.probing.quantities.base import Reading
    from analysis.probing.quantities.geometry import MergeError
    from lightkv.contract.attention_sources import GivenAttention
    from lightkv.contract.layout import Grid, TokenKind, single_layout
    from lightkv.contract.view import LayerView

    kinds = [TokenKind.SYSTEM] + [TokenKind.VISION] * 16 + [TokenKind.TEXT] * 2
    layout = single_layout(kinds, [Grid(1, 4, 4)])
    # Every token equals its left or right neighbour: each pair merges without loss.
    pairs = torch.randn(8, 6).repeat_interleave(2, 0)
    hidden = torch.cat([torch.randn(1, 6), pairs, torch.randn(2, 6)])[None]
    attention = GivenAttention(raw=torch.zeros(1, 2, 19, 19))
    view = LayerView(
        layer=0,
        layers=4,
        hidden=hidden,
        layout=layout,
        sizes=layout.real.long(),
        attention=attention,
    )
    lost = MergeError(windows=(1, 2)).measure(Reading(view, "mean", None))
    assert_close(lost, torch.zeros(1, 2), 1e-10)


def test_grounding_of_known_scores(data: xr.Dataset) -> None:
    one = data.isel(sample=[0, 1])
    cells = [frozenset({(0, 0, 0), (0, 0, 1)}), frozenset()]
    inside = (one.key_row == 0) & (one.key_col <= 1) & (one.key_kind == "vision")
    even = one["accumulated_attention"] * 0 + 1
    frame = grounding(even, one, cells)
    assert set(frame["sample"]) == {0} and len(frame) == 5
    assert_close(frame["share"], 2 / 16)
    assert_close(frame["lift"], 1)
    assert_close(frame["auc"], 0.5)
    perfect = grounding(even.where(inside, 0), one, cells)
    assert_close(perfect["share"], 1)
    assert_close(perfect["auc"], 1)
    assert_close(perfect["lift"], 8)
    nothing = grounding(even * 0, one, cells)
    assert nothing["share"].isna().all()
    assert_close(nothing["auc"], 0.5)
    with pytest.raises(InvalidValueError, match="one set per sample"):
        grounding(even, one, cells[:1])
    with pytest.raises(InputError, match="no question is about known cells"):
        grounding(even, one, [frozenset(), frozenset()])


def test_grids_are_pictures_and_steps_of_videos() -> None:
    image = np.array([-1, 0, 0, 1, 1, -1, 1, 2])
    frame = np.array([-1, 0, 0, 0, 0, -1, 1, 0])
    assert grid_numbers(image, frame).tolist() == [-1, 0, 0, 1, 1, -1, 2, 3]


def test_grounding_tells_the_pictures_of_a_prompt_apart(data: xr.Dataset) -> None:
    several = data.isel(sample=[2])
    second = (several.key_image == 1) & (several.key_row == 0) & (several.key_col == 0)
    assert int(second.sum()) == 1
    score = several["accumulated_attention"] * 0 + 1
    frame = grounding(score.where(second, 0), several, [frozenset({(1, 0, 0)})])
    assert_close(frame["share"], 1)
    frame = grounding(score.where(second, 0), several, [frozenset({(0, 0, 0)})])
    assert_close(frame["share"], 0)


def test_word_weight(data: xr.Dataset) -> None:
    text = data.key_text.values[0][data.key_kind.values[0] == "text"]
    words = frozenset(text[:2].tolist())
    frame = word_weight(data.isel(sample=[0]), words)
    share = data["text_weight"].isel(sample=0).values[:, data.key_kind.values[0] == "text"]
    assert_close(frame["share"], share[:, np.isin(text, list(words))].sum(1))
    assert set(frame.columns) == {"sample", "layer", "share", "chance", "lift", "top"}
    with pytest.raises(InputError, match="no question holds"):
        word_weight(data, frozenset({"nothing"}))


def test_linear_probes_read_what_is_there_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=120)
    noise = draw.normal(size=(120, 10))
    told = noise.copy()
    told[:, :3] += 4 * np.eye(3)[labels]
    good = decodability(told, labels.tolist())
    assert good.accuracy > 0.9 and 0.4 < good.information <= np.log(3) + 0.05
    none = decodability(noise, labels.tolist())
    assert abs(none.accuracy - none.chance) < 0.15 and none.information < 0.1
    rare = labels.tolist()
    rare[0] = 99
    assert len(decodability(told, rare).correct) == 119


@pytest.mark.parametrize(
    ("states", "labels", "message"),
    [
        (np.zeros((4, 2)), ["a"], "as many as samples"),
        (np.zeros((4, 2)), ["a", "a", "b", "b"], "enough for two labels with 4 samples"),
    ],
)
def test_what_a_linear_probe_needs(states: Any, labels: list[str], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        decodability(states, labels)


def test_windows_of_layers_and_donors() -> None:
    assert around(0, 8, 3) == (0, 1) and around(4, 8, 3) == (3, 4, 5) and around(7, 8, 2) == (7,)
    assert (usual_width(8), usual_width(32), usual_width(4)) == (3, 9, 1)
    with pytest.raises(InvalidValueError, match="width"):
        around(1, 8, 0)
    questions = ["a ?", "a ?", "b ?", "a ?"]
    assert donors_for(questions, ["x", "y", "x", "x"]) == [1, 3, None, 1]
