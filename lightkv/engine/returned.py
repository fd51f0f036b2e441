"""What a method returned: refused before it is used if its type or shape is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightkv.contract.compressor import Evictor, Observation, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.shapes import check_shape
from lightkv.contract.view import LayerView
from lightkv.errors import InvalidValueError


def checked_reduction(reducer: Reducer, reduction: object, layout: TokenLayout) -> Reduction:
    """A reduction of the (B, N) tokens of a layer.

    Raises:
        InvalidValueError: It is not a reduction, or has another shape; the class is named.
    """
    if not isinstance(reduction, Reduction):
        raise _wrong(reducer, "reduce", reduction, "a Reduction")
    whole = layout.batch_size, layout.length
    check_shape(reducer, "reduce", reduction.target, whole)
    check_shape(reducer, "reduce", reduction.weight, whole)
    check_shape(reducer, "reduce", reduction.index, (layout.batch_size, None))
    check_shape(reducer, "reduce", reduction.valid, tuple(reduction.index.shape))
    return reduction


def checked_states(
    reducer: Reducer, states: object, view: LayerView, reduction: Reduction
) -> Tensor | None:
    """Hidden states (B, K, D) of a reduction's survivors, in the layer's own precision, or None.

    Raises:
        InvalidValueError: They are not a tensor, or have another shape; the class is named.
    """
    if states is None:
        return None
    if not isinstance(states, Tensor):
        raise _wrong(reducer, "states", states, "a tensor or None")
    shape = (*reduction.index.shape, view.hidden.shape[-1])
    check_shape(reducer, "states", states, shape)
    return states.to(view.hidden)


def checked_queries(evictor: Evictor, marked: object, layout: TokenLayout) -> Tensor | None:
    """The queries of a layer of (B, N) entries that an evictor reads, None for all.

    Raises:
        InvalidValueError: They are not a tensor, or have another shape; the class is named.
    """
    if marked is None:
        return None
    if not isinstance(marked, Tensor):
        raise _wrong(evictor, "queries", marked, "a tensor, or None")
    check_shape(evictor, "queries", marked, (layout.batch_size, layout.length))
    return marked


def checked_observation(evictor: Evictor, observed: object, layout: TokenLayout) -> Observation:
    """What an evictor remembers of a layer of (B, N) entries.

    Raises:
        InvalidValueError: It is not an observation, or has another shape; the class is named.
    """
    if not isinstance(observed, Observation):
        raise _wrong(evictor, "observe", observed, "an Observation")
    rows, length = layout.batch_size, layout.length
    check_shape(evictor, "observe", observed.score, (rows, length), (rows, None, length))
    check_shape(evictor, "observe", observed.strength, (rows,), (rows, None))
    return observed


def checked_retentions(
    evictor: Evictor, retentions: object, layers: int, rows: int
) -> Sequence[Retention]:
    """One retention per layer for a batch of B rows.

    Raises:
        InvalidValueError: There are more or fewer, or one has another shape; the class is named.
    """
    if not isinstance(retentions, Sequence) or len(retentions) != layers:
        shown = len(retentions) if isinstance(retentions, Sequence) else retentions
        raise _wrong(evictor, "retain", shown, f"a list of {layers}, one Retention a layer")
    for one in retentions:
        if not isinstance(one, Retention):
            raise _wrong(evictor, "retain", one, "a list of Retention")
        check_shape(evictor, "retain", one.index, (rows, None, None))
        check_shape(evictor, "retain", one.valid, tuple(one.index.shape))
        check_shape(evictor, "retain", one.requested, (rows,))
    return retentions


def _wrong(method: object, name: str, value: object, wanted: str) -> InvalidValueError:
    shown = value if isinstance(value, int) else type(value).__name__
    return InvalidValueError(f"what {type(method).__name__}.{name} returned", shown, wanted)
