"""Tiny models of every family with random weights, and prompts for them: one file per family.

A tiny model has four decoder layers and a few thousand weights; everything that its family does
differently (tiles, deepstack, windows, videos, separators) is in it or in its prompts. A module of
this package adds its models to :data:`ZOO` by listing them in ``MODELS``.
"""

from __future__ import annotations

from lightkv.check.tiny import (
    fuyu,
    gemma3,
    idefics3,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    qwen_vl,
)
from lightkv.check.tiny.model import TinyModel

ZOO: dict[str, TinyModel] = {
    model.name: model
    for family in (
        llava,
        llava_next,
        llava_onevision,
        qwen_vl,
        internvl,
        gemma3,
        idefics3,
        fuyu,
    )
    for model in family.MODELS
}
