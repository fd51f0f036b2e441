"""The state of the native-resolution model's unfinished run can be gone on from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lightkv.embedded.objectives import exact_answers
from lightkv.embedded.qwen.batches import NAMES, make_batch
from lightkv.embedded.qwen.checkpoint import UNFINISHED, resume
from lightkv.embedded.qwen.recipe import SHIPPED
from lightkv.embedded.qwen.trainer import Trainer


def test_the_unfinished_run_is_resumed_with_what_it_has_learnt() -> None:
    trainer = Trainer(SHIPPED)
    assert resume(trainer, UNFINISHED)
    assert 0 < trainer.progress < 1 and trainer.log[-1]["step"] == trainer.step
    easy = replace(trainer.recipe.phases[0].difficulty, sorts={"text": 1.0}, tokens=1500)
    batch = make_batch(np.random.default_rng(0), easy)
    with torch.no_grad():
        logits, _ = trainer.answer(batch)
    score = exact_answers(logits, batch.target, batch.turn, batch.kind, NAMES)
    right, asked = np.sum([score["meaning"], score["code_word"]], 0)
    assert asked > 20 and right / asked > 0.8


def test_the_readme_says_how_much_of_the_run_is_left() -> None:
    trainer = Trainer(SHIPPED)
    resume(trainer, UNFINISHED)
    readme = (UNFINISHED.parents[3] / "README.md").read_text(encoding="utf-8")
    assert f"{100 * (1 - trainer.progress):.0f} % of a run of 320 minutes" in readme
