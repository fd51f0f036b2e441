"""The native-resolution model's training: its forward pass is the stock one, and it continues."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.embedded import vocabulary as words
from lightkv.embedded.batches import IGNORE, NO_TURN
from lightkv.embedded.canvas import PATCH, Canvas
from lightkv.embedded.qwen import batches as making
from lightkv.embedded.qwen import checkpoint, lean
from lightkv.embedded.qwen import trainer as training
from lightkv.embedded.qwen.architecture import MERGE
from lightkv.embedded.qwen.batches import SORTS
from lightkv.embedded.qwen.containers import Batch, Sort, View
from lightkv.embedded.qwen.lean import added_mask, axis_of_frequency
from lightkv.embedded.qwen.prompts import attention_inputs, prefix_positions
from lightkv.embedded.qwen.recipe import QUICK
from lightkv.embedded.qwen.stream import Budget
from lightkv.embedded.qwen.trainer import Trainer
from lightkv.embedded.qwen.training import HELD_OUT, train_state
from lightkv.errors import StoreError
from tests.closeness import assert_close

CLOCK = {"at", "seconds", "waited"}
DIFFICULTY = replace(QUICK.phases[-1].difficulty, tokens=500, definitions=4)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    made = Trainer(QUICK)
    # What deepstack adds starts small; here it has to show.
    with torch.no_grad():
        for merger in made.lean.deep_mergers:
            merger.linear_fc2.weight.mul_(10)
    return made


def _batch(sort: Sort, conversation: float, seed: int = 0) -> Batch:
    """A batch of one sort whose turns all see each other, or none another."""
    for number in range(seed, seed + 100):
        batch = making.make_batch(
            np.random.default_rng(number), replace(DIFFICULTY, sorts={sort: 1.0})
        )
        together = bool((batch.sees[batch.turn < NO_TURN] == 1).all())
        several = int(batch.turn[batch.turn < NO_TURN].max()) > 1
        if several and together == bool(conversation):
            return batch
    raise AssertionError(sort)


def _stock_inputs(batch: Batch, row: int, text: Tensor) -> dict[str, Any]:
    """What the stock processor makes of the same prompt."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    token = words.VIDEO_ID if batch.sort == "video" else words.IMAGE_ID
    pixels = [frame.numpy() for view in batch.views for frame in view.pixels[row]]
    grids = [view.canvas.patches for view in batch.views for _ in view.pixels[row]]
    ids: list[int] = batch.words[0][row].tolist()
    for count, part in zip(grids, batch.words[1:], strict=True):
        ids += [token] * count + part[row].tolist()
    tokens = torch.tensor([[*ids, *text.tolist()]])
    if not pixels:
        return {"input_ids": tokens}
    processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH // MERGE,
        merge_size=MERGE,
        min_pixels=64,
        max_pixels=10**6,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    made = processor(images=pixels, return_tensors="pt")
    types = (tokens == words.IMAGE_ID).int() + 2 * (tokens == words.VIDEO_ID).int()
    inputs: dict[str, Any] = {"input_ids": tokens, "mm_token_type_ids": types}
    grid = made["image_grid_thw"]
    if batch.sort == "video":
        steps = torch.tensor([[len(grid), *grid[0, 1:].tolist()]])
        return inputs | {"pixel_values_videos": made["pixel_values"], "video_grid_thw": steps}
    return inputs | {"pixel_values": made["pixel_values"], "image_grid_thw": grid}


@pytest.mark.parametrize("sort", SORTS)
def test_lean_forward_equals_stock_forward_in_a_conversation(trainer: Trainer, sort: Sort) -> None:
    batch = _batch(sort, 1.0)
    with torch.no_grad():
        logits, _ = trainer.answer(batch)
        for row in range(len(batch)):
            inside = batch.turn[row] < NO_TURN
            inputs = _stock_inputs(batch, row, batch.text[row][inside])
            stock = trainer.model(**inputs).logits[0, -int(inside.sum()) - 1 : -1]
            assert_close(logits[row][inside], stock, 1e-4)


@pytest.mark.parametrize("sort", SORTS)
def test_lean_forward_equals_stock_forward_for_each_turn(trainer: Trainer, sort: Sort) -> None:
    batch = _batch(sort, 0.0)
    with torch.no_grad():
        logits, _ = trainer.answer(batch)
        for turn in range(1, int(batch.turn[0][batch.turn[0] < NO_TURN].max()) + 1):
            asked = batch.turn[0] == turn
            text = torch.cat([batch.text[0][batch.turn[0] == 0], batch.text[0][asked]])
            stock = trainer.model(**_stock_inputs(batch, 0, text)).logits[0]
            size = int(asked.sum())
            assert_close(logits[0][asked][1:], stock[-size:-1], 1e-4)


