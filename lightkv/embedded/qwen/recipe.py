"""What the training runs, as shares of its budget of minutes or steps.

The same recipe serves any budget: a curriculum counted in steps would be cut off on a slow machine
and end early on a fast one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from lightkv.embedded.batches import TextSettings
from lightkv.embedded.qwen.architecture import Architecture
from lightkv.embedded.qwen.batches import Difficulty
from lightkv.embedded.qwen.containers import Sort
from lightkv.embedded.recipe import MIX


@dataclass(frozen=True)
class Rates:
    """Learning rates and their course over a stage.

    Attributes:
        muon: Rate of Muon, for the matrices.
        adam: Rate of AdamW, for everything else.
        warmup: Steps of linear warm-up, also after a run is continued.
        constant: Share of the stage after which the rates fall linearly to zero.
    """

    muon: float
    adam: float
    warmup: int
    constant: float

    def scale(self, share: float, steps: int) -> float:
        """Factor on both rates at a share of the stage, ``steps`` after the optimizer began."""
        rise = min(1.0, (steps + 1) / self.warmup)
        return rise * min(1.0, max(0.0, 1 - share) / (1 - self.constant))


@dataclass(frozen=True)
class Phase:
    """Part of the language stage.

    Attributes:
        until: Share of the stage at which the phase ends.
        difficulty: What it draws.
        align: Weight of the loss that ties vision tokens to the words for what they show.
    """

    until: float
    difficulty: Difficulty
    align: float


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        vision_share: Share of the budget for patch classification, which teaches the tower; then
            the tower is frozen.
        vision: What that draws; of its text and sorts nothing is used.
        vision_rates: Learning rates of that stage.
        phases: Parts of the language stage, which trains mergers and decoder.
        language_rates: Learning rates of that stage.
        architecture: Sizes of the model.
        seed: Of weights and data.
    """

    vision_share: float
    vision: Difficulty
    vision_rates: Rates
    phases: tuple[Phase, ...]
    language_rates: Rates
    architecture: Architecture = field(default_factory=Architecture)
    seed: int = 0

    def language_share(self, progress: float) -> float:
        """Share of the language stage that is over at a share of the budget, from 0."""
        return max(0.0, (progress - self.vision_share) / (1 - self.vision_share))

    def phase(self, progress: float) -> Phase:
        """The phase of the language stage at a share of the budget."""
        share = self.language_share(progress)
        return next((phase for phase in self.phases if share < phase.until), self.phases[-1])


def with_batches(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with ``factor`` times the tokens in every batch."""

    def larger(difficulty: Difficulty) -> Difficulty:
        return replace(difficulty, tokens=round(factor * difficulty.tokens))

    phases = tuple(replace(p, difficulty=larger(p.difficulty)) for p in recipe.phases)
    return replace(recipe, vision=larger(recipe.vision), phases=phases)


_LATE_MIX: Final = {
    "color": 0.12,
    "shape_at": 0.05,
    "count": 0.20,
    "exist": 0.12,
    "where": 0.12,
    "read": 0.14,
    "list": 0.14,
    "number_where": 0.02,
    "number_at": 0.04,
    "color_at": 0.01,
    "digit": 0.02,
    "absent": 0.02,
}
_EARLY_TEXT: Final = TextSettings(length=112, weights=MIX, caption=0.25)
_LATE_TEXT: Final = TextSettings(length=128, weights=_LATE_MIX, caption=0.4, long_weight=1.0)
_EARLY_SORTS: Final[dict[Sort, float]] = {
    "picture": 0.40,
    "legend": 0.14,
    "video": 0.12,
    "pair": 0.14,
    "text": 0.20,
}
_LATE_SORTS: Final[dict[Sort, float]] = {
    "picture": 0.44,
    "legend": 0.20,
    "video": 0.16,
    "pair": 0.16,
    "text": 0.04,
}


def _phases(tokens: int, side: int) -> tuple[Phase, ...]:
    """The curriculum: few objects and few vision tokens first."""
    start = Difficulty(
        (1, 3), (0, 2), min(side, 14), 24, 4, 3, 0.4, _EARLY_SORTS, _EARLY_TEXT, tokens
    )
    middle = Difficulty(
        (2, 4), (0, 3), min(side, 18), 24, 10, 4, 0.3, _EARLY_SORTS, _EARLY_TEXT, tokens
    )
    full = Difficulty((3, 6), (0, 3), side, 40, 35, 5, 0.12, _LATE_SORTS, _LATE_TEXT, tokens)
    every = Difficulty((3, 6), (0, 3), side, None, 35, 5, 0.12, _LATE_SORTS, _LATE_TEXT, tokens)
    return (
        Phase(0.20, start, align=0.3),
        Phase(0.42, middle, align=0.3),
        Phase(0.86, full, align=0.1),
        Phase(1.00, every, align=0.03),
    )


def _vision(tokens: int, side: int) -> Difficulty:
    return Difficulty((3, 6), (0, 3), side, None, 1, 1, 0.0, {}, _EARLY_TEXT, tokens)


SHIPPED: Final = Recipe(
    vision_share=0.12,
    vision=_vision(24_000, 24),
    vision_rates=Rates(0.02, 3e-3, warmup=40, constant=0.3),
    phases=_phases(48_000, 24),
    language_rates=Rates(0.014, 2e-3, warmup=120, constant=0.4),
)
"""The recipe of the shipped checkpoint."""

QUICK: Final = Recipe(
    vision_share=0.5,
    vision=_vision(300, 10),
    vision_rates=Rates(0.02, 3e-3, warmup=2, constant=0.3),
    phases=_phases(600, 10),
    language_rates=Rates(0.012, 2e-3, warmup=2, constant=0.4),
    architecture=Architecture(
        hidden=32,
        layers=3,
        heads=4,
        key_heads=2,
        head_size=8,
        intermediate=64,
        sections=(2, 1, 1),
        vision_hidden=32,
        vision_layers=2,
        vision_heads=2,
        vision_intermediate=64,
        positions=8,
        deepstack=(0,),
    ),
)
"""A few steps of a tiny model, to try the command."""


def planned(seed: int, batch_factor: float, quick: bool) -> Recipe:
    """The recipe that the training command runs."""
    return replace(with_batches(QUICK if quick else SHIPPED, batch_factor), seed=seed)
