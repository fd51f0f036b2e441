"""Departures of released code: one choice at a time, and what the layers hold."""

from __future__ import annotations

import dataclasses

import pytest

from analysis import studies
from analysis.studies.departures import (
    PAPER,
    WHOLE,
    held,
    jaccard,
    lightkv_variants,
    tgvkv_variants,
)
from analysis.tasks import task
from lightkv import TGVKV, VLM, LightKV
from lightkv.merging.schedule import scaled


def test_each_variant_changes_one_choice() -> None:
    for variants in (lightkv_variants(scaled(8)), tgvkv_variants(0.2)):
        paper = dataclasses.asdict(variants[PAPER])
        for name, method in variants.items():
            fields = dataclasses.asdict(method)
            changed = {key for key, value in fields.items() if value != paper[key]}
            # A part of another type may have the same fields.
            changed |= {
                key
                for key in fields
                if type(getattr(method, key)) is not type(getattr(variants[PAPER], key))
            }
            assert name in (PAPER, WHOLE) or len(changed) == 1, (name, changed)
            assert (name == PAPER) == (not changed)


def test_all_of_them_are_the_released_code() -> None:
    schedule = scaled(8)
    script = schedule.layers, schedule.windows, schedule.ratios
    assert lightkv_variants(schedule)[WHOLE] == LightKV.released("llava", *script)
    assert tgvkv_variants(0.2)[WHOLE] == TGVKV.released(0.2)
    assert tgvkv_variants(0.2)["README's ratio"].retention == 0.8


def test_overlap_is_shared_by_all() -> None:
    one, other = [{(0, 0), (1, 1)}, {(2, 2)}], [{(1, 1), (2, 1)}, {(2, 2)}]
    assert jaccard(one, other) == pytest.approx((1 / 3 + 1) / 2)
    assert jaccard(one, one) == 1


def test_what_is_held_is_what_the_record_says(embedded: VLM) -> None:
    item = task("embedded/read").items(1, 0)[0]
    inputs = embedded.encode([item.request()])
    evicted = embedded.generate(inputs, TGVKV(retention=0.2), max_new_tokens=1).records[0]
    assert [len(layer) for layer in held(evicted)] == [layer.entries for layer in evicted.layers]
    merged = embedded.generate(inputs, LightKV.of(scaled(8)), max_new_tokens=1).records[0]
    pairs = held(merged)
    assert [len({end for _, end in layer}) for layer in pairs] == [128, 128, 64, 32, 32]
    assert all(len(layer) == 256 for layer in pairs)


def test_departures_of_the_embedded_model(embedded: VLM) -> None:
    frame = studies.released_choices(embedded, tasks=("embedded/exist",), samples=2, progress=False)
    assert len(frame) == 2 * (1 + 9 + 8)
    paper = frame[frame["departure"] == PAPER]
    assert paper["overlap"].tolist() == [1.0] * 4
    assert frame[frame["compared"] == "vanilla"]["overlap"].isna().all()
    evicted = frame[frame["compared"] == "tgvkv"].set_index("departure")["overlap"]
    assert (evicted["README's ratio"] < 0.5).all()
