"""Training: the lean forward is the stock forward, and a run continues exactly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from lightkv.commands.train_embedded import train_embedded_command
from lightkv.embedded import batches
from lightkv.embedded import trainer as train
from lightkv.embedded.architecture import Architecture, build_model
from lightkv.embedded.batches import IGNORE, NAMES, NO_TURN, TextSettings
from lightkv.embedded.lean import LeanModel
from lightkv.embedded.objectives import answer_loss, exact_answers
from lightkv.embedded.optimizer import Muon, descend, orthogonalise
from lightkv.embedded.recipe import MIX, QUICK, SHIPPED, LanguageStage, Rates
from lightkv.embedded.trainer import Trainer, choose_patches
from lightkv.embedded.vocabulary import EOS_ID, PAD_ID, PREFIX_IDS, decode
from tests.closeness import assert_close

TEXT = TextSettings(length=80, weights=MIX, caption=0.3, other_system=0.0)
TINY = QUICK.architecture


def _batch(seed: int = 0, count: int = 3, text: TextSettings = TEXT) -> batches.Batch:
    rng = np.random.default_rng(seed)
    return batches.make_batch(rng, count, text, shapes=(3, 6), numbers=(0, 3))


def _stock_inputs(batch: batches.Batch) -> dict[str, torch.Tensor]:
    images = torch.full((len(batch.text), 256), 3)
    pixels = batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = torch.cat([batch.prefix, images, batch.text], 1)
    return {"input_ids": ids, "pixel_values": pixels}


def _score(logits: torch.Tensor, batch: batches.Batch) -> dict[str, tuple[int, int]]:
    return exact_answers(logits, batch.target, batch.turn, batch.kind)


def _loss(logits: torch.Tensor, batch: batches.Batch) -> torch.Tensor:
    return answer_loss(logits, batch.target, batch.weight)


def test_lean_forward_equals_stock_forward_in_a_conversation() -> None:
    model = build_model(TINY, 0)
    lean = LeanModel(model)
    batch = _batch(text=dataclasses.replace(TEXT, conversation=1.0))
    kept = torch.arange(256).expand(3, -1)
    mask, position = batches.attention_inputs(batch, kept, len(PREFIX_IDS))
    with torch.no_grad():
        image = lean.project(lean.vision(batch.pixels))
        got = lean(batch.prefix, image, batch.text, mask, position)
        stock = model(**_stock_inputs(batch)).logits[:, len(PREFIX_IDS) + 255 : -1]
    real = batch.turn < NO_TURN
    assert_close(got[real], stock[real], 1e-3)


def test_lean_forward_equals_stock_forward_for_each_independent_turn() -> None:
    model = build_model(TINY, 0)
    lean = LeanModel(model)
    batch = _batch(text=dataclasses.replace(TEXT, conversation=0.0), count=1)
    kept = torch.arange(256).expand(1, -1)
    mask, position = batches.attention_inputs(batch, kept, len(PREFIX_IDS))
    pixels = _stock_inputs(batch)["pixel_values"]
    with torch.no_grad():
        image = lean.project(lean.vision(batch.pixels))
        got = lean(batch.prefix, image, batch.text, mask, position)
        for turn in range(1, int(batch.turn[batch.turn < NO_TURN].max()) + 1):
            of_turn = batch.turn[0] == turn
            ids = torch.cat([batch.prefix, torch.full((1, 256), 3), batch.text[:, of_turn]], 1)
            stock = model(input_ids=ids, pixel_values=pixels).logits[0, len(PREFIX_IDS) + 256 : -1]
            assert_close(got[0, of_turn][1:], stock, 1e-3)


def test_batch_supervises_exactly_the_answers() -> None:
    batch = _batch(count=8)
    for row in range(8):
        inside = batch.turn[row] < NO_TURN
        assert (batch.text[row][~inside] == PAD_ID).all()
        for turn in set(batch.turn[row][inside].tolist()):
            of_turn = batch.turn[row] == turn
            text, target = batch.text[row][of_turn], batch.target[row][of_turn]
            supervised = target != IGNORE
            assert (text[supervised] == target[supervised]).all()
            assert target[-1] == EOS_ID
            words = decode(text.tolist())
            assert "assistant :" in words
            assert words.endswith(decode(target[supervised].tolist()))
    assert ((batch.weight > 0) == (batch.target != IGNORE)).all()


def test_chosen_patches_hold_every_object() -> None:
    batch = _batch(count=6)
    kept = choose_patches(np.random.default_rng(0), batch, 128)
    assert kept.shape == (6, 128) and (kept.diff() > 0).all()
    for row in range(6):
        shown = set(torch.nonzero(batch.labels["kind"][row])[:, 0].tolist())
        assert shown <= set(kept[row].tolist())
    everything = choose_patches(np.random.default_rng(0), batch, 256)
    assert (everything == torch.arange(256)).all()


def test_exact_answers_counts_whole_turns() -> None:
    batch = _batch(count=4)
    perfect = torch.nn.functional.one_hot(batch.target.clamp(min=0), 200).float()
    score = _score(perfect, batch)
    assert set(score) <= set(NAMES)
    assert all(right == count for right, count in score.values())
    turns = {(r, int(t)) for r in range(4) for t in batch.turn[r] if t < NO_TURN}
    assert sum(count for _, count in score.values()) == len(turns)
    broken = perfect.clone()
    row = int(torch.nonzero(batch.target[0] != IGNORE)[0, 0])
    broken[0, row] = 0
    assert sum(right for right, _ in _score(broken, batch).values()) == len(turns) - 1
    assert _loss(broken, batch) > _loss(perfect, batch)


def test_orthogonalise_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 16), (2, 16, 24)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3 and values.max() < 1.4
    weight = nn.Parameter(torch.randn(8, 8))
    optimizer = Muon([weight], lr=0.1)
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    before = weight.detach().clone()
    optimizer.step()
    assert (weight.detach() - before).norm() > 0.1


@pytest.mark.parametrize(("slope", "moved"), [(3.0, (0.6, 0.8)), (0.1, (0.3, 0.4))])
def test_a_step_follows_gradients_of_norm_one_at_most(
    slope: float, moved: tuple[float, float]
) -> None:
    """Of all optimizers together, and a gradient is used once."""
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([weight], lr=1.0) for weight in (first, second)]
    descend((slope * (3 * first + 4 * second)).sum(), optimizers)
    assert [-first.item(), -second.item()] == pytest.approx(moved, abs=1e-5)
    assert first.grad is None and second.grad is None


def test_rates_rise_and_fall() -> None:
    rates = Rates(1.0, 1.0, warmup=10, constant=0.5)
    assert rates.scale(0, 100) == pytest.approx(0.1)
    assert rates.scale(30, 100) == 1.0
    assert rates.scale(75, 100) == pytest.approx(0.5)
    assert rates.scale(99, 100) == pytest.approx(0.02)
    assert Rates(1.0, 1.0, constant=1.0).scale(99_999, 100_000) == 1.0


def test_shipped_recipe_is_sane() -> None:
    assert SHIPPED.architecture == Architecture()
    names = [stage.name for stage in SHIPPED.stages]
    assert len(set(names)) == len(names)
    for stage in SHIPPED.stages:
        if isinstance(stage, LanguageStage):
            assert stage.phases[-1].until == 1.0
            assert set(stage.text.weights) <= set(NAMES)
    last = SHIPPED.stages[-1]
    assert isinstance(last, LanguageStage) and last.phases[-1].kept == 256


def test_training_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps in one go equal three steps, a new process state, and three more."""
    monkeypatch.setattr(train, "LOG_EVERY", 1)
    through = Trainer(QUICK)
    lines = list(through.run(6))
    first = Trainer(QUICK, tmp_path, save_every=3)
    list(first.run(3))
    second = Trainer(QUICK, tmp_path, save_every=3)
    assert second.resume()
    list(second.run(3))
    for name, weight in through.student.model.state_dict().items():
        assert torch.equal(weight, second.student.model.state_dict()[name]), name
    strip = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    assert strip == [{k: v for k, v in line.items() if k != "seconds"} for line in second.log]


