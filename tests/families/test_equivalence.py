"""Every family under both kernels, alone and in a padded batch: compression equals masking."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.catalogue import method as named
from lightkv.check.checks import CHECKS, Outcome, run_checks
from lightkv.check.drawn_methods import DrawnEviction, DrawnMerges
from lightkv.check.subject import FLOAT32_LIMIT, Subject, difference, logits
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.contract.compressor import Compressor, Positions
from lightkv.engine.plan import Quirks
from lightkv.engine.shortening import LayerAdditions
from lightkv.errors import UnsupportedError
from tests.closeness import assert_close


@pytest.fixture(
    scope="module", params=[(n, k) for n in ZOO for k in ("sdpa", "eager")], ids="-".join
)
def model(request: pytest.FixtureRequest) -> Iterator[VLM]:
    name, kernel = request.param
    yield ZOO[name].build(kernel)


def subject(vlm: VLM, batch: str) -> Subject:
    rows = ZOO[vlm.name].rows(vlm.model.config)
    rows = rows if batch == "padded" else rows[:1]
    return Subject(vlm, rows, stack(rows))


@pytest.mark.parametrize("batch", ["one", "padded"])
def test_every_check_passes(model: VLM, batch: str) -> None:
    outcomes = run_checks(subject(model, batch))
    assert [outcome.name for outcome in outcomes] == list(CHECKS)
    assert [outcome for outcome in outcomes if not outcome.passed] == []
    assert max(outcome.error or 0 for outcome in outcomes) <= FLOAT32_LIMIT


def failed(vlm: VLM, names: set[str]) -> list[Outcome]:
    return [o for o in run_checks(subject(vlm, "padded")) if not o.passed and o.name in names]


def test_a_forgotten_window_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = ZOO["llava_next_mistral"].build()
    blind = dataclasses.replace(vlm.quirks, windows=(1000,) * 4)
    monkeypatch.setattr(VLM, "quirks", blind)
    assert [o.name for o in failed(vlm, {"eviction = masking"})] == ["eviction = masking"]


def test_forgotten_vision_features_of_later_layers_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = ZOO["qwen3_vl"].build()
    monkeypatch.setattr(LayerAdditions, "is_ours", lambda *_: False)
    assert len(failed(vlm, {"shortening = masking", "both = masking"})) == 2


def test_merging_after_the_last_deepstack_layer_needs_nothing_added() -> None:
    vlm = ZOO["qwen3_vl"].build()
    asked = subject(vlm, "padded")
    for stage in (-1, 0, 2):
        run = asked.compressed(DrawnMerges(stage))
        oracle = asked.masked(run, stage)
        assert difference(logits(run.output), logits(oracle)) <= FLOAT32_LIMIT


def test_a_stage_that_merges_nothing_leaves_deepstack_alone() -> None:
    """The decoder adds fewer features than usual, the graph the rest: the sum is the same."""

    class Nothing(DrawnMerges):
        def reduce(self, view: Any) -> Any:
            from lightkv.contract.reduction import Reduction

            return Reduction.identity(*view.layout.kind.shape)

    asked = subject(ZOO["qwen3_vl"].build(), "padded")
    run = asked.compressed(Nothing(0))
    assert difference(logits(run.output), logits(asked.plain)) <= FLOAT32_LIMIT


@pytest.mark.parametrize(
    ("name", "positions"),
    [("qwen2_5_vl", "reindex"), ("llava_next_mistral", "keep"), ("gemma3", "keep")],
)
def test_several_stages_and_renumbering_hold_in_batches(name: str, positions: Positions) -> None:
    vlm = ZOO[name].build()
    asked = subject(vlm, "padded")
    method = DrawnMerges(0) | DrawnMerges(2, positions=positions) | DrawnEviction()
    together = asked.generate(asked.batch, method, asked.answer)
    for number, row in enumerate(asked.rows):
        alone = asked.generate(row, method, asked.answer[number : number + 1])
        assert_close(logits(together.output)[number], logits(alone.output)[0], FLOAT32_LIMIT)


@pytest.mark.parametrize("name", ["llava_next_mistral", "gemma3"])
@pytest.mark.parametrize(
    "method",
    [DrawnMerges(1, positions="reindex"), named("streamingllm-reindexed", 0.5)],
    ids=["merge", "cache"],
)
def test_new_positions_under_a_window_are_refused(name: str, method: Compressor) -> None:
    vlm = ZOO[name].build()
    row = ZOO[name].rows(vlm.model.config)[0]
    with pytest.raises(UnsupportedError, match=r"look back on \d+ tokens.*positions='keep'"):
        vlm.generate(row, method, max_new_tokens=2)


def test_renumbered_tokens_have_text_positions_on_all_axes() -> None:
    """Pruning before the first layer with renumbering equals a text of the survivors."""
    vlm = ZOO["qwen2_5_vl"].build()
    row = ZOO["qwen2_5_vl"].rows(vlm.model.config)[0]
    settings = {"max_new_tokens": 4, "output_logits": True, "return_dict_in_generate": True}
    ours = vlm.generate(row, DrawnMerges(-1, positions="reindex"), do_sample=False, **settings)
    provenance = ours.records[0].layers[0].provenance
    assert provenance is not None
    embedded: list[Tensor] = []
    decoder = vlm.model.get_decoder()
    handle = decoder.layers[0].register_forward_pre_hook(lambda _, args: embedded.append(args[0]))
    vlm.model.generate(**row, do_sample=False, **settings)
    handle.remove()
    shorter = provenance.matrix() @ embedded[0]
    said = ours.output.sequences[:, row["input_ids"].shape[1] : -1]
    whole = torch.cat([shorter, vlm.model.get_input_embeddings()(said)], 1)
    with torch.no_grad():
        state = decoder(inputs_embeds=whole).last_hidden_state
        expected = vlm.model.lm_head(state[:, shorter.shape[1] - 1 :])
    assert difference(logits(ours.output), expected) <= FLOAT32_LIMIT


def test_quirks_are_those_of_the_config() -> None:
    assert ZOO["gemma3"].build().quirks == Quirks((12, None, 12, None))
    assert ZOO["llava_next_mistral"].build("eager").quirks == Quirks((24,) * 4, True)
    assert ZOO["qwen3_vl"].build().quirks == Quirks((None,) * 4, False, True)
