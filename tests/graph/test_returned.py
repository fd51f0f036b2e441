"""What a part of a user's own hands back in a wrong shape is refused by the name of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.probing.probe import probe_inputs
from analysis.probing.quantities.base import Heads, LayerQuantity, Reading, RecordQuantity
from lightkv import VLM
from lightkv.contract.compressor import Compressor, Observation, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import Selection
from tests.tiny import prompt, tiny_llava


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_llava()


@dataclass(frozen=True)
class MyRanking(Ranking):
    shape: Any = ()

    def score(self, view: LayerView) -> Tensor:
        if self.shape is None:
            return None  # type: ignore[return-value]
        rows, length = view.layout.kind.shape
        named = {"B": rows, "N": length, "H": int(view.keys.shape[1])}  # type: ignore[union-attr]
        return torch.ones([named.get(size, size) for size in self.shape])


@dataclass(frozen=True)
class MyBudget(Budget):
    wrong: str = ""

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        rows = view.layout.batch_size
        return torch.ones(rows + 1 if self.wrong == "strength" else rows)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        return nominal[:, :-1] if self.wrong == "allocate" else nominal


@dataclass(frozen=True)
class MySelection(Selection):
    wrong: str = ""

    def tiers(self, layout: TokenLayout, budget: Tensor) -> Tensor:
        return layout.kind[:, 1:] if self.wrong == "tiers" else torch.zeros_like(layout.kind)

    def keep(self, score: Tensor, layout: TokenLayout, budget: Tensor, protected: Tensor) -> Tensor:
        kept = super().keep(score, layout, budget, protected)
        return kept[:, :-1] if self.wrong == "keep" else kept


@dataclass(frozen=True)
class MyEvictor(Evicting):
    wrong: str = ""

    def observe(self, view: LayerView) -> Observation:
        observed = super().observe(view)
        if self.wrong == "no observation":
            return observed.score  # type: ignore[return-value]
        if self.wrong == "score":
            return replace(observed, score=observed.score[:, 1:])
        if self.wrong == "strength":
            return replace(observed, strength=observed.strength.repeat(2))
        return observed

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        retained = super().retain(observations)
        if self.wrong == "too few":
            return retained[1:]
        if self.wrong == "no list":
            return None  # type: ignore[return-value]
        if self.wrong == "no retention":
            return [one.index for one in retained]  # type: ignore[misc]
        changes: dict[str, Any] = {
            "index": {"index": retained[0].index[:, 0]},
            "valid": {"valid": retained[0].valid[..., 1:]},
            "requested": {"requested": retained[0].requested[:, None]},
        }
        return [replace(one, **changes.get(self.wrong, {})) for one in retained]


@dataclass(frozen=True)
class MyReducer(Reducer):
    wrong: str = ""

    def check(self, facts: ModelFacts) -> None:
        pass

    def check_layout(self, layout: TokenLayout) -> None:
        pass

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return (1,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def reduce(self, view: LayerView) -> Reduction:
        keep = view.layout.real.clone()
        keep[:, 3] = False
        right = Reduction.from_keep(keep)
        if self.wrong == "no reduction":
            return keep  # type: ignore[return-value]
        cut = {name: getattr(right, name)[:, 1:] for name in ("index", "valid", "target", "weight")}
        if self.wrong == "index":
            return replace(right, index=right.index[:1].flatten())
        return replace(right, **{self.wrong: cut[self.wrong]}) if self.wrong else right


PARTS: list[tuple[Compressor, str]] = [
    *(
        (Evicting(ranking=MyRanking(shape), retention=0.5), r"MyRanking\.score")
        for shape in ((), ("B",), ("B", 3), ("N", "B"), ("B", "H", 3), ("B", 3, "N"), (1, 1, 1, 1))
    ),
    (Evicting(ranking=MyRanking(None), retention=0.5), r"MyRanking\.score returned is 'NoneType'"),
    *(
        (Evicting(budget=MyBudget(wrong), retention=0.5), rf"MyBudget\.{wrong}")
        for wrong in ("strength", "allocate")
    ),
    *(
        (Evicting(selection=MySelection(wrong), retention=0.5), rf"MySelection\.{wrong}")
        for wrong in ("tiers", "keep")
    ),
    *(
        (MyEvictor(wrong=wrong, retention=0.5), r"MyEvictor\.observe")
        for wrong in ("no observation", "score", "strength")
    ),
    *(
        (MyEvictor(wrong=wrong, retention=0.5), r"MyEvictor\.retain")
        for wrong in ("too few", "no list", "no retention", "index", "valid", "requested")
    ),
    *(
        (MyReducer(wrong), r"MyReducer\.reduce")
        for wrong in ("no reduction", "index", "valid", "target", "weight")
    ),
]


@pytest.mark.parametrize(
    ("method", "named"), PARTS, ids=[str(number) for number in range(len(PARTS))]
)
def test_a_wrong_shape_names_the_class(vlm: VLM, method: Compressor, named: str) -> None:
    with pytest.raises(InvalidValueError, match=named):
        vlm.generate(prompt(1, 5), method, max_new_tokens=1, do_sample=False)


@pytest.mark.parametrize(
    "method",
    [
        Evicting(ranking=MyRanking(("B", "N")), retention=0.5),
        Evicting(ranking=MyRanking(("B", "H", "N")), retention=0.5),
        Evicting(budget=MyBudget(), selection=MySelection(), retention=0.5),
        MyEvictor(retention=0.5),
        MyReducer(),
    ],
    ids=["per entry", "per head", "parts", "evictor", "reducer"],
)
def test_right_shapes_pass(vlm: VLM, method: Compressor) -> None:
    generated = vlm.generate(prompt(1, 5), method, max_new_tokens=1, do_sample=False)
    assert generated.records[0].achieved_retention < 1


@dataclass(frozen=True)
class MyQuantity(LayerQuantity):
    name = "mine"
    definition = "made up"
    cut: int = 0

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("key", "kind")

    def coordinates(self) -> dict[str, list[str]]:
        return {"kind": ["a", "b"]}

    def measure(self, reading: Reading) -> Tensor:
        rows, length = reading.layout.kind.shape
        return torch.ones(rows, length - (self.cut == 1), 2 + (self.cut == 2))


@dataclass(frozen=True)
class MyRecordQuantity(RecordQuantity):
    name = "mine"
    definition = "made up"
    cut: int = 0

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("key",)

    def read(self, record: RunRecord, layer: int) -> Tensor:
        return torch.ones(record.layout.length - self.cut)


@pytest.mark.parametrize(
    ("quantity", "named"),
    [
        (MyQuantity(1), r"MyQuantity\.measure"),
        (MyQuantity(2), r"MyQuantity\.measure"),
        (MyRecordQuantity(1), r"MyRecordQuantity\.read"),
    ],
)
def test_a_quantity_of_a_wrong_shape_is_named(vlm: VLM, quantity: Any, named: str) -> None:
    with pytest.raises(InvalidValueError, match=named):
        probe_inputs(vlm, [prompt(1, 5)], quantity)


@pytest.mark.parametrize("quantity", [MyQuantity(), MyRecordQuantity()])
def test_a_quantity_of_the_right_shape_passes(vlm: VLM, quantity: Any) -> None:
    assert probe_inputs(vlm, [prompt(1, 5)], quantity)["mine"].notnull().all()
