"""Which model an artefact asks: its own, several, or the one that is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import figures.artefacts
from analysis.asking.store import Store
from figures import building, entries, making, reproduce
from figures.artefacts import artefact
from figures.artefacts.shared import evictable
from figures.building import build, plan
from figures.contract import Artefact
from figures.making import make, make_all
from figures.models import EMBEDDED, NATIVE, check_model, named
from figures.notebook import Notebook
from figures.report import write_report
from figures.reproduce_cli import artefacts_command, reproduce_command
from figures.runner import Finished, Unit
from lightkv.embedded import location
from lightkv.errors import ModelError
from tests.analysis.fake import FakeVLM
from tests.figures.frames import frame_of

FEW: dict[str, Any] = {"samples": 12, "seed": 1, "retentions": (0.5,), "tasks": ("embedded/read",)}


def say(request: Any, compressor: Any) -> str:
    return "1 2 3 4"


def models(asked: list[str] | None = None) -> Callable[..., Any]:
    """Opens models that answer by rule and are told apart by their weights; notes their names."""

    def load(name: str) -> Any:
        if asked is not None:
            asked.append(name)
        return FakeVLM(say, name=name, fingerprint=name)

    return load


@pytest.fixture(params=[True, False], ids=["weights", "no weights"])
def ships(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the second model's weights are here."""
    folder = tmp_path / "second"
    folder.mkdir()
    if request.param:
        (folder / location.WEIGHTS).write_text("weights")
    monkeypatch.setitem(location.SHIPPED, NATIVE, folder)
    return bool(request.param)


@pytest.fixture
def second(ships: bool, monkeypatch: pytest.MonkeyPatch) -> Artefact:
    """T-T5 of the second model; T-T1 stays the first one's."""
    changed = dataclasses.replace(artefact("T-T5"), models=(NATIVE,), planned=FEW)
    known = {"T-T1": dataclasses.replace(artefact("T-T1"), planned=FEW), "T-T5": changed}
    monkeypatch.setattr(figures.artefacts, "_declared", lambda: known)
    return changed


def test_the_rows_of_several_models_are_joined() -> None:
    both: list[Any] = [models()(name) for name in ("one", "two")]
    made = make("T-T5", both, **FEW)
    assert made.frame["model"].tolist() == ["one"] * 9 * 12 + ["two"] * 9 * 12
    assert made.parameters["model"] == "one, two" and made.parameters["dtype"] == "float32"
    alone = make("T-T5", both[1], **FEW)
    whole = made.frame[made.frame["model"] == "two"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        alone.frame.drop(columns="seconds"), whole.drop(columns="seconds")
    )


