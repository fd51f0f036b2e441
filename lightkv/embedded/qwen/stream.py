"""Where the batches come from: worker processes that draw them ahead of the training.

Batch ``i`` is drawn from (seed, ``i``) and the share of the budget at that time. With a budget of
steps that share is ``i / steps``, and the whole run is determined by the seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lightkv.embedded.questions import Stream
from lightkv.embedded.qwen.batches import make_batch, patch_batch
from lightkv.embedded.qwen.containers import Batch, View
from lightkv.embedded.qwen.recipe import Recipe

_ENDLESS: Final = 1_000_000_000
_AHEAD: Final = 3


@dataclass(frozen=True)
class Budget:
    """How long a whole run is: exactly one of minutes and steps.

    Attributes:
        minutes: Wall-clock time.
        steps: Optimizer steps.
        begin: Share of the whole run that is over, and not run here.
    """

    minutes: float | None = None
    steps: int | None = None
    begin: float = 0.0

    def progress(self, step: int, seconds: float) -> float:
        """Share of the whole run that is over after some steps and seconds from ``begin`` on."""
        over = step / self.steps if self.steps else seconds / (60 * (self.minutes or 1.0))
        return self.begin + over


class Draws(Dataset[View | Batch]):
    """Batch ``i`` of a run; a `View` alone while the tower is taught."""

    def __init__(self, recipe: Recipe, budget: Budget, first: int) -> None:
        self.recipe = recipe
        self.budget = budget
        self.first = first
        # Workers see the clock of the machine, so only its start is handed on.
        self.started = time.time()

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> View | Batch:
        progress = self.budget.progress(index - self.first, time.time() - self.started)
        rng = np.random.default_rng((Stream.NATIVE, self.recipe.seed, index))
        if progress < self.recipe.vision_share:
            return patch_batch(rng, self.recipe.vision)
        return make_batch(rng, self.recipe.phase(progress).difficulty)


def batches(draws: Draws, workers: int, device: torch.device) -> Iterator[View | Batch]:
    """The batches from ``draws.first`` on, in order.

    Args:
        draws: What to draw.
        workers: Processes that draw ahead; 0 draws in this one.
        device: For a GPU, batches come in pinned memory.
    """
    loader: Any = DataLoader(
        draws,
        batch_size=None,
        sampler=range(draws.first, _ENDLESS),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet,
    )
    return iter(loader)


def _quiet(_: int) -> None:
    """One thread for each worker."""
    torch.set_num_threads(1)
