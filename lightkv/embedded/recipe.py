"""What the training command runs: the stages, in steps, with every constant.

A schedule counts steps, never seconds, so that one seed gives one sequence of batches on any
machine and an interrupted run continues exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from lightkv.embedded.architecture import Architecture
from lightkv.embedded.batches import TextSettings

if TYPE_CHECKING:
    from lightkv.embedded.student import Student


@dataclass(frozen=True)
class Rates:
    """Learning rates and their course over a stage.

    Attributes:
        muon: Rate of Muon, for the matrices.
        adam: Rate of AdamW, for everything else.
        warmup: Steps of linear warm-up.
        constant: Share of the stage after which the rate falls linearly.
        final: Factor on the rates at the end of the stage.
    """

    muon: float
    adam: float
    warmup: int = 100
    constant: float = 0.45
    final: float = 0.0

    def scale(self, step: int, steps: int) -> float:
        """Factor on both rates at ``step`` of ``steps``."""
        rise = min(1.0, (step + 1) / self.warmup)
        if step < self.constant * steps:
            return rise
        fallen = (step / steps - self.constant) / (1 - self.constant)
        return rise * (1 - (1 - self.final) * fallen)


@dataclass(frozen=True)
class VisionStage:
    """Patch classification that teaches the vision tower; afterwards the tower is frozen."""

    name: str
    steps: int
    batch: int
    rates: Rates


@dataclass(frozen=True)
class Phase:
    """Part of a language stage.

    Attributes:
        until: Share of the stage at which the phase ends.
        shapes: Inclusive range of shapes per picture.
        numbers: Inclusive range of numbers per picture.
        kept: Image tokens in use: all object patches, filled with random background; 256 is all.
        align: Weight of the loss that ties image tokens to the words for what they show.
    """

    until: float
    shapes: tuple[int, int]
    numbers: tuple[int, int]
    kept: int
    align: float


@dataclass(frozen=True)
class LanguageStage:
    """Projector and decoder learn to answer; the vision tower is frozen."""

    name: str
    steps: int
    batch: int
    rates: Rates
    text: TextSettings
    phases: tuple[Phase, ...]

    def phase(self, step: int) -> Phase:
        """The phase that ``step`` belongs to."""
        for phase in self.phases:
            if step < phase.until * self.steps:
                return phase
        return self.phases[-1]


Stage = VisionStage | LanguageStage


class Sizes(Protocol):
    """Sizes of a model for square pictures, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def student(self, seed: int) -> Student:
        """A model of these sizes with random weights, to be trained."""


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    stages: tuple[Stage, ...]
    architecture: Sizes = field(default_factory=Architecture)
    seed: int = 0


MIX: Final = {
    "color": 0.12,
    "shape_at": 0.06,
    "count": 0.16,
    "exist": 0.14,
    "where": 0.16,
    "read": 0.18,
    "list": 0.06,
    "number_where": 0.03,
    "number_at": 0.03,
    "color_at": 0.02,
    "digit": 0.05,
    "absent": 0.04,
    "unknown": 0.03,
}
"""Relative frequency of the questions in training; captions are drawn per picture."""

_VISION: Final = VisionStage("vision", steps=700, batch=32, rates=Rates(0.02, 3e-3, constant=0.3))
_EARLY_MIX: Final = TextSettings(length=112, weights=MIX, caption=0.3)
_LATE_MIX: Final = TextSettings(
    length=112,
    weights={
        "color": 0.12,
        "shape_at": 0.04,
        "count": 0.22,
        "exist": 0.12,
        "where": 0.12,
        "read": 0.12,
        "list": 0.18,
        "number_where": 0.02,
        "number_at": 0.05,
        "color_at": 0.01,
        "digit": 0.02,
        "absent": 0.04,
        "unknown": 0.02,
    },
    caption=0.45,
    long_weight=1.0,
)

_LAST_MIX: Final = TextSettings(
    length=112,
    weights={
        "color": 0.10,
        "shape_at": 0.02,
        "count": 0.28,
        "exist": 0.09,
        "where": 0.06,
        "read": 0.07,
        "list": 0.30,
        "number_at": 0.02,
        "absent": 0.04,
        "unknown": 0.02,
    },
    caption=0.5,
    conversation=0.25,
    long_weight=1.0,
)

SHIPPED: Final = Recipe(
    stages=(
        _VISION,
        LanguageStage(
            "language",
            steps=1600,
            batch=16,
            rates=Rates(0.012, 2e-3, warmup=150, constant=1.0),
            text=_EARLY_MIX,
            phases=(
                Phase(0.30, shapes=(1, 3), numbers=(1, 2), kept=64, align=0.3),
                Phase(0.75, shapes=(2, 4), numbers=(1, 3), kept=80, align=0.3),
                Phase(1.00, shapes=(3, 6), numbers=(0, 3), kept=112, align=0.15),
            ),
        ),
        LanguageStage(
            "decay",
            steps=1600,
            batch=16,
            rates=Rates(0.012, 2e-3, warmup=50, constant=0.0625, final=4 / 19),
            text=_LATE_MIX,
            phases=(Phase(1.00, shapes=(3, 6), numbers=(0, 3), kept=112, align=0.15),),
        ),
        LanguageStage(
            "finish",
            steps=900,
            batch=16,
            rates=Rates(0.005, 8e-4, warmup=20, constant=0.0),
            text=_LAST_MIX,
            phases=(
                Phase(0.80, shapes=(3, 6), numbers=(0, 3), kept=112, align=0.1),
                Phase(1.00, shapes=(3, 6), numbers=(0, 3), kept=256, align=0.03),
            ),
        ),
    ),
)
"""The recipe of the shipped checkpoint."""

QUICK: Final = Recipe(
    stages=(
        VisionStage("vision", steps=4, batch=2, rates=Rates(0.02, 3e-3, warmup=2)),
        LanguageStage(
            "language",
            steps=4,
            batch=2,
            rates=Rates(0.012, 2e-3, warmup=2),
            text=TextSettings(length=64, weights=MIX, caption=0.3),
            phases=(
                Phase(0.5, shapes=(1, 3), numbers=(1, 2), kept=64, align=0.3),
                Phase(1.0, shapes=(3, 6), numbers=(0, 3), kept=256, align=0.0),
            ),
        ),
    ),
    architecture=Architecture(
        hidden=32,
        layers=2,
        heads=2,
        intermediate=64,
        vision_hidden=32,
        vision_layers=1,
        vision_heads=2,
        vision_intermediate=64,
    ),
)
"""A few steps of a tiny model, to try the command."""
