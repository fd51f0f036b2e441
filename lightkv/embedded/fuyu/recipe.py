"""What the training of the encoder-free model runs: the square model's stages, seeing for longer.

Its first stage teaches the first decoder layers, and nothing is frozen after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lightkv.embedded.fuyu.architecture import Architecture
from lightkv.embedded.recipe import QUICK as SQUARE_QUICK
from lightkv.embedded.recipe import SHIPPED as SQUARE_SHIPPED
from lightkv.embedded.recipe import Recipe

_SEEING, *_READING = SQUARE_SHIPPED.stages

SHIPPED: Final = Recipe(
    stages=(replace(_SEEING, steps=1500), *_READING), architecture=Architecture()
)
"""The recipe of the shipped checkpoint."""

QUICK: Final = replace(
    SQUARE_QUICK,
    architecture=Architecture(hidden=32, layers=3, heads=2, intermediate=64, seeing=1),
)
"""A few steps of a tiny model, to try the command."""
