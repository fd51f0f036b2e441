"""One real run taken apart: what the tables say is what the model and its record hold."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis import studies
from analysis.tasks import task
from lightkv import TGVKV, VLM, LightKV
from lightkv.merging.schedule import scaled
from tests.closeness import SINGLE, assert_close


@pytest.fixture(scope="module")
def steps(embedded: VLM) -> pd.DataFrame:
    return studies.window_steps(embedded)


def test_a_window_is_cut_where_the_question_looks(steps: pd.DataFrame) -> None:
    tokens = steps[steps["panel"] == "token"]
    rows, cols = sorted(set(tokens["row"])), sorted(set(tokens["col"]))
    assert len(rows) == len(cols) == 4 and rows[0] % 4 == cols[0] % 4 == 0
    inside = {(row, col) for row in rows for col in cols}
    asked = task("embedded/read").items(1, 0)[0].cells
    assert {grid for grid, _, _ in asked} == {0}
    cells = {(row, col) for _, row, col in asked}
    others = [
        {(r, c) for r in range(top, top + 4) for c in range(left, left + 4)}
        for top in range(0, 16, 4)
        for left in range(0, 16, 4)
    ]
    assert len(inside & cells) == max(len(window & cells) for window in others) > 0


def test_sets_alternate_and_edges_join_them(steps: pd.DataFrame) -> None:
    tokens, edges = (steps[steps["panel"] == panel] for panel in ("token", "edge"))
    ordered = tokens.sort_values(["row", "col"])
    assert ordered["set"].tolist() == ["A", "B"] * 8
    assert len(edges) == 64 and edges["merged"].sum() == 8
    assert edges["divergence"].between(0, 2).all()
    assert (edges.groupby(["row", "col"])["nearest"].sum() == 1).all()
    totals = tokens.groupby(["target_row", "target_col"])["weight"].sum()
    assert totals.to_numpy() == pytest.approx(1, abs=1e-5)


def test_the_plan_is_the_schedules_and_the_run_followed_it(embedded: VLM) -> None:
    frame = studies.stage_plan(embedded).set_index("layer")
    light = LightKV.of(scaled(8))
    stages = frame[frame["stage"]]
    assert tuple(stages.index) == light.layers and tuple(stages["windows"]) == light.windows
    assert frame["vision"].tolist() == [256] * 3 + [128] * 2 + [64] + [32] * 2
    assert (frame["tokens"] - frame["vision"]).nunique() == 1
    assert frame["entries"].tolist() == frame["tokens"].tolist()


def test_ranked_entries_are_those_of_a_run(embedded: VLM) -> None:
    frame = studies.ranked_entries(embedded, retention=0.2)
    item = task("embedded/read").items(1, 0)[0]
    answer = embedded.ask(item.images[0], item.question, TGVKV(retention=0.2))
    layers = answer.record.layers
    assert frame.groupby("layer").size().tolist() == [layers[0].length] * 8
    for layer, of_layer in frame.groupby("layer"):
        held = layers[int(str(layer))]
        assert of_layer.loc[of_layer["kept"], "position"].tolist() == sorted(
            held.kept.flatten().tolist()
        )
        assert of_layer["requested"].unique().tolist() == [held.requested]
        vision, text = (of_layer[of_layer["kind"] == kind] for kind in ("vision", "text"))
        assert vision["score"].notna().all() and text["weight"].notna().all()
        assert vision["weight"].isna().all() and text["score"].isna().all()
        assert " ".join(text["token"]).startswith("what is the")
    shares = frame.groupby("layer")["text_vision"].first().to_numpy()
    assert_close(shares.sum(), 1.0, SINGLE)
