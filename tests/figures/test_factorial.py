"""Main effects and interactions: planted ones are found, with their sign and size."""

from __future__ import annotations

import pandas as pd
import pytest

from figures.artefacts.factorial import FACTORIAL, LARGEST, TOGETHER, WHOLE, drawn, plotted
from tests.figures.method_frames import LIGHTKV, TGV, all_combinations
from tests.figures.score_frames import QUESTIONS, TASKS


def effects(frame: pd.DataFrame, method: str, task: str = TOGETHER) -> pd.Series[float]:
    data = plotted(frame)
    cells = data[(data["compared"] == method) & (data["task"] == task)]
    return cells.set_index("effect")["difference"]


def test_planted_effects_are_found() -> None:
    frame = all_combinations(joint=0.05)
    light, tgv = effects(frame, "lightkv"), effects(frame, "tgvkv", TASKS[1])
    near = {"abs": 1.5 / QUESTIONS}
    for sizes, values in ((LIGHTKV, light), ({k.upper(): v for k, v in TGV.items()}, tgv)):
        assert len(values) == 2 ** len(sizes)
        for name, size in sizes.items():
            assert values[name] == pytest.approx(size, **near)
        assert values[WHOLE] == pytest.approx(sum(sizes.values()), **near)
        planted = [WHOLE, *sizes, " × ".join(list(sizes)[:2])]
        assert values[planted[-1]] == pytest.approx(0.05, **near)
        assert values.drop(planted).abs().max() < 1.5 / QUESTIONS


def test_an_effect_of_three_is_even_in_what_is_out_of_use() -> None:
    frame = all_combinations(**dict.fromkeys([*LIGHTKV, *TGV], 0.0))
    rows = frame["compared"] == "tgvkv"
    out = 3 - frame[list(TGV)].astype(float).sum(axis=1)
    frame.loc[rows, "score"] = ((out % 2 == 0) & rows)[rows].astype(float)
    values = effects(frame, "tgvkv")
    assert values["TVB × TWR × TPR"] == 1
    assert values.drop([WHOLE, "TVB × TWR × TPR"]).abs().max() == 0


def test_p_values_are_corrected_over_a_methods_effects() -> None:
    data = plotted(all_combinations())
    cells = data[(data["compared"] == "tgvkv") & (data["task"] == TOGETHER)].set_index("effect")
    assert pd.isna(cells["p_holm"][WHOLE])
    assert cells["p_holm"]["TWR"] == pytest.approx(7 * cells["p"]["TWR"])
    assert cells["p_holm"]["TVB × TWR × TPR"] == 1 == cells["p"]["TVB × TWR × TPR"]


def test_main_effects_and_the_largest_interactions_are_drawn() -> None:
    data = plotted(all_combinations(joint=-0.1))
    shown = drawn(data[data["compared"] == "lightkv"])
    assert shown[:7] == [WHOLE, *LIGHTKV, "guidance × windows"]
    assert len(shown) == 1 + 5 + LARGEST
    assert len(drawn(data[data["compared"] == "tgvkv"])) == 1 + 3 + 4


def test_the_table_has_every_effect() -> None:
    table = FACTORIAL.table(all_combinations())
    assert len(table) == 32 + 8
    first = table[table["effect"] == "guidance"].iloc[0]
    assert first["instead"] == "plain means (ToMe)" and first["all tasks, points"].startswith("+30")