def test_each_artefact_asks_its_own_model_unless_one_is_named(
    second: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(making, "opener", lambda *_: models(asked))
    made = list(make_all("T-T1 T-T5", samples=2, tasks=["embedded/read"], fresh=True))
    assert asked == [EMBEDDED, NATIVE]
    assert [set(one.frame["model"]) for one in made] == [{EMBEDDED}, {NATIVE}]
    asked.clear()
    list(make_all("T-T5", model="folder", samples=2, tasks=["embedded/read"], fresh=True))
    assert asked == ["folder"]


def test_units_have_one_set_of_models(ships: bool, second: Artefact, tmp_path: Path) -> None:
    own = {unit.name: unit.artefacts for unit in reproduce.plan((), {}, tmp_path)}
    others = {f"eviction-{NATIVE}": ("T-T5",)} if ships else {}
    assert own == {"eviction": ("T-T1",), **others}
    assert reproduce.absent((), {}) == ({} if ships else {"T-T5": (NATIVE,)})
    (unit,) = reproduce.plan((), {"model": "a/b"}, tmp_path)
    assert (unit.name, unit.artefacts) == ("eviction", ("T-T1", "T-T5"))
    assert reproduce.absent((), {"model": "a/b"}) == {}


def test_what_can_not_be_made_is_said_before_anything_runs(
    ships: bool, second: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = CliRunner().invoke(artefacts_command).output.splitlines()
    told = "component_ablation" if ships else f"missing: the weights of {NATIVE}"
    assert told in listed[1] and "budget_ranking" in listed[0]
    if ships:
        return
    with pytest.raises(ModelError, match="train-embedded --model qwen"):
        reproduce.plan(("T-T5",), {}, tmp_path)
    monkeypatch.setattr(reproduce, "plan", lambda *_: [])
    monkeypatch.setattr(reproduce, "reproduce", lambda *_, **__: reproduce.Reproduced(tmp_path, {}))
    result = CliRunner().invoke(reproduce_command, ["--results", str(tmp_path)])
    assert f"T-T5 is left out: the weights of {NATIVE} don't ship yet" in result.stderr


def test_the_report_does_not_count_what_its_model_lacks(
    ships: bool, second: Artefact, tmp_path: Path
) -> None:
    from figures.export import publish

    absent = entries.entry_of(second, None)
    assert absent.state == (entries.NOT_RUN if ships else entries.MISSING)
    page = write_report({}, tmp_path / "empty").read_text()
    lacks = f"Not made here. Missing: the weights of {NATIVE}."
    assert (lacks in page) == (not ships)
    assert ("lightkv reproduce T-T5" in page) == ships
    # Made of another model, it counts.
    settings = {"model": f"{EMBEDDED}, {NATIVE}"}
    publish(second, frame_of(second), tmp_path / "unit", parameters=settings)
    made = {"T-T5": Finished(tmp_path / "unit", 1.0)}
    page = write_report(made, tmp_path / "report").read_text()
    assert "judged on the embedded model and the embedded Qwen3-VL" in page and lacks not in page
    assert "TGV-KV: 1 of 2 artefacts made" in page


def test_a_unit_depends_on_the_files_of_every_model_that_it_asks(
    second: Artefact, tmp_path: Path
) -> None:
    def keys(**options: Any) -> list[str]:
        usual = {"artefacts": "T-T1", **options}
        return [
            Unit.of(Notebook.named("artefacts"), {**usual, **more}, tmp_path).key
            for more in ({}, {"artefacts": "T-T1 T-T5"})
        ]

    before, other = keys(), keys(model="a/b")
    (location.SHIPPED[NATIVE] / "config.json").write_text("{}")
    after = keys()
    assert before[0] == after[0] and before[1] != after[1] and keys(model="a/b") == other


def test_rows_that_ship_are_asked_of_each_artefacts_models(
    ships: bool, second: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "packaged", lambda: Path("nowhere"))
    with Store(None) as store:
        planned = {one.artefact.id: one for one in plan(models(), store)}
    assert list(planned) == (["T-T1", "T-T5"] if ships else ["T-T1"])
    if not ships:
        with pytest.raises(ModelError, match="train-embedded"):
            list(plan(models(), Store(None), ["T-T5"]))
        return
    # The two models share no answer.
    assert planned["T-T5"].added == planned["T-T5"].rows == 9 * 12
    asked: list[str] = []
    assert [one.id for one in build(models(asked), tmp_path / "built")] == ["T-T1", "T-T5"]
    with Store(tmp_path / "built", read_only=True) as kept:
        rows = kept.rows()
    assert rows.groupby("model")["item"].count().to_dict() == {EMBEDDED: 120, NATIVE: 108}
    assert set(asked) == {EMBEDDED, NATIVE}


def test_an_embedded_model_keeps_its_name(ships: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(EMBEDDED) == EMBEDDED and named("a/b") == "a/b"
    assert named(str(location.CHECKPOINT)) == str(location.CHECKPOINT.resolve())
    if ships:
        assert named(NATIVE) == NATIVE
        check_model(NATIVE, None, None)
    else:
        with pytest.raises(ModelError, match="train-embedded"):
            named(NATIVE)
    monkeypatch.setattr(reproduce, "_cores", lambda: 2)
    assert reproduce.usual_jobs({"model": NATIVE}) == 2


def test_tasks_of_one_word_are_known_of_both_models() -> None:
    tasks = [f"{of}/{kind}" for of in (EMBEDDED, NATIVE, "folder") for kind in ("color", "read")]
    left = evictable(pd.DataFrame({"task": [*tasks, f"{NATIVE}/compare", f"{NATIVE}/order"]}))
    expected = [f"{of}/read" for of in (EMBEDDED, NATIVE)] + ["folder/color", "folder/read"]
    assert left["task"].tolist() == [*expected, f"{NATIVE}/order"]


@pytest.mark.skipif(
    not location.ships(NATIVE),
    reason="the weights don't ship yet; `lightkv train-embedded --model qwen` trains them",
)
def test_artefacts_of_the_second_model_are_made_of_it() -> None:
    few: dict[str, Any] = {"samples": 2, "methods": ("tgvkv",), "retentions": (0.5,)}
    video, long = make_all("T-T9 T-F6", fresh=True, options=few)
    assert set(video.frame["model"]) == set(long.frame["model"]) == {NATIVE}
    assert len(video.frame) == 3 * 2 * 2 and len(long.frame) == 2 * 2
    assert video.frame["fact_hint"].isin(["none", "right", "wrong"]).all()
    assert (long.frame["fact_tokens"] >= 10).all()
    assert video.figure and long.figure and len(video.table) > len(long.table)
