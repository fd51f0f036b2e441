"""Studies: the grids that they ask, the columns that they return, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis import studies
from analysis.asking.store import Store
from analysis.timing.latency import LatencySettings
from lightkv import TGVKV, VLM, LightKV, Request
from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError, UnknownNameError
from tests.analysis.fake import PROMPT, FakeVLM
from tests.closeness import SINGLE, assert_close

ONE = ("embedded/color",)
QUIET: dict[str, Any] = {"samples": 2, "progress": False}
SCORED = {"model", "method", "task", "seed", "item", "metric", "score", "kv_share", "token_share"}


def silent(request: Request, compressor: Compressor | None) -> str:
    return "red"


def asked(study: Callable[..., pd.DataFrame], **changes: Any) -> tuple[pd.DataFrame, FakeVLM]:
    vlm = FakeVLM(silent)
    return study(vlm, **{"tasks": ONE, **QUIET, **changes}), vlm


def test_every_study_of_the_folder_is_registered() -> None:
    rooms = {one.room for one in studies.STUDIES.values()}
    assert {"retention", "eviction", "maps", "merging", "costs", "speed", "probing"} <= rooms
    assert all(name == one.run.__name__ for name, one in studies.STUDIES.items())
    assert studies.study("kept_maps").run is studies.kept_maps
    with pytest.raises(UnknownNameError, match="kept_maps"):
        studies.study("kept_map")
    with pytest.raises(AttributeError, match="kept_map"):
        _ = studies.kept_map


def test_a_study_says_what_it_takes() -> None:
    known = studies.study("component_ablation")
    assert known.needs_model and known.samples == 24 and known.room == "eviction"
    assert known.parameters["retentions"] == (0.2, 0.05)
    assert {"seed", "store", "batch_size", "progress"} <= set(known.parameters)
    assert "vlm" not in known.parameters and "settings" not in known.parameters
    computed = studies.study("schedule_cost")
    assert not computed.needs_model and computed.samples is None


def test_retention_sweep_compares_three_methods_at_their_settings() -> None:
    frame, _ = asked(studies.retention_sweep)
    assert set(frame.columns) >= SCORED
    cells = frame.drop_duplicates("method").set_index("method")
    assert cells["family"].tolist() == ["vanilla"] + ["lightkv"] * 4 + ["tgvkv", "random"] * 4
    light = cells[cells["family"] == "lightkv"]
    assert light["setting"].tolist() == ["Λ 2,4,5", "Λ 1,3,4", "Λ 0,1,3", "Λ 0,1,2"]
    tgv = cells[cells["family"] == "tgvkv"]
    assert tgv["requested_retention"].tolist() == [0.5, 0.2, 0.1, 0.05]
    assert cells["setting"]["vanilla"] == "full"


def test_retention_sweep_asks_every_family() -> None:
    frame, _ = asked(
        studies.retention_sweep, tasks=studies.retention.EVERY_KIND, samples=1, retentions=()
    )
    assert frame["task"].nunique() == 8


def test_pilot_varies_one_part_at_a_time() -> None:
    frame, vlm = asked(studies.budget_ranking_retention_pilot)
    cells = frame.drop_duplicates("method")
    variants = {
        block: set(of_block["variant"])
        for block, of_block in cells[cells["block"] != ""].groupby("block")
    }
    assert variants == {
        "a": {"uniform", "VV", "TT", "TV"},
        "b": {"observation-window", "self-attention", "VV+TT", "TV+TT"},
        "c": {"vision", "text"},
    }
    full = cells[cells["block"] == ""].iloc[0]
    assert (full["variant"], full["retention"], full["parameters"]) == ("vanilla", 1.0, "vanilla")
    # Uniform budgets under TV+TT are in (a) and (b): asked once.
    assert vlm.asked == 2 * (1 + 3 * 9)
    assert len(frame) == 2 * (1 + 3 * 10)


def test_pilot_window_is_a_tenth_of_the_prompt() -> None:
    frame, _ = asked(studies.budget_ranking_retention_pilot)
    observed = frame[frame["variant"] == "observation-window"]
    assert observed["parameters"].str.contains(rf"window={round(PROMPT / 10)}\b").all()
    frame, _ = asked(studies.budget_ranking_retention_pilot, window=64)
    observed = frame[frame["variant"] == "observation-window"]
    assert observed["parameters"].str.contains("window=64").all()


def test_ablation_has_every_combination() -> None:
    frame, vlm = asked(studies.component_ablation)
    cells = frame.drop_duplicates("method").iloc[1:]
    assert len(cells) == 16
    assert len(cells[["tvb", "twr", "tpr", "retention"]].drop_duplicates()) == 16
    whole = cells[cells["tvb"] & cells["twr"] & cells["tpr"]]
    assert whole["parameters"].tolist() == [repr(TGVKV(retention=r)) for r in (0.2, 0.05)]
    assert vlm.asked == 2 * 17


def test_single_layer_sweep_covers_all_layers_but_the_last() -> None:
    frame, _ = asked(studies.single_layer_sweep)
    cells = frame.drop_duplicates("method")
    assert cells["layer"].isna().tolist() == [True] + [False] * 7
    assert cells["layer"].dropna().tolist() == [float(layer) for layer in range(7)]
    assert cells["parameters"].iloc[3] == repr(LightKV((2,), (2,), (0.5,)))
    with pytest.raises(InvalidValueError, match="layers"):
        asked(studies.single_layer_sweep, layers=(7,))


def test_window_sweep_lies_where_the_papers_layers_do() -> None:
    frame, _ = asked(studies.window_sweep)
    cells = frame.drop_duplicates("method").dropna(subset=["layer"])
    assert set(zip(cells["layer"], cells["windows"], strict=True)) == {
        (layer, windows) for layer in (0.0, 3.0) for windows in (1.0, 2.0, 4.0)
    }


def test_studies_share_answers_through_the_store() -> None:
    with Store(None) as store:
        vlm = FakeVLM(silent)
        shared: dict[str, Any] = {"tasks": ONE, "store": store, **QUIET}
        studies.retention_sweep(vlm, **shared)
        before = vlm.asked
        studies.component_ablation(vlm, **shared)
        # Vanilla and the whole method at 20 and 5 % are there.
        assert vlm.asked - before == 2 * (17 - 3)
        before = vlm.asked
        studies.budget_ranking_retention_pilot(vlm, **shared)
        # Vanilla, and self-attention with nothing else at 20 and 5 %, are there.
        assert vlm.asked - before == 2 * (28 - 3)
        before = vlm.asked
        studies.component_ablation(vlm, **shared)
        studies.retention_sweep(vlm, **shared)
        assert vlm.asked == before


def test_schedule_cost_gives_the_printed_vanilla_numbers() -> None:
    frame = studies.schedule_cost()
    assert list(frame.columns) == ["model", "title", "layers", "windows", "flops", "kv"]
    full = frame[frame["layers"] == ""].set_index("model")
    assert full["flops"]["llava-1.5-13b"] == pytest.approx(19.4, abs=0.05)
    assert full["kv"]["llava-1.5-13b"] == pytest.approx(0.55, abs=0.005)
    assert full["kv"]["llava-next-13b"] == pytest.approx(1.75, abs=0.005)
    paper = frame[(frame["layers"] == "15,23,31") & (frame["windows"] == "4,2,1")]
    assert paper.set_index("model")["kv"]["llava-1.5-13b"] == pytest.approx(0.37, abs=0.02)
    assert len(frame) == 2 * 5


def test_memory_breakdown_shrinks_vision_only() -> None:
    frame = studies.memory_breakdown().pivot(
        index=["model", "part"], columns="method", values="gib"
    )
    for model in studies.costs.FOUR:
        of_model = frame.loc[model]
        assert set(of_model.index) == {"weights", "rest", "text KV", "vision KV"}
        assert of_model["vanilla"]["weights"] == of_model["lightkv"]["weights"]
        assert of_model["vanilla"]["text KV"] == of_model["lightkv"]["text KV"]
        assert of_model["lightkv"]["vision KV"] < 0.7 * of_model["vanilla"]["vision KV"]


def test_tables_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(None) as store:
        first = studies.schedule_cost(store=store)
        monkeypatch.setattr(studies.costs, "_cost", lambda *_: pytest.fail("computed again"))
        pd.testing.assert_frame_equal(studies.schedule_cost(store=store), first)


def test_kept_maps_of_the_embedded_model(embedded: VLM) -> None:
    with Store(None) as store:
        wanted: dict[str, Any] = {"samples": 2, "retentions": (0.1,), "store": store}
        frame = studies.kept_maps(embedded, **wanted)
        pd.testing.assert_frame_equal(studies.kept_maps(embedded, **wanted), frame)
    assert set(frame["kind"]) == {"system", "vision", "text"}
    for (_, layer), of_layer in frame.groupby(["item", "layer"]):
        assert of_layer["position"].tolist() == list(range(len(of_layer))), layer
        vision = of_layer[of_layer["kind"] == "vision"]
        assert len(vision.drop_duplicates(["row", "col"])) == len(vision) == 256
        assert (of_layer[of_layer["kind"] != "vision"][["row", "col"]] == -1).all(axis=None)
        assert of_layer["kept"].iloc[[0, 1, 2, 3, -1]].all(), "protected"
        # Text goes after all vision only (TGV-KV, Eq. 10).
        text = of_layer[of_layer["kind"] != "vision"]["kept"]
        assert text.all() or not vision["kept"].any()
    assert frame["kept"].mean() == pytest.approx(0.1, abs=0.005)
    words = frame[(frame["item"] == 0) & (frame["layer"] == 0)]["token"]
    assert {"number", "?"} <= set(words)
    digits = frame[(frame["item"] == 0) & (frame["layer"] == 0) & frame["about"]]
    assert 4 <= len(digits) <= 16


def test_merge_maps_of_the_embedded_model(embedded: VLM) -> None:
    frame = studies.merge_maps(embedded, samples=2)
    left = (
        frame.drop_duplicates(["item", "stage", "target_row", "target_col"])
        .groupby(["item", "stage"])
        .size()
    )
    assert list(left.loc[[0]]) == [128, 64, 32]
    assert (frame.groupby(["item", "stage"]).size() == 256).all()
    weights = frame.groupby(["item", "stage", "target_row", "target_col"])["weight"].sum()
    assert_close(weights, 1, SINGLE)
    # In the first stage nothing leaves its window of 4 x 4 windows on a grid of 16 x 16.
    first = frame[frame["stage"] == 1]
    assert (first["row"] // 4 == first["target_row"] // 4).all()
    assert (first["col"] // 4 == first["target_col"] // 4).all()


def test_decode_latency_of_the_embedded_model(embedded: VLM) -> None:
    measuring = LatencySettings(new_tokens=2, warmup=0, repeats=1)
    with Store(None) as store:
        frame = studies.decode_latency(
            embedded, retentions=(0.05,), measuring=measuring, store=store
        )
        again = studies.decode_latency(
            embedded, retentions=(0.05,), measuring=measuring, store=store
        )
    pd.testing.assert_frame_equal(frame, again)
    # What ships on record comes after it, and is tested beside its reader.
    measured = frame[~frame["recorded"].astype(bool)]
    assert measured["retention"].tolist() == [1.0, 0.05]
    assert measured["model"].tolist() == ["embedded"] * 2
    assert_close(measured["kv_share"], [1, 0.05], 0.001)
