"""L-T3, made of a Fuyu with random weights, as it will be of the one that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from figures import reproduce
from figures.artefacts import artefact
from figures.artefacts.shared import PLANNED_SEED
from figures.making import Made, make, make_all
from figures.models import ENCODER_FREE, check_model
from figures.reproduce_cli import artefacts_command
from figures.verdicts import Outcome
from lightkv import VLM, load
from lightkv.embedded import location
from lightkv.embedded.fuyu.architecture import Architecture, build_model
from lightkv.embedded.fuyu.processing import build_processor
from lightkv.errors import ModelError, UnsupportedError
from lightkv.families import FAMILIES

TASKS = ("exist", "where", "read", "caption")
FEW: dict[str, Any] = {"samples": 2, "fresh": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuyu")
    model = build_model(Architecture(hidden=32, heads=2, intermediate=48), 0)
    model.generation_config.max_new_tokens = 3
    model.save_pretrained(path)
    build_processor().save_pretrained(path)
    return path


@pytest.fixture
def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(location.SHIPPED, ENCODER_FREE, folder)


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    (one,) = make_all("L-T3", model=str(folder), **FEW)
    return one


def test_it_waits_for_the_weights_of_the_encoder_free_model(tmp_path: Path) -> None:
    one = artefact("L-T3")
    assert one.models == (ENCODER_FREE,)
    assert one.planned == {"samples": 128, "seed": PLANNED_SEED}
    if location.ships(ENCODER_FREE):
        return
    listed = CliRunner().invoke(artefacts_command).output
    (line,) = [line for line in listed.splitlines() if line.startswith("L-T3")]
    assert f"missing: the weights of {ENCODER_FREE}" in line
    assert reproduce.absent((), {})["L-T3"] == (ENCODER_FREE,)
    with pytest.raises(ModelError, match="train-embedded --model fuyu"):
        reproduce.plan(("L-T3",), {}, tmp_path)


def test_once_they_ship_nothing_is_missing_and_it_is_asked(shipped: None, tmp_path: Path) -> None:
    assert artefact("L-T3").lacking == ""
    units = {unit.name: unit.artefacts for unit in reproduce.plan(("L-T3",), {}, tmp_path)}
    assert units == {f"compared-{ENCODER_FREE}": ("L-T3",)}
    check_model(ENCODER_FREE, None, None)
    few = {"methods": ("lightkv",)}
    (one,) = make_all("L-T3", tasks=["embedded/read"], options=few, **FEW)
    assert set(one.frame["model"]) == {ENCODER_FREE} and len(one.frame) == 2 * 2


def test_it_asks_the_full_cache_and_the_papers_two_methods(made: Made) -> None:
    cells = made.frame.groupby(["compared", "share"], sort=False).size()
    assert cells.to_dict() == {("vanilla", 1.0): 8, ("fastv", 0.55): 8, ("lightkv", 0.55): 8}
    assert set(made.frame["task"]) == {f"embedded/{kind}" for kind in TASKS}
    assert not made.frame["encoder"].any()
    processed = made.frame.groupby("compared")["token_share"].mean()
    assert processed["vanilla"] == 1 and processed[["fastv", "lightkv"]].between(0.45, 0.65).all()


def test_ours_stands_above_both_models_of_the_paper(made: Made) -> None:
    models = made.table["model", ""].tolist()
    assert all(model.startswith("here (") for model in models[:3])
    assert models[3:] == ["paper (EVE-7B v1)"] * 3 + ["paper (EVE-7B-HD v1)"] * 3
    assert made.table["KV held", "%"].iloc[0] == "100"
    assert made.figure.axes[0].get_title() == "here, 55 %"


def test_claims_are_judged_on_what_was_asked(made: Made) -> None:
    for one in made.artefact.judge(made.frame):
        assert "vision encoder" not in one.verdict.reason


def test_a_model_with_an_encoder_shows_its_rows_and_no_claim_is_judged(embedded: VLM) -> None:
    one = make("L-T3", embedded, samples=1, tasks=["embedded/exist"])
    assert len(one.table) == 3 + 6
    for judged in one.artefact.judge(one.frame):
        assert judged.verdict.outcome is Outcome.UNTESTABLE
        assert judged.verdict.reason == ("takes a model without a vision encoder; embedded has one")


def test_methods_that_read_the_encoder_are_refused_and_others_run(folder: Path) -> None:
    vlm = load(folder)
    with pytest.raises(UnsupportedError, match="vision tower; the model has none"):
        make("L-T3", vlm, samples=1, tasks=["embedded/exist"], methods=["hired"])
    others = ["tome", "pitome", "tofu"]
    one = make("L-T3", vlm, samples=1, tasks=["embedded/exist"], methods=others)
    assert one.frame["compared"].tolist() == ["vanilla", *others]


def test_families_without_an_encoder() -> None:
    names = {type(family).__name__ for family in FAMILIES if not family.has_encoder}
    assert names == {"Fuyu", "Eve"}