def test_frequencies_of_three_axes_take_turns() -> None:
    assert axis_of_frequency((6, 5, 5)).tolist() == [0, 1, 2] * 5 + [0]
    assert axis_of_frequency((2, 1, 1)).tolist() == [0, 1, 2, 0]


def test_a_grid_takes_as_many_positions_as_its_longer_side() -> None:
    canvas = Canvas(8, 10)
    kept = torch.tensor([[0, 9, 10, 79]])
    positions = prefix_positions(1, [2, 1, 3], [(canvas, kept), (canvas, kept)])
    time, row, column = positions[0].tolist()
    assert time == [0, 1, 2, 2, 2, 2, 12, 13, 13, 13, 13, 23, 24, 25]
    assert row == [0, 1, 2, 2, 3, 9, 12, 13, 13, 14, 20, 23, 24, 25]
    assert column == [0, 1, 2, 11, 2, 11, 12, 13, 22, 13, 22, 23, 24, 25]


def test_text_follows_what_stands_before_it() -> None:
    batch = _batch("pair", 0.0)
    mask, position = attention_inputs(batch)
    length = batch.text.shape[1]
    before = position.shape[2] - length
    assert mask.shape == (len(batch), 1, length + 1, before + length)
    first = position[:, 0, before]
    assert (first == position[:, 0, before - 1] + 1).all()
    assert (position[:, 0] == position[:, 1])[:, before:].all()
    assert mask[:, 0, :, :before].all()
    turns = batch.turn[0]
    seen = mask[0, 0, 1:, before:]
    for row in range(length):
        same = (turns == turns[row]) & (torch.arange(length) <= row)
        assert (seen[row] == same).all()


def test_the_mask_is_added_and_its_rows_are_aligned() -> None:
    sees = torch.rand(2, 1, 3, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = added_mask(sees, torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert ((mask == 0) == sees).all() and ((mask == -torch.inf) == ~sees).all()
    assert mask.stride() == (48, 48, 16, 1)
    assert added_mask(sees[..., :8], torch.float32).stride() == (24, 24, 8, 1)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_in_bfloat16_is_that_of_the_library(causal: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, rows, 8, generator=draw) for rows in (5, 9, 9))
    sees = torch.rand(2, 1, 5, 9, generator=draw) < 0.5
    sees[..., 0] = True
    mask = added_mask(sees, torch.float32)
    if causal:
        k, v = k[:, :, :5], v[:, :, :5]
    expected = F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if causal else mask, is_causal=causal
    )
    low = (part.bfloat16() for part in (q, k, v))
    mixed = lean.attend(*low, None if causal else mask.bfloat16())
    assert mixed.dtype == torch.bfloat16
    assert_close(mixed.float(), expected, 2e-2)


