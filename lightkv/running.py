"""The run of one call, from a loaded model, a plan and a processed batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightkv.answers import Generation
from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import QuestionWords
from lightkv.engine.drivers import Driver
from lightkv.engine.plan import Plan
from lightkv.engine.record import untouched_records
from lightkv.engine.renumbering import Renumbering
from lightkv.engine.run import Run
from lightkv.errors import UnsupportedError
from lightkv.inputs import row_identities
from lightkv.model import LoadedModel
from lightkv.pictures import saved_by


def prepared_run(
    model: LoadedModel, plan: Plan, layout: TokenLayout, batch: Mapping[str, Tensor], *, seed: int
) -> Run:
    """A run that has not read its prompts yet, with all that its methods may ask for.

    Args:
        model: The model.
        plan: Who takes part.
        layout: Of the prompts, (B, N).
        batch: The processed prompts.
        seed: For methods that draw at random.

    Raises:
        UnsupportedError: If a method asks for what this model does not have.
    """
    family = model.family

    @cache
    def identities() -> tuple[int, ...]:
        pixels = family.row_pixels(model.model.config, batch, layout)
        return row_identities(batch["input_ids"], layout.real, pixels)

    rotary = None
    if plan.renumbers:
        with torch.no_grad():
            rotary = family.text_rotary(model.model, layout.length)
    run = Run(
        plan,
        layout,
        seed=seed,
        identities=identities,
        quirks=model.quirks,
        text_rotary=rotary,
        renumbering=_renumbering(model, plan) if plan.renumbers_later else None,
        final_norm=family.final_norm(model.model),
        saved=saved_by(batch),
    )
    if plan.needs_vision:
        words = None
        if plan.text_tower is not None:
            words = QuestionWords(_questions(model, batch["input_ids"], layout), plan.text_tower)
        run.vision = family.vision_features(model.model, batch, layout, plan.needs_vision, words)
    return run


def _questions(model: LoadedModel, ids: Tensor, layout: TokenLayout) -> tuple[str, ...]:
    """The text after each row's first image, for a text tower."""
    if model.processor is None:
        raise UnsupportedError(
            f"a text tower reads words, and {model.name} came without a processor to say which "
            "they are"
        )
    return tuple(
        model.processor.decode(row[said], skip_special_tokens=True).strip()
        for row, said in zip(ids, layout.question.to(ids.device), strict=True)
    )


def _renumbering(model: LoadedModel, plan: Plan) -> Renumbering:
    if plan.renumbers_cache and not model.family.one_axis:
        raise UnsupportedError(
            f"{model.name} numbers vision tokens on several axes, so its cache can't be "
            "re-indexed; use positions='keep'"
        )

    def rotary(positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return model.family.rotary_at(model.model, positions, layer)

    return Renumbering(rotary, places=plan.renumbers_cache)


def generated(
    model: LoadedModel,
    run: Run,
    batch: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    *,
    driver: Driver,
    room: int | None,
) -> Any:
    """What ``model.generate`` gives under a run.

    Args:
        model: The model.
        run: Has not read its prompts yet.
        batch: The processed prompts.
        settings: Of ``generate``.
        driver: What carries the run.
        room: Most tokens of an answer whose steps are compiled; None for steps as the model's own.
    """
    inputs = model.model_inputs(batch)
    if model.quirks.has_windows:
        inputs["past_key_values"] = full_cache()
    with torch.no_grad():
        if room is not None:
            return model.graph.generate_compiled(run, inputs, room, **settings)
        return model.graph.generate(run, inputs, driver=driver, **settings)


def plain_generation(
    model: LoadedModel,
    layout: TokenLayout,
    batch: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> Generation:
    """What ``model.generate`` gives by itself, with records of runs that compressed nothing."""
    with torch.no_grad():
        output = model.model.generate(**model.model_inputs(batch), **settings)
    return Generation(output, untouched_records(model.facts, layout, _entry_bytes(model)))


def full_cache() -> Any:
    """A cache that keeps every entry, also those that a sliding window no longer reaches.

    The stock cache drops such entries by itself and could not be told from an evicted one; outputs
    are the same up to rounding.
    """
    from transformers import DynamicCache

    return DynamicCache()


def _entry_bytes(model: LoadedModel) -> int:
    text = model.model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(width) * model.dtype.itemsize
