"""What is refused of one call, once its prompts and its plan are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.engine.drivers import Driver
from lightkv.engine.plan import Plan
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.families import Family
from lightkv.inputs import has_holes
from lightkv.settings import Settings

_UNCOMPILED: Final = {
    "output_attentions": "compiled steps give back logits alone",
    "output_hidden_states": "compiled steps give back logits alone",
    "compile_config": "it is for steps that transformers compiles by itself",
    "disable_compile": "it says the opposite",
}
"""Settings of ``generate`` without effect, or against it, where steps are compiled; and why."""


def check_length(family: Family, config: Any, layout: TokenLayout, new_tokens: int) -> None:
    """Refuse prompts and answers that are longer than what a model was trained to read.

    Args:
        family: The model's family.
        config: Its config.
        layout: Of the prompts.
        new_tokens: Most tokens of an answer.

    Raises:
        InputError: If a prompt alone is too long.
        InvalidValueError: If an answer can't be that long, or has no place at all.
    """
    trained = family.trained_length(config)
    taken = family.positions_taken(layout)
    longest = int(taken.max())
    if trained is not None and longest > trained:
        raise InputError(
            f"the prompt of row {int(taken.argmax())} takes {longest:,} positions, the model was "
            f"trained to {trained:,}: ask a shorter question or use smaller pictures"
        )
    if trained is not None and longest + new_tokens > trained:
        raise InvalidValueError(
            "max_new_tokens",
            new_tokens,
            f"at most {trained - longest}: the model was trained to {trained:,} positions, the "
            f"prompt takes {longest:,}",
        )
    if new_tokens < 1:
        raise InvalidValueError(
            "max_length", layout.length + new_tokens, f"above the prompt's {layout.length}"
        )


def refuse(
    plan: Plan,
    settings: Settings,
    layout: TokenLayout,
    mask: Tensor,
    *,
    kernel: str,
    windows: Sequence[int | None],
) -> None:
    """Refuse a run that would be silently wrong.

    Args:
        plan: Who takes part.
        settings: Of ``generate``.
        layout: Of the prompts.
        mask: (B, N), their attention mask.
        kernel: The model's attention kernel.
        windows: Per layer the tokens that a query looks back on; None for all.

    Raises:
        UnsupportedError: See above; the message says what to change.
    """
    settings.refuse()
    if kernel not in ("sdpa", "eager"):
        raise UnsupportedError(
            f"attention kernel {kernel!r}; load the model with attention='sdpa' or 'eager' to "
            "compress it"
        )
    if plan.changes:
        _refuse_beams(plan, settings, layout.batch_size)
        _refuse_windows(plan, settings, layout.length, windows)
        _refuse_holes(plan, mask, windows)


def _refuse_beams(plan: Plan, settings: Settings, prompts: int) -> None:
    if settings.beams > 1 and (prompts > 1 or not plan.decode_policy.static):
        raise UnsupportedError(
            f"num_beams={settings.beams} with {prompts} prompts: beams are reordered under the "
            "cache; use one prompt at a time and a policy that does not evict while decoding"
        )


def _refuse_windows(
    plan: Plan, settings: Settings, length: int, windows: Sequence[int | None]
) -> None:
    if not (plan.renumbers or plan.renumbers_later):
        return
    longest = length + settings.new_tokens(length)
    narrow = [window for window in windows if window and window < longest]
    if narrow:
        raise UnsupportedError(
            f"renumbered positions in a model with layers that look back on {min(narrow)} tokens, "
            f"for {longest} tokens of prompt and answer: the windows would be those of the old "
            "positions; use positions='keep'"
        )


def _refuse_holes(plan: Plan, mask: Tensor, windows: Sequence[int | None]) -> None:
    counted = any(windows) or plan.renumbers or plan.renumbers_later
    if counted and has_holes(mask):
        raise UnsupportedError(
            "attention_mask hides tokens in the middle of a prompt, where windows and renumbered "
            "positions would be counted wrong; leave these tokens out of the prompt"
        )


def refuse_compiled(
    plan: Plan,
    settings: Settings,
    model: Any,
    windows: Sequence[int | None],
    *,
    driver: Driver,
    keep_run: bool,
) -> None:
    """Refuse what compiled decode steps can't do, before the prompt is read.

    Args:
        plan: Who takes part.
        settings: Of ``generate``.
        model: The HuggingFace model.
        windows: Per layer the tokens that a query looks back on; None for all.
        driver: What was asked to carry the run.
        keep_run: True if the run is to be gone on from.

    Raises:
        UnsupportedError: See above; the message says what to change.
    """
    reasons = [
        *_acting_while_decoding(plan),
        *_beyond_logits(settings),
        *_beyond_one_program(model, windows),
    ]
    if driver == "nnsight":
        reasons.append("traces of driver='nnsight' can't be compiled")
    if keep_run:
        reasons.append("a run that is kept goes on from a cache that grows")
    if reasons:
        raise UnsupportedError(f"decode='compiled': {reasons[0]}; leave decode out")


def _acting_while_decoding(plan: Plan) -> Iterator[str]:
    if not plan.decode_policy.static:
        yield "a policy that evicts while decoding acts between the layers of every step"
    if plan.renumbers_later:
        yield "after re-indexing, later tokens have other positions in each layer"
    if plan.observers or plan.interventions:
        yield "observers and interventions act between layers, which run as one program"


def _beyond_logits(settings: Settings) -> Iterator[str]:
    if settings.beams > 1:
        yield f"num_beams={settings.beams}: beams are reordered under the cache"
    for name, reason in _UNCOMPILED.items():
        if settings[name]:
            yield f"{name}={settings[name]!r}: {reason}"


def _beyond_one_program(model: Any, windows: Sequence[int | None]) -> Iterator[str]:
    narrow = [window for window in windows if window]
    if narrow:
        yield f"some layers look back on {min(narrow)} tokens alone"
    if len({*getattr(model, "hf_device_map", {}).values()}) > 1:
        yield "the model stands on several devices"
    if not getattr(getattr(model, "hf_quantizer", None), "is_compileable", True):
        yield "weights quantised in this way can't be compiled"
