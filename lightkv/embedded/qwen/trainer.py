"""The training run of the native-resolution model, by a budget of minutes or steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightkv.embedded.objectives import PatchHeads, WordAlignment, answer_loss, exact_answers
from lightkv.embedded.optimizer import build_optimizers, descend, scale_rates
from lightkv.embedded.questions import Stream
from lightkv.embedded.qwen.architecture import FRAMES, MERGE, build_model
from lightkv.embedded.qwen.batches import NAMES, make_batch
from lightkv.embedded.qwen.containers import Batch, View
from lightkv.embedded.qwen.lean import LeanModel
from lightkv.embedded.qwen.prompts import attention_inputs
from lightkv.embedded.qwen.recipe import Rates, Recipe
from lightkv.embedded.qwen.stream import Budget, Draws, batches
from lightkv.embedded.tally import Tally

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

LogLine = dict[str, float | int | str]
STAGES: Final = ("vision", "language")
LOG_EVERY: Final = 50
SCORE_EVERY: Final = 10
"""Answers are scored at every such step only, because that waits for the GPU."""
ATTENTION: Final = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
"""Attention kernels that serve any size at once.

cuDNN's, which torch prefers on recent GPUs, builds a plan for every new size, and here nearly every
batch has a size of its own.
"""


class Trainer:
    """A model in training together with everything needed to continue it.

    ``setting`` says, for the card, with what options and on what machine it was last trained.

    Args:
        recipe: What to do.
        device: ``cpu`` or ``cuda``.
        compile: Whether to compile the layers of tower and decoder.
        bfloat16: Whether forward passes run under bfloat16 autocast.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        device: str = "cpu",
        compile: bool = False,
        bfloat16: bool = False,
    ) -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self.bfloat16 = bfloat16
        model: Any = build_model(recipe.architecture, recipe.seed)
        self.model: Qwen3VLForConditionalGeneration = model.to(self.device)
        self.lean = LeanModel(self.model)
        if compile:
            self.lean.compile_layers()
        width = MERGE * MERGE * recipe.architecture.vision_hidden
        self.heads = PatchHeads(width).to(self.device)
        self.alignment = WordAlignment().to(self.device)
        self.step = 0
        self.progress = 0.0
        self.minutes = 0.0
        self.log: list[LogLine] = []
        self.setting: dict[str, Any] = {}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._stage = ""
        self._since = 0
        self._logged = 0
        self._tally = Tally()

    def run(self, budget: Budget, workers: int = 0) -> Iterator[LogLine]:
        """Train to the end of the budget; yields every new line of the log.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        draws = Draws(self.recipe, budget, self.step)
        source = batches(draws, workers, self.device)
        first, before, began, waited = self.step, self.minutes, draws.started, 0.0
        self._tally, self._logged = Tally(), self.step
        while True:
            self.progress = budget.progress(self.step - first, time.time() - began)
            if self.progress >= 1:
                break
            asked = time.perf_counter()
            batch = next(source)
            spent = time.perf_counter() - asked
            if self._logged < self.step and self._stage != _stage_of(batch):
                yield self._log_line(waited)
                waited = 0.0
            waited += spent
            self.train_step(batch.to(self.device))
            self.step += 1
            self.minutes = before + (time.time() - began) / 60
            if self.step - self._logged == LOG_EVERY:
                yield self._log_line(waited)
                waited = 0.0
        if self._logged < self.step:
            yield self._log_line(waited)

    def train_step(self, batch: View | Batch) -> None:
        """One optimizer step of the stage that the batch is of."""
        stage = _stage_of(batch)
        if stage != self._stage:
            self._begin(stage)
        rates = self._rates(stage)
        scale_rates(self._optimizers, rates.scale(self._share(stage), self._since))
        scored = self.step % SCORE_EVERY == 0
        if isinstance(batch, View):
            loss = self._vision_loss(batch)
        else:
            loss = self._language_loss(batch, scored)
        descend(loss, self._optimizers)
        self._since += 1
        self._tally.add("loss", loss.detach(), 1)

    def _rates(self, stage: str) -> Rates:
        return self.recipe.vision_rates if stage == "vision" else self.recipe.language_rates

    def _share(self, stage: str) -> float:
        """Share of the stage that is over."""
        if stage == "vision":
            return min(1.0, self.progress / self.recipe.vision_share)
        return min(1.0, self.recipe.language_share(self.progress))

    def _vision_loss(self, view: View) -> Tensor:
        with self._forward():
            *_, features = self.features(view)
        # (B, 1, N, 4, V) to (B, N, 4 V)
        labels = {name: label.flatten(0, 1) for name, label in view.labels.items()}
        loss: Tensor
        loss, score = self.heads(features.flatten(0, 1).flatten(2), labels)
        self._tally.update(score, len(view.pixels))
        return loss

    def _language_loss(self, batch: Batch, scored: bool) -> Tensor:
        phase = self.recipe.phase(self.progress)
        logits, images = self.answer(batch)
        loss = answer_loss(logits, batch.target, batch.weight)
        self._tally.images += len(batch)
        if scored:
            self._tally.update(
                exact_answers(logits, batch.target, batch.turn, batch.kind, NAMES), 0
            )
        if phase.align and batch.views:
            pairs = zip(batch.views, images, strict=True)
            align = torch.stack([self._alignment(view, image) for view, image in pairs])
            self._tally.add("align", align.mean().detach(), 1)
            loss = loss + phase.align * align.mean()
        return loss

    def _alignment(self, view: View, image: Tensor) -> Tensor:
        labels = {  # of the patches in use, (B S, N)
            name: label.gather(2, view.kept).flatten(0, 1) for name, label in view.labels.items()
        }
        loss: Tensor = self.alignment(image.flatten(0, 1), self.lean.decoder.embed_tokens, labels)
        return loss

    def features(self, view: View) -> list[Tensor]:
        """Features of the tower, each ``(B, S, N, 4, V)``."""
        count, steps = view.pixels.shape[:2]
        # Each step stands for equal frames: (B * S, 2, H, W, 3).
        frames = view.pixels.flatten(0, 1)[:, None].expand(-1, FRAMES, -1, -1, -1)
        return [x.view(count, steps, *x.shape[1:]) for x in self.lean.vision(frames, view.canvas)]

    def answer(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Logits of the text ``(B, T, vocabulary)``, and each view's vision tokens
        ``(B, S, K, D)``."""
        with self._forward():
            seen = [self._seen(view) for view in batch.views]
            parts = [*batch.words, batch.text]
            embeddings = self.lean.decoder.embed_tokens(torch.cat(parts, 1))
            *words, text = torch.split(embeddings, [part.shape[1] for part in parts], 1)
            before = _joined(words, [layers[-1] for layers in seen])
            blank = [torch.zeros_like(part) for part in words]
            deep = range(len(seen[0]) - 1 if seen else 0)
            added = [_joined(blank, [layers[index] for layers in seen]) for index in deep]
            mask, position = attention_inputs(batch)
            logits = self.lean(before, added, text, mask, position)
        return logits, [layers[-1] for layers in seen]

    def _seen(self, view: View) -> list[Tensor]:
        """What deepstack adds, and last the vision tokens, each ``(B, S, K, D)``."""
        with torch.no_grad():
            features = self.features(view)
        index = view.kept[..., None, None]
        kept = [x.gather(2, index.expand(-1, -1, -1, *x.shape[3:])) for x in features]
        return self.lean.project(kept)

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """The kernels and the precision of a forward pass; its backward pass follows them."""
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)
        with sdpa_kernel(list(ATTENTION)), low:
            yield

    def _begin(self, stage: str) -> None:
        """Fresh optimizers: Muon for the matrices inside layers and mergers, AdamW for the rest."""
        self._stage, self._since, self._tally = stage, 0, Tally()
        trained: tuple[nn.Module, ...] = (self.lean.tower, self.heads)
        if stage == "language":
            trained = (self.lean.projector, self.lean.decoder, self.alignment)
        named = [pair for module in trained for pair in module.named_parameters()]
        inner = (".qkv.", ".proj.", "linear_fc", "_proj.")
        matrices = [w for name, w in named if w.dim() == 2 and any(part in name for part in inner)]
        held = {id(weight) for weight in matrices}
        others = [weight for _, weight in named if id(weight) not in held]
        rates = self._rates(stage)
        self._optimizers = build_optimizers(matrices, others, muon=rates.muon, adam=rates.adam)

    def _log_line(self, waited: float) -> LogLine:
        means = self._tally.means()
        self._tally = Tally()
        seconds = 60 * self.minutes - float(self.log[-1]["at"] if self.log else 0.0)
        line: LogLine = {
            "stage": self._stage,
            "step": self.step,
            "steps": self.step - self._logged,
            "progress": round(self.progress, 4),
            "at": round(60 * self.minutes, 2),
            **means,
            "seconds": round(seconds, 2),
            "waited": round(waited, 2),
        }
        if not np.isfinite(float(line["loss"])):
            raise FloatingPointError(f"the loss is {line['loss']} near step {self.step}")
        self.log.append(line)
        self._logged = self.step
        return line

    @torch.no_grad()
    def held_out(self, count: int) -> dict[str, dict[str, int]]:
        """Exact answers to questions of streams that training never draws from.

        Args:
            count: Batches of each sort, at the last phase's difficulty.

        Returns:
            ``right`` and ``all`` for every kind, teacher forced, which for a whole answer is the
            same as greedy decoding.
        """
        difficulty = self.recipe.phases[-1].difficulty
        total: dict[str, dict[str, int]] = {}
        for index in range(count * len(difficulty.sorts)):
            sort = list(difficulty.sorts)[index % len(difficulty.sorts)]
            rng = np.random.default_rng((Stream.NATIVE_HELD_OUT, self.recipe.seed, index))
            only = {sort: 1.0}
            batch = make_batch(rng, replace(difficulty, sorts=only)).to(self.device)
            logits, _ = self.answer(batch)
            score = exact_answers(logits, batch.target, batch.turn, batch.kind, NAMES)
            for name, (right, asked) in score.items():
                entry = total.setdefault(name, {"right": 0, "all": 0})
                entry["right"] += right
                entry["all"] += asked
        return total


def _stage_of(batch: View | Batch) -> str:
    return STAGES[isinstance(batch, Batch)]


def _joined(words: list[Tensor], grids: list[Tensor]) -> Tensor:
    """Words and grids in turn: ``(B, P, D)``; grids are ``(B, S, K, D)``, S of them in a row."""
    flat = [grid[:, step] for grid in grids for step in range(grid.shape[1])]
    parts = [words[0]]
    for grid, word in zip(flat, words[1:], strict=True):
        parts += [grid.to(words[0].dtype), word]
    return torch.cat(parts, 1)
