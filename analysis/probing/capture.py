"""The observer of :func:`~analysis.probing.probe.probe`: looks at layers, keeps what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from analysis.probing.dataset import Sample
from analysis.probing.quantities import Heads, LayerQuantity, Quantity, Reading, RecordQuantity
from analysis.probing.quantities.base import TOKEN_DIMS
from lightkv.contract.shapes import check_shape
from lightkv.contract.types import check_type, plain
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError

Values = np.ndarray[tuple[int, ...], np.dtype[Any]]


class Capture:
    """Observer of one batch.

    Args:
        wanted: Quantities.
        layers: Layers to look at.
        heads: "mean" or "all".
        model: The HuggingFace model, for quantities that read its head.
        lengths: Tokens of each row's prompt.
        picked: The heads whose attention is read, None for all.
    """

    def __init__(
        self,
        wanted: Sequence[Quantity],
        layers: Sequence[int],
        heads: Heads,
        model: Any,
        lengths: Sequence[int],
        *,
        picked: Sequence[int] | None = None,
    ) -> None:
        self._seen = [one for one in wanted if isinstance(one, LayerQuantity)]
        self._read = [one for one in wanted if isinstance(one, RecordQuantity)]
        self._layers = tuple(layers)
        self._heads: Heads = heads
        self._picked = picked
        self._model = model
        self._found: dict[tuple[str, int], list[Values]] = {}
        self._lengths = tuple(lengths)

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        """The layers asked for; none if only records are read."""
        return self._layers if self._seen else ()

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        """The same, if some quantity reads attention."""
        return self._layers if any(one.needs == "attention" for one in self._seen) else ()

    def see(self, view: LayerView) -> None:
        """Measure every quantity of one layer."""
        if self._picked is not None and view.attention is not None:
            view = replace(view, attention=view.attention.pick_heads(self._picked))
        reading = Reading(view, self._heads, self._model)
        position = view.layout.position.cpu().numpy()
        for one in self._seen:
            measured = self._checked(one, one.measure(reading), view).detach().cpu().numpy()
            self._found[one.name, view.layer] = [
                _unpad(row, one.dims(self._heads), position[number], self._lengths[number])
                for number, row in enumerate(measured)
            ]

    def _checked(self, one: LayerQuantity, measured: Tensor, view: LayerView) -> Tensor:
        """What a quantity measured; its class is named where the shape is not as it says."""
        lengths = {name: len(labels) for name, labels in one.coordinates().items()}
        lengths |= dict.fromkeys(TOKEN_DIMS, view.layout.length)
        shape = (lengths.get(dim) for dim in one.dims(self._heads))
        check_shape(one, "measure", measured, (view.layout.batch_size, *shape))
        return measured

    def _read_checked(self, one: RecordQuantity, record: RunRecord, layer: int) -> Tensor:
        """The same for what a quantity reads from a record."""
        lengths: dict[str, int] = dict.fromkeys(TOKEN_DIMS, record.layout.length)
        read = one.read(record, layer)
        check_shape(one, "read", read, tuple(lengths.get(dim) for dim in one.dims(self._heads)))
        return read

    def samples(self, records: Sequence[RunRecord], ids: Sequence[Tensor]) -> list[Sample]:
        """What was captured, one sample per row.

        Args:
            records: Of the run.
            ids: Per row the (n,) token ids of its prompt, without padding.
        """
        samples = []
        for row, record in enumerate(records):
            values: dict[tuple[str, int], Values] = {}
            for key, rows in self._found.items():
                values[key] = rows[row]
            for one in self._read:
                for layer in self._layers:
                    values[one.name, layer] = self._read_checked(one, record, layer).numpy()
            samples.append(Sample(values, ids[row].tolist(), record.layout))
        return samples


def check_layers(
    facts: ModelFacts, layers: Sequence[int] | None, wanted: Sequence[Quantity]
) -> tuple[int, ...]:
    """The layers to look at, ascending.

    Raises:
        InvalidValueError: If one does not exist, is named twice, or lacks what is asked of it.
    """
    checked = decoder_layers(facts, layers, least=-1)
    blind = [one.name for one in wanted if getattr(one, "needs", "attention") != "hidden"]
    if checked[0] == -1 and blind:
        raise InvalidValueError(
            "layers", -1, f"from 0 for {', '.join(blind)}: layer -1 has hidden states only"
        )
    return checked


def check_heads(
    facts: ModelFacts, heads: Heads | Sequence[int], wanted: Sequence[Quantity]
) -> tuple[Heads, tuple[int, ...] | None]:
    """Whether heads are averaged or kept apart, and which: None for all.

    Raises:
        InvalidValueError: If a head does not exist or is named twice, or no quantity has heads.
    """
    if heads == "mean":
        return "mean", None
    picked = tuple(range(facts.heads)) if heads == "all" else plain(heads)
    if isinstance(heads, str) and heads != "all":
        raise InvalidValueError("heads", heads, "'mean', 'all', or a list of heads")
    check_type("heads", picked, Sequence[int])
    once = len(set(picked)) == len(picked) > 0
    if not once or not all(0 <= head < facts.heads for head in picked):
        allowed = f"at least one head, each once, from 0 to {facts.heads - 1}"
        raise InvalidValueError("heads", picked, allowed)
    if not any("head" in one.dims("all") for one in wanted):
        names = ", ".join(one.name for one in wanted)
        raise InvalidValueError("heads", heads, f"'mean' for {names}, which heads don't have")
    return "all", None if heads == "all" else picked


def decoder_layers(
    facts: ModelFacts, layers: Sequence[int] | None, *, least: int = 0
) -> tuple[int, ...]:
    """Layers of a model that a user named, ascending; all of them for None.

    Args:
        facts: The model.
        layers: 0-based layers.
        least: Smallest one allowed; -1 is the input of the first.

    Raises:
        InvalidValueError: If they are not whole numbers, one does not exist or is named twice.
    """
    if layers is None:
        return tuple(range(facts.layers))
    check_type("layers", plain(layers), Sequence[int])
    ordered = tuple(sorted(layers))
    if not ordered or len(set(ordered)) < len(ordered):
        raise InvalidValueError("layers", ordered, "at least one layer, each once")
    outside = [layer for layer in ordered if not least <= layer < facts.layers]
    if outside:
        more = ", or -1 for the input of the first" if least < 0 else ""
        raise InvalidValueError("layers", outside[0], f"from 0 to {facts.layers - 1}{more}")
    return ordered


def _unpad(values: Values, dims: Sequence[str], position: Values, length: int) -> Values:
    """Values of one row with token axes in the prompt's own positions.

    Args:
        values: Axes ``dims``, tokens in the layer's physical positions.
        dims: Names of the axes.
        position: (N,) prompt position of each physical one, -1 for padding.
        length: Tokens of the prompt.
    """
    real = position >= 0
    for axis, dim in enumerate(dims):
        if dim in TOKEN_DIMS:
            values = values.compress(real, axis)
    if int(real.sum()) == length:
        return np.array(values)
    # The layer has fewer tokens than the prompt: merged or dropped ones stay empty.
    places = [
        position[real] if dim in TOKEN_DIMS else np.arange(size)
        for dim, size in zip(dims, values.shape, strict=True)
    ]
    shape = [
        length if dim in TOKEN_DIMS else size for dim, size in zip(dims, values.shape, strict=True)
    ]
    spread = np.full(shape, -1 if values.dtype.kind == "i" else np.nan, values.dtype)
    spread[np.ix_(*places)] = values
    return spread
