"""The training run: stages in order, resumable at any saved step, deterministic for a seed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lightkv.embedded import batches
from lightkv.embedded.batches import Batch, TextSettings
from lightkv.embedded.canvas import SQUARE
from lightkv.embedded.objectives import PatchHeads, WordAlignment, answer_loss, exact_answers
from lightkv.embedded.optimizer import build_optimizers, descend, scale_rates
from lightkv.embedded.questions import Stream
from lightkv.embedded.recipe import LanguageStage, Recipe, Stage, VisionStage
from lightkv.embedded.student import Student
from lightkv.embedded.tally import Tally

logger = logging.getLogger(__name__)

LOG_EVERY: Final = 25
_PATCH_TEXT: Final = TextSettings(length=16, weights={"exist": 1.0}, caption=0.0)
_STATE: Final = "state.pt"


class Trainer:
    """A model in training together with everything needed to continue it.

    Args:
        recipe: The stages.
        state: Folder of the saved state, or None to keep nothing.
        device: ``cpu`` or ``cuda``; on cuda the forward pass runs under bfloat16 autocast.
        compile: Whether to compile the forward passes.
        save_every: Steps between saved states.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: Path | None = None,
        *,
        device: str = "cpu",
        compile: bool = False,
        save_every: int = 200,
    ) -> None:
        self.recipe = recipe
        self.state = state
        self.device = torch.device(device)
        self.save_every = save_every
        self.student: Student = recipe.architecture.student(recipe.seed).to(self.device)
        self.heads = PatchHeads(self.student.width).to(self.device)
        self.alignment = WordAlignment().to(self.device)
        if compile:
            self.student.compile_parts()
        self.stage_index = 0
        self.step = 0
        self.log: list[dict[str, float | int | str]] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._tally = Tally()

    @property
    def stage(self) -> Stage:
        return self.recipe.stages[self.stage_index]

    @property
    def done(self) -> bool:
        return self.stage_index >= len(self.recipe.stages)

    def run(self, steps: int | None = None) -> Iterator[dict[str, float | int | str]]:
        """Train to the end, or for at most ``steps`` steps; yields every new line of the log."""
        left = -1 if steps is None else steps
        while not self.done and left != 0:
            if not self._optimizers:
                self._optimizers = self._build_optimizers()
            began = time.perf_counter()
            self._train_step()
            self._tally.seconds += time.perf_counter() - began
            self.step += 1
            left -= 1
            ended = self.step == self.stage.steps
            if self.step % LOG_EVERY == 0 or ended:
                yield self._log_line()
            if ended:
                self.stage_index, self.step, self._optimizers = self.stage_index + 1, 0, []
            if ended or self.step % self.save_every == 0:
                self.save()

    def _train_step(self) -> None:
        stage = self.stage
        scale = stage.rates.scale(self.step, stage.steps)
        scale_rates(self._optimizers, scale)
        key = (Stream.TRAINING, self.recipe.seed, self.stage_index, self.step)
        rng = np.random.default_rng(key)
        if isinstance(stage, VisionStage):
            loss = self._vision_loss(rng, stage)
        else:
            loss = self._language_loss(rng, stage)
        descend(loss, self._optimizers)
        self._tally.add("loss", loss.item(), 1)

    def _vision_loss(self, rng: np.random.Generator, stage: VisionStage) -> Tensor:
        batch = self._batch(rng, stage.batch, _PATCH_TEXT, (3, 6), (0, 3))
        with self._autocast():
            features = self.student.see(batch.pixels)
        loss: Tensor
        loss, score = self.heads(features, batch.labels)
        self._tally.update(score, stage.batch)
        return loss

    def _language_loss(self, rng: np.random.Generator, stage: LanguageStage) -> Tensor:
        phase = stage.phase(self.step)
        batch = self._batch(rng, stage.batch, stage.text, phase.shapes, phase.numbers)
        kept = choose_patches(rng, batch, phase.kept)
        with self._autocast():
            logits, image = self.student.answer(batch, kept)
        loss = answer_loss(logits, batch.target, batch.weight)
        score = exact_answers(logits, batch.target, batch.turn, batch.kind)
        self._tally.update(score, stage.batch)
        if phase.align:
            labels = {name: label.gather(1, kept) for name, label in batch.labels.items()}
            align = self.alignment(image, self.student.words, labels)
            self._tally.add("align", align.item(), 1)
            loss = loss + phase.align * align
        return loss

    def _batch(
        self,
        rng: np.random.Generator,
        count: int,
        text: TextSettings,
        shapes: tuple[int, int],
        numbers: tuple[int, int],
    ) -> Batch:
        batch = batches.make_batch(rng, count, text, shapes=shapes, numbers=numbers)
        moved: dict[str, Any] = {}
        for entry in fields(batch):
            value = getattr(batch, entry.name)
            if isinstance(value, dict):
                moved[entry.name] = {name: x.to(self.device) for name, x in value.items()}
            else:
                moved[entry.name] = value.to(self.device)
        return Batch(**moved)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.type == "cpu":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _build_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices inside layers and projector, AdamW for the rest."""
        rates = self.stage.rates
        vision = isinstance(self.stage, VisionStage)
        parts = self.student.vision_parts() if vision else self.student.language_parts()
        trained = [*parts, self.heads if vision else self.alignment]
        named = [pair for module in trained for pair in module.named_parameters()]
        inner = self.student.inner
        matrices = [w for name, w in named if w.dim() == 2 and name.startswith(inner)]
        matrix_ids = {id(weight) for weight in matrices}
        others = [weight for _, weight in named if id(weight) not in matrix_ids]
        return build_optimizers(matrices, others, muon=rates.muon, adam=rates.adam)

    def _log_line(self) -> dict[str, float | int | str]:
        line = {"stage": self.stage.name, "step": self.step, **self._tally.means()}
        self._tally = Tally()
        self.log.append(line)
        return line

    def save(self) -> None:
        """Write the state; the old one is replaced in one atomic step."""
        if self.state is None:
            return
        self.state.mkdir(parents=True, exist_ok=True)
        content = {
            "stages": [repr(stage) for stage in self.recipe.stages],
            "architecture": asdict(self.recipe.architecture),
            "seed": self.recipe.seed,
            "stage_index": self.stage_index,
            "step": self.step,
            "model": self.student.model.state_dict(),
            "heads": self.heads.state_dict(),
            "alignment": self.alignment.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "log": self.log,
        }
        partial = self.state / (_STATE + ".partial")
        torch.save(content, partial)
        partial.replace(self.state / _STATE)
        logger.info("saved stage %d step %d", self.stage_index, self.step)

    def resume(self) -> bool:
        """Continue from the saved state if there is one.

        Raises:
            ValueError: If the state belongs to another recipe. Stages may be appended to a recipe.
        """
        if self.state is None or not (self.state / _STATE).exists():
            return False
        content = torch.load(self.state / _STATE, map_location=self.device, weights_only=True)
        index = content["stage_index"]
        begun = index + (content["step"] > 0)
        planned = [repr(stage) for stage in self.recipe.stages]
        same = planned[:begun] == content["stages"][:begun]
        if (
            not same
            or content["seed"] != self.recipe.seed
            or content["architecture"] != asdict(self.recipe.architecture)
        ):
            raise ValueError(
                f"{self.state} holds the state of another recipe; choose another folder"
            )
        self.student.model.load_state_dict(content["model"])
        self.heads.load_state_dict(content["heads"])
        self.alignment.load_state_dict(content["alignment"])
        self.stage_index, self.step, self.log = index, content["step"], content["log"]
        self._optimizers = []
        if content["optimizers"]:
            self._optimizers = self._build_optimizers()
            for optimizer, saved in zip(self._optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        return True


def choose_patches(rng: np.random.Generator, batch: Batch, kept: int) -> Tensor:
    """Patches in use ``(B, kept)``, sorted: all that show an object, then random background."""
    count = len(batch.pixels)
    device = batch.pixels.device
    if kept == SQUARE.patches:
        return torch.arange(kept, device=device).expand(count, -1)
    noise = torch.from_numpy(rng.random((count, SQUARE.patches), np.float32)).to(device)
    shown = (batch.labels["kind"] > 0).float()
    return (shown + 0.999 * noise).topk(kept, 1).indices.sort(1).values
