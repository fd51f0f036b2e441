"""All artefacts by id; one line each: where it is defined and which notebook makes it."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from figures.contract import Artefact
from lightkv.errors import UnknownNameError

_REGISTRY: Final[dict[str, tuple[str, str]]] = {
    "X-1": ("retention:ACCURACY_AGAINST_RETAINED_KV", "retention_sweep"),
    "T-T1": ("pilot:BUDGETS_RANKINGS_RETENTION", "pilot"),
    "T-T4": ("latency:MEMORY_AND_LATENCY", "latency"),
    "T-T5": ("ablation:COMPONENTS", "ablation"),
    "T-F1": ("probing_gap:MODALITY_GAP", "probing_attention"),
    "T-F2": ("probing_maps:DOMINANT_WORDS", "probing_attention"),
    "T-F5": ("kept:KEPT_ENTRIES", "kept_maps"),
    "T-F7": ("probing_maps:MAPS_BY_DEPTH", "probing_attention"),
    "L-F1": ("memory:PREFILL_MEMORY", "cost"),
    "L-F3": ("merging:WINDOWS_BY_STAGE", "merge_maps"),
    "L-F6": ("layers:SINGLE_LAYER", "layer_sweep"),
    "L-F7": ("merging:MERGED_PATCHES", "merge_maps"),
    "L-T5": ("windows:WINDOW_COUNTS", "window_sweep"),
    "L-T6": ("schedules:SCHEDULES", "cost"),
    "X-2": ("probing_information:INFORMATION", "probing_information"),
    "X-3": ("probing_causes:CAUSES", "probing_information"),
    "X-4": ("probing_grounding:GROUNDING", "probing_grounding"),
    "X-5": ("probing_redundancy:REDUNDANCY", "probing_redundancy"),
    "X-6": ("protocols:EVERY_METHOD", "every_method"),
}


def ids() -> tuple[str, ...]:
    """Ids of all artefacts, in the order of the report."""
    return tuple(_REGISTRY)


def artefact(artefact_id: str) -> Artefact:
    """The artefact of that id.

    Raises:
        UnknownNameError: There is none; the message lists the nearest ids.
    """
    module, attribute = _entry(artefact_id)[0].split(":")
    found: Artefact = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def artefacts() -> tuple[Artefact, ...]:
    """All artefacts, in the order of the report."""
    return tuple(artefact(one) for one in _REGISTRY)


def notebook_of(artefact_id: str) -> str:
    """Name of the notebook that makes an artefact.

    Raises:
        UnknownNameError: There is no such artefact.
    """
    return _entry(artefact_id)[1]


def made_by(notebook: str) -> tuple[str, ...]:
    """Ids of the artefacts that a notebook makes."""
    return tuple(one for one, (_, name) in _REGISTRY.items() if name == notebook)


def _entry(artefact_id: str) -> tuple[str, str]:
    if artefact_id not in _REGISTRY:
        raise UnknownNameError("artefact", artefact_id, _REGISTRY)
    return _REGISTRY[artefact_id]
