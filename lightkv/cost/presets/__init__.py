"""The papers' models as data: dimensions, vision tokens, prompts and schedules.

One TOML file per model lies beside this module; adding a model is adding a file. Sizes are those
of the named checkpoint's configuration, schedules those of the papers or their released scripts.
"""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lightkv.cost.presets.shape import ModelShape, ProjectorShape, TextShape, VisionShape
from lightkv.errors import InvalidValueError, UnknownNameError


@dataclass(frozen=True)
class MergeSchedule:
    """Where, in how many windows and by how much vision tokens are merged (LightKV: Λ, W, P).

    Attributes:
        layers: 0-based decoder layers after which a stage merges. The layer itself still sees and
            caches the uncompressed sequence; the stage takes effect from the next layer on.
        windows: Windows per side at each stage.
        ratios: Share of a window's tokens that merges away at each stage.
        name: What a preset calls it.
        source: Where the numbers stand.
    """

    layers: tuple[int, ...]
    windows: tuple[int, ...]
    ratios: tuple[float, ...]
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not len(self.layers) == len(self.windows) == len(self.ratios):
            lengths = (len(self.layers), len(self.windows), len(self.ratios))
            raise InvalidValueError(
                "lengths of (layers, windows, ratios)", lengths, "three equal numbers"
            )
        rising = all(a < b for a, b in itertools.pairwise(self.layers))
        if not rising or any(layer < 0 for layer in self.layers):
            raise InvalidValueError("layers", self.layers, "rising 0-based layer numbers")
        if any(window < 1 for window in self.windows):
            raise InvalidValueError("windows", self.windows, "at least 1 each")
        if not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise InvalidValueError("ratios", self.ratios, "between 0 and 1 each")


@dataclass(frozen=True)
class ModelPreset:
    """One model of the papers.

    Attributes:
        name: Key of the preset; the ``model`` column of the papers' numbers uses the same.
        title: Name in print.
        hub_id: Checkpoint in transformers format.
        family: Model family, as transformers' ``model_type``.
        shape: Dimensions of decoder, vision tower and projector.
        vision_tokens: Vision tokens of one image in the decoder.
        grids: Rows and columns of the grids that they lie on; what is left over are line breaks
            and class tokens, which have no cell.
        tiles: Tiles the vision tower encodes for that image.
        image: Which image ``vision_tokens`` and ``tiles`` hold for.
        prompt: Prompt template with ``<image>`` and ``{question}``.
        system: The sentence of it that the checkpoint's chat template leaves out unless it is sent
            as a system turn; :func:`lightkv.load` sends it. Empty where there is none.
        schedules: Published merge schedules, the paper's main one first.
        unmodelled: Parts that ``shape`` leaves out and :mod:`lightkv.cost.workload` does not count.
    """

    name: str
    title: str
    hub_id: str
    family: str
    shape: ModelShape
    vision_tokens: int
    grids: tuple[tuple[int, int], ...]
    tiles: int
    image: str
    prompt: str
    system: str = ""
    schedules: tuple[MergeSchedule, ...] = ()
    unmodelled: str = ""

    def schedule(self, name: str) -> MergeSchedule:
        """The published schedule of that name; raises :class:`UnknownNameError`."""
        for schedule in self.schedules:
            if schedule.name == name:
                return schedule
        raise UnknownNameError("schedule", name, [s.name for s in self.schedules])


def presets() -> tuple[str, ...]:
    """Names of all presets, sorted."""
    return tuple(sorted(_load()))


def preset(name: str) -> ModelPreset:
    """The preset of that name.

    Raises:
        UnknownNameError: No preset has that name; the message lists the nearest ones.
    """
    known = _load()
    if name not in known:
        raise UnknownNameError("model preset", name, known)
    return known[name]


@cache
def _load() -> dict[str, ModelPreset]:
    """All presets by name, read from the package's TOML files."""
    by_name = {}
    for file in resources.files(__name__).iterdir():
        if file.name.endswith(".toml"):
            entry = _parse(tomllib.loads(file.read_text(encoding="utf-8")))
            by_name[entry.name] = entry
    return by_name


def _parse(raw: dict[str, Any]) -> ModelPreset:
    """One file's content as a :class:`ModelPreset`."""
    shape = ModelShape(
        TextShape(**raw.pop("text")),
        VisionShape(**raw.pop("vision")) if "vision" in raw else None,
        ProjectorShape(**raw.pop("projector")) if "projector" in raw else None,
    )
    schedules = tuple(
        MergeSchedule(
            layers=tuple(entry["layers"]),
            windows=tuple(entry["windows"]),
            ratios=tuple(entry["ratios"]),
            name=entry["name"],
            source=entry["source"],
        )
        for entry in raw.pop("schedules", [])
    )
    grids = tuple((rows, cols) for rows, cols in raw.pop("grids"))
    return ModelPreset(shape=shape, grids=grids, schedules=schedules, **raw)