def test_on_processors_bfloat16_takes_no_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower attends in float32, the decoder's attention is written out."""
    fused, dtypes = F.scaled_dot_product_attention, []

    def note(q: Tensor, *others: Any, **options: Any) -> Tensor:
        dtypes.append(q.dtype)
        return fused(q, *others, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    with torch.no_grad():
        Trainer(QUICK, bfloat16=True).answer(_batch("picture", 0.0))
    assert dtypes == [torch.float32] * QUICK.architecture.vision_layers


def test_layers_are_compiled_for_all_sizes_where_they_are_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def compiled(function: Any, *, dynamic: bool) -> Any:
        assert dynamic

        def run(*arguments: Any) -> Any:
            calls.append(function.__name__)
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    one = Trainer(QUICK, compile=True)
    assert torch._dynamo.config.recompile_limit == 64
    batch = _batch("picture", 0.0)
    tower = ["_block"] * QUICK.architecture.vision_layers
    with torch.no_grad():
        one.answer(batch)
    assert calls == tower
    one.answer(batch)
    assert calls == [*tower, *tower, *["_layer"] * (QUICK.architecture.layers - 1)]


@pytest.mark.parametrize("bfloat16", [True, False])
def test_forward_passes_run_in_the_precision_that_is_asked_for(bfloat16: bool) -> None:
    batch = _batch("picture", 0.0)
    with torch.no_grad():
        logits, _ = Trainer(QUICK, bfloat16=bfloat16).answer(batch)
        reference, _ = Trainer(QUICK).answer(batch)
    assert logits.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    assert_close(logits.float(), reference, 5e-2)


def test_a_step_takes_no_kernel_that_is_built_for_each_size(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.backends.cuda.cudnn_sdp_enabled()
    seen: list[bool] = []

    def note(view: View) -> list[Tensor]:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return Trainer.features(trainer, view)

    monkeypatch.setattr(trainer, "features", note)
    with torch.no_grad():
        trainer.answer(_batch("picture", 0.0))
    assert seen == [False] and torch.backends.cuda.cudnn_sdp_enabled()


def test_patches_in_use_hold_every_object() -> None:
    rng = np.random.default_rng(0)
    shown = rng.random((5, 90)) < 0.2
    kept = making.choose_patches(rng, shown, 7)
    assert kept.shape == (5, shown.sum(1).max() + 7)
    assert (np.diff(kept) > 0).all()
    assert all(shown[row, kept[row]].sum() == shown[row].sum() for row in range(5))
    assert (making.choose_patches(rng, shown, None) == np.arange(90)).all()
    assert making.choose_patches(rng, shown, 200).shape == (5, 90)


def test_batches_supervise_exactly_the_answers() -> None:
    for sort in SORTS:
        batch = _batch(sort, 0.0)
        assert ((batch.weight > 0) == (batch.target != IGNORE)).all()
        answered = batch.target != IGNORE
        assert (batch.text[answered] == batch.target[answered]).all()
        assert not answered[batch.turn == 0].any()
        assert bool((batch.turn == 0).any()) == (sort in ("legend", "text"))


def test_steps_decide_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    logs, weights = [], []
    for _ in range(2):
        one = Trainer(QUICK)
        lines = list(one.run(Budget(steps=6)))
        logs.append([{k: v for k, v in line.items() if k not in CLOCK} for line in lines])
        weights.append(one.model.state_dict())
    assert logs[0] == logs[1]
    assert [(line["stage"], line["steps"]) for line in logs[0]] == [
        ("vision", 2),
        ("vision", 1),
        ("language", 2),
        ("language", 1),
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_tower_is_frozen_in_the_language_stage() -> None:
    one = Trainer(QUICK)
    tower = {name: value.clone() for name, value in one.lean.tower.state_dict().items()}
    other = {name: value.clone() for name, value in one.lean.decoder.state_dict().items()}
    mergers = {name: value.clone() for name, value in one.lean.projector.state_dict().items()}
    list(one.run(Budget(steps=20, begin=0.9)))
    assert all(torch.equal(value, one.lean.tower.state_dict()[n]) for n, value in tower.items())
    assert not any(torch.equal(v, one.lean.decoder.state_dict()[n]) for n, v in other.items())
    assert not any(torch.equal(v, one.lean.projector.state_dict()[n]) for n, v in mergers.items())


def test_a_saved_run_continues_with_the_next_batch(tmp_path: Path) -> None:
    first = Trainer(QUICK)
    list(first.run(Budget(steps=3)))
    checkpoint.save(first, tmp_path)
    second = Trainer(replace(QUICK))
    assert checkpoint.resume(second, tmp_path)
    assert (second.step, second.progress) == (first.step, first.progress)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert torch.equal(first.alignment.nothing, second.alignment.nothing)
    assert torch.equal(first.heads.linear.weight, second.heads.linear.weight)
    list(second.run(Budget(steps=10, begin=0.8)))
    assert second.step == 5
    assert not checkpoint.resume(Trainer(QUICK), tmp_path / "nothing")
    with pytest.raises(StoreError, match="another model"):
        checkpoint.resume(Trainer(replace(QUICK, seed=1)), tmp_path)


def test_a_continued_command_begins_where_the_state_ends(tmp_path: Path) -> None:
    train_state(tmp_path, Budget(steps=2), quick=True, evaluate_batches=0)
    state = tmp_path / checkpoint.STATE
    numbers = json.loads(state.read_text())
    assert numbers["progress"] == 1.0
    state.write_text(json.dumps(numbers | {"progress": 0.5}))
    again = train_state(tmp_path, Budget(steps=2), quick=True, evaluate_batches=1)
    assert again.step == 3 and (tmp_path / HELD_OUT).exists()
    written = state.read_bytes()
    assert train_state(tmp_path, Budget(steps=2), quick=True).step == 3
    assert state.read_bytes() == written
    assert train_state(tmp_path, Budget(steps=1), quick=True, fresh=True).step == 1


def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    one = Trainer(QUICK)
    with torch.no_grad():
        one.lean.patch_embed.proj.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        list(one.run(Budget(steps=2)))


def test_held_out_batches_are_not_those_of_training(trainer: Trainer) -> None:
    score = trainer.held_out(1)
    assert set(score) <= set(making.NAMES)
    assert all(0 <= entry["right"] <= entry["all"] for entry in score.values())
