"""The models for square pictures: what each is trained by and described with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightkv.embedded.card import CardTexts
from lightkv.embedded.recipe import Recipe

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True)
class Plan:
    """Everything that the training command needs of a model for square pictures.

    Attributes:
        shipped: Recipe of the shipped checkpoint.
        quick: A few steps of a tiny model.
        processor: Builds the processor.
        texts: Of the card.
    """

    shipped: Recipe
    quick: Recipe
    processor: Callable[[], ProcessorMixin | Any]
    texts: CardTexts


def square() -> Plan:
    """The embedded LLaVA."""
    from lightkv.embedded import card, processing, recipe

    return Plan(recipe.SHIPPED, recipe.QUICK, processing.build_processor, card.TEXTS)


def fuyu() -> Plan:
    """The encoder-free model."""
    from lightkv.embedded.fuyu import card, processing, recipe

    return Plan(recipe.SHIPPED, recipe.QUICK, processing.build_processor, card.TEXTS)
