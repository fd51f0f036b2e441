"""Models that are loaded only when something is left to ask.

The key of an answer holds a digest of the weights, which takes loading them. So a store remembers
that digest, and what else plans need of a model, under a digest of the files and settings that the
model is loaded from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from analysis import provenance
from analysis.asking.rows import digest_of
from lightkv.contract.view import ModelFacts

if TYPE_CHECKING:
    import torch

    from analysis.asking.store import Store
    from lightkv import VLM


@dataclass(frozen=True)
class Description:
    """What is known of a model without loading it.

    Attributes:
        name, fingerprint, dtype, attention, device: As of the loaded model, in words.
        facts: Its dimensions.
        family: "module:class" of its family.
    """

    name: str
    fingerprint: str
    dtype: str
    attention: str
    device: str
    facts: dict[str, Any]
    family: str

    @classmethod
    def of(cls, vlm: VLM) -> Description:
        """The description of a loaded model."""
        family = type(vlm.family)
        return cls(
            name=vlm.name,
            fingerprint=vlm.fingerprint,
            dtype=str(vlm.dtype).removeprefix("torch."),
            attention=vlm.attention,
            device=vlm.device.type,
            facts=asdict(vlm.facts),
            family=f"{family.__module__}:{family.__qualname__}",
        )


class UnloadedVLM:
    """Stands for a model until it is needed.

    Args:
        description: What is known of it.
        load: Loads it.
    """

    def __init__(self, description: Description, load: Callable[[], VLM]) -> None:
        import torch

        self.name = description.name
        self.fingerprint = description.fingerprint
        self.attention = description.attention
        self.dtype: torch.dtype = getattr(torch, description.dtype)
        self.device = torch.device(description.device)
        self.facts = ModelFacts(**description.facts)
        module, kind = description.family.split(":")
        self.family: Any = getattr(import_module(module), kind)()
        self._load = load

    @cached_property
    def vlm(self) -> VLM:
        """The model, loaded when it is first asked for."""
        return self._load()

    @property
    def is_loaded(self) -> bool:
        """True once the model was needed."""
        return "vlm" in vars(self)


def loaded(vlm: VLM | UnloadedVLM) -> VLM:
    """The model itself."""
    return vlm.vlm if isinstance(vlm, UnloadedVLM) else vlm


def open_model(
    store: Store, model: str | None, *, device: str, dtype: str | None, attention: str
) -> VLM | UnloadedVLM:
    """A model that the store knows, not loaded yet; or a loaded one, which it then knows.

    Raises:
        ModelError, InvalidValueError: As :func:`lightkv.load`.
    """
    from lightkv import load

    def load_it() -> VLM:
        return load(model, device=device, dtype=dtype, attention=attention)

    identity = _identity(model, device, dtype, attention)
    known = None if identity is None else store.model(identity)
    if known is not None:
        try:
            return UnloadedVLM(Description(**json.loads(known)), load_it)
        except (ImportError, AttributeError, TypeError, ValueError):
            pass  # What was known comes from another version of this package.
    vlm = load_it()
    if identity is not None:
        store.note_model(identity, json.dumps(asdict(Description.of(vlm))))
    return vlm


def _identity(model: str | None, device: str, dtype: str | None, attention: str) -> str | None:
    """Digest of what decides the loaded model, None where its files are not known."""
    name = "embedded" if model is None else model
    if not provenance.model_is_here(name):
        return None
    return digest_of(
        {
            "files": provenance.model_identity(name),
            "device": device.partition(":")[0],
            "dtype": dtype,
            "attention": attention,
            "versions": provenance.answering_versions(),
            "code": provenance.code_of([], ["lightkv.loading", "lightkv.vlm"]),
        }
    )
