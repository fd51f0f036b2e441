"""The full factorials: what each setting is, and that all of a method cost the same."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from analysis import studies
from analysis.studies.departures import held
from analysis.studies.energy_pairs import EnergyPaired
from analysis.studies.eviction import PARTS, with_parts
from analysis.studies.factorial import CHOICES, RETENTION, one_stage, with_choices
from analysis.tasks import task
from lightkv import TGVKV, VLM, LightKV
from lightkv.catalogue import method
from lightkv.contract.compressor import Compressor
from lightkv.merging.pitome import PiToMe
from lightkv.merging.schedule import scaled
from lightkv.merging.tome import ToMe

CHANGED = {
    "guidance": {"guidance"},
    "windows": {"windows"},
    "hierarchy": {"layers", "windows", "ratios"},
    "pairing": set(),
    "positions": {"positions"},
}
"""Fields of LightKV that each choice sets."""


def without(name: str) -> LightKV:
    return with_choices([one != name for one in CHOICES], 8)


def test_each_choice_changes_what_it_is_about() -> None:
    paper = with_choices([True] * 5, 8)
    assert paper == LightKV.of(scaled(8))
    for name, fields in CHANGED.items():
        other = without(name)
        differing = {
            field.name
            for field in dataclasses.fields(paper)
            if getattr(paper, field.name) != getattr(other, field.name)
        }
        assert differing == fields, name
        assert isinstance(other, EnergyPaired) == (name == "pairing")
    assert without("guidance").guidance == "uniform"
    assert without("windows").windows == (1, 1, 1)
    assert without("positions").positions == "reindex"


def test_parts_in_use_are_the_method_and_none_is_its_ablation() -> None:
    assert with_parts([True] * 3, 0.2) == TGVKV(retention=0.2)
    assert with_parts([True, False, True], 0.2) == method("tvb1-twr0-tpr1", 0.2)


@pytest.mark.parametrize(("depth", "layer"), [(8, 0), (32, 4), (40, 5)])
def test_one_stage_processes_as_much_as_three(depth: int, layer: int) -> None:
    stage = one_stage(depth)
    assert (stage.layers, stage.windows, stage.ratios) == ((layer,), (4,), (0.5,))
    layers = scaled(depth).layers
    three = sum(0.5 ** sum(at < layer for at in layers) for layer in range(depth)) / depth
    once = (layer + 1 + 0.5 * (depth - layer - 1)) / depth
    assert abs(once - three) <= 0.5 / depth


def merged(vlm: VLM, compressor: Compressor) -> object:
    item = task("embedded/list").items(1, 0)[0]
    inputs = vlm.encode([item.request()])
    return held(vlm.generate(inputs, compressor, max_new_tokens=1).records[0])


def test_without_guidance_and_windows_merges_are_those_of_the_plain_methods(embedded: VLM) -> None:
    three = scaled(8)
    paired = with_choices([False, False, True, True, True], 8)
    by_energy = with_choices([False, False, True, False, True], 8)
    tome, pitome = ToMe(three.layers, three.ratios), PiToMe(three.layers, three.ratios, "uniform")
    assert merged(embedded, paired) == merged(embedded, tome)
    assert merged(embedded, by_energy) == merged(embedded, pitome)
    assert merged(embedded, by_energy) != merged(embedded, paired)


def test_other_pairs_stay_in_their_windows(embedded: VLM) -> None:
    once = EnergyPaired((2,), (4,), (0.5,))
    item = task("embedded/list").items(1, 0)[0]
    record = embedded.generate(embedded.encode([item.request()]), once, max_new_tokens=1).records[0]
    layout = record.layout
    pairs = held(record)[-1]
    side = record.layout.grids[0][0].rows // 4
    rows, cols = layout.row[0], layout.col[0]
    assert any(token != end for token, end in pairs)
    for token, end in pairs:
        assert rows[token] // side == rows[end] // side
        assert cols[token] // side == cols[end] // side


def test_every_combination_is_asked_at_equal_cache(embedded: VLM) -> None:
    frame = studies.all_combinations(embedded, tasks=("embedded/list",), samples=1, progress=False)
    assert frame.groupby("compared").size().to_dict() == {"lightkv": 32, "tgvkv": 8, "vanilla": 1}
    for name, parts in (("lightkv", CHOICES), ("tgvkv", PARTS)):
        rows = frame[frame["compared"] == name]
        combinations = set(rows[list(parts)].itertuples(index=False, name=None))
        assert combinations == set(itertools.product((False, True), repeat=len(parts)))
        assert rows["kv_share"].max() - rows["kv_share"].min() < 0.005
    assert frame[frame["compared"] == "tgvkv"]["kv_share"].mean() == pytest.approx(
        RETENTION, abs=0.005
    )
    full = frame[frame["compared"] == "vanilla"]
    assert full[[*CHOICES, *PARTS]].isna().all(axis=None)