def test_vision_is_frozen_in_the_language_stage() -> None:
    trainer = Trainer(QUICK)
    list(trainer.run(4))
    tower = {k: v.clone() for k, v in trainer.student.tower.state_dict().items()}
    decoder = {k: v.clone() for k, v in trainer.student.decoder.state_dict().items()}
    list(trainer.run())
    assert trainer.done
    assert all(torch.equal(v, trainer.student.tower.state_dict()[k]) for k, v in tower.items())
    changed = [
        not torch.equal(v, trainer.student.decoder.state_dict()[k]) for k, v in decoder.items()
    ]
    assert all(changed)


def test_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    first = Trainer(QUICK, tmp_path, save_every=1)
    list(first.run(1))
    with pytest.raises(ValueError, match="another recipe"):
        Trainer(dataclasses.replace(QUICK, seed=1), tmp_path).resume()
    assert not Trainer(QUICK, tmp_path / "nothing").resume()


def test_command_writes_everything(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--quick", "--no-compile", "--evaluate", "4"]
    result = CliRunner().invoke(train_embedded_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
        "training_log.csv",
        "metrics.json",
        "README.md",
    }
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["kinds"]["read"]["full"]["n"] == 4
    assert [stage["steps"] for stage in metrics["training"]["stages"]] == [4, 4]
