"""Studies on the embedded model: shapes of their tables, and what they must show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.asking.store import Store
from analysis.probing.interventions import answer_tokens, knockouts, score_answers
from analysis.probing.patching import patches
from analysis.studies import STUDIES
from analysis.studies.probing_causes import causal_profile
from analysis.studies.probing_grounding import grounding_profile
from analysis.studies.probing_information import information_profile
from analysis.tasks import task
from lightkv import VLM, Request
from lightkv.contract.interventions import Knockout
from lightkv.contract.layout import TokenKind
from lightkv.errors import InputError, InvalidValueError
from tests.closeness import SINGLE, assert_close

NAMED = ["model", "task", "seed", "item"]


def some(count: int) -> tuple[list[Request], list[str]]:
    items = task("embedded/color").items(count, 0)
    return [item.request() for item in items], [item.answers[0] for item in items]


def test_forced_answers_have_the_probability_that_a_plain_forward_pass_gives(embedded: VLM) -> None:
    import torch

    requests, answers = some(2)
    answers[1] = "top left"
    tokens = answer_tokens(embedded, answers)
    scored = score_answers(embedded, requests, tokens)
    for request, words, logprob in zip(requests, tokens, scored["logprob"], strict=True):
        inputs = embedded.encode([request])
        start = inputs["input_ids"].shape[1]
        ids = torch.cat([inputs["input_ids"], torch.tensor([words])], 1)
        with torch.no_grad():
            whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = embedded.model(**whole).logits[0, start - 1 : -1]
        expected = torch.log_softmax(logits, -1)[range(len(words)), list(words)].sum()
        assert logprob == pytest.approx(float(expected), abs=1e-3)


def test_given_says_what_the_model_would_answer(embedded: VLM) -> None:
    requests, _ = some(6)
    said = embedded.ask_many(requests, max_new_tokens=4)
    spoken = [answer.tokens for answer in said]
    assert score_answers(embedded, requests, spoken)["given"].all()
    blind = (Knockout(tuple(range(embedded.facts.layers))),)
    unseen = score_answers(embedded, requests, spoken, interventions=blind)
    assert unseen["given"].mean() < 1
    with pytest.raises(InputError, match="1 answers for 6 questions"):
        score_answers(embedded, requests, spoken[:1])
    with pytest.raises(InputError, match="no tokens"):
        answer_tokens(embedded, [""])


def test_knockouts_and_patches_move_answers(embedded: VLM) -> None:
    requests, answers = some(4)
    tokens = answer_tokens(embedded, answers)
    frame = knockouts(embedded, requests, tokens, pairs=[("text", "vision")], width=99, layers=[4])
    assert len(frame) == 4 and frame["effect"].mean() < 0
    donors = [Request(r.images, requests[0].question) for r in reversed(requests)]
    asked = [Request(r.images, requests[0].question) for r in requests]
    others = answer_tokens(embedded, ["red", "green", "blue", "white"])
    mine = answer_tokens(embedded, ["yellow"] * 4)
    swapped = patches(embedded, asked, donors, mine, others, from_layers=[0])
    plain = score_answers(embedded, donors, mine)
    assert swapped["own"].tolist() == plain["given"].tolist()
    with pytest.raises(InputError, match="are the same"):
        patches(embedded, asked, donors, mine, mine)
    with pytest.raises(InputError, match="one of each"):
        patches(embedded, asked, donors[:1], mine, others)


@pytest.mark.parametrize(
    ("name", "settings", "panels"),
    [
        (
            "modality_gap",
            {"samples": 2},
            {"similarity", "block", "evicted", "accumulated", "map"}
            | {"centroid distance", "separability"},
        ),
        ("attention_maps", {"layers": (1,)}, {"map", "weight", "heaviest", "trough"}),
        ("grounding_profile", {"samples": 2, "tasks": ("embedded/read",)}, {"cells", "words"}),
        ("redundancy_profile", {"samples": 1, "windows": (1, 4)}, None),
    ],
)
def test_studies_return_tidy_tables(
    embedded: VLM, name: str, settings: dict[str, Any], panels: set[str] | None
) -> None:
    frame = STUDIES[name].run(embedded, **settings)
    assert list(frame.columns[:4]) == NAMED and not frame.columns.duplicated().any()
    if panels is not None:
        assert set(frame["panel"]) == panels
    assert set(frame["layer"].dropna()) <= set(range(embedded.facts.layers))


def test_maps_are_those_of_the_model(embedded: VLM) -> None:
    frame = STUDIES["attention_maps"].run(embedded, layers=(1,))
    maps = frame[frame["panel"] == "map"]
    rows = maps.groupby("position")["value"].sum()
    assert_close(rows, 1, SINGLE)
    assert (maps["key"] <= maps["position"]).all()
    assert set(maps["kind"]) == {TokenKind(kind).name.lower() for kind in (1, 2, 3)}
    weights = frame[frame["panel"] == "weight"]
    assert_close(weights["value"].sum(), 1, SINGLE)


def test_tables_are_kept_and_read_back(embedded: VLM, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        first = grounding_profile(embedded, tasks=("embedded/color",), samples=2, store=store)
        again = grounding_profile(embedded, tasks=("embedded/color",), samples=2, store=store)
    pd.testing.assert_frame_equal(first, again)


def test_information_profile(embedded: VLM) -> None:
    known = information_profile(embedded, samples=32)
    over = known[known["item"] < 0]
    bounded = over[over["measure"] != "k-NN information, first"]
    assert (bounded["low"] <= bounded["value"].clip(0) + 1e-9).all()
    assert (bounded["high"] >= bounded["value"] - 1e-9).all()
    assert (over.groupby("measure").size() == embedded.facts.layers).all()
    assert set(over["measure"]) >= {
        "Gaussian information",
        "Gaussian information, first",
        "k-NN information, first",
        "decoded from last",
    }
    single = known[known["item"] >= 0]
    budget = single[single["measure"] == "TVB budget"]
    assert_close(budget.groupby("item")["value"].sum(), 1, SINGLE)
    for measure in ("attention information", "TVB budget", "Gaussian information"):
        mean = single[single["measure"] == measure].groupby("layer")["value"].mean()
        whole = over[over["measure"] == measure].set_index("layer")["value"]
        assert_close(mean, whole.loc[mean.index], SINGLE)


def test_information_needs_samples_before_anything_runs(embedded: VLM) -> None:
    with pytest.raises(InvalidValueError, match="samples is 31; allowed: at least 32"):
        information_profile(embedded, samples=31)
    with pytest.raises(InvalidValueError, match="at least 40 for 10 components"):
        information_profile(embedded, samples=32, dims=10)


def known_before(vlm: VLM) -> pd.DataFrame:
    rows = {"layer": range(vlm.facts.layers), "measure": "attention information", "value": 1.0}
    return pd.DataFrame({"item": -1, **rows})


def test_causal_profile(embedded: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import analysis.studies.probing_causes as module

    short = known_before(embedded)
    monkeypatch.setattr(module, "information_profile", lambda *_, **__: short)
    frame = causal_profile(embedded, samples=8)
    assert set(frame["panel"]) == {"knockout", "patch", "information"}
    cut = frame[(frame["panel"] == "knockout") & (frame["pair"] == "text to vision")]
    assert cut.groupby("layer")["effect"].mean().min() < -0.5
    patched = frame[frame["panel"] == "patch"].groupby("layer")["preference"].mean()
    assert patched.iloc[0] > 0 > patched.iloc[-1]
