"""Put captured samples together into one labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.probing.quantities import Heads, Quantity
from analysis.probing.quantities.base import TOKEN_DIMS, kind_name
from analysis.provenance import answering_versions
from lightkv.contract.layout import TokenLayout

if TYPE_CHECKING:
    import xarray as xr

    from lightkv import VLM
    from lightkv.contract.compressor import Compressor

Values = np.ndarray[tuple[int, ...], np.dtype[Any]]

FILLS: Final[Mapping[str, Any]] = {"float32": np.nan, "int64": -1}
"""What stands where a token does not exist."""


@dataclass(frozen=True)
class Sample:
    """One probed prompt.

    Attributes:
        values: By (quantity, layer), token axes in the prompt's own positions.
        tokens: Ids of the prompt without padding.
        layout: Layout of the prompt, one row without padding.
    """

    values: Mapping[tuple[str, int], Values]
    tokens: Sequence[int]
    layout: TokenLayout


def assemble(
    vlm: VLM,
    samples: Sequence[Sample],
    wanted: Sequence[Quantity],
    layers: Sequence[int],
    heads: Heads,
    questions: Sequence[str],
    compressor: Compressor | None,
    seed: int,
    *,
    picked: Sequence[int] | None = None,
) -> xr.Dataset:
    """The dataset of a probe; prompts are padded at their end to the longest."""
    import xarray as xr

    length = max(len(sample.tokens) for sample in samples)
    used: set[str] = set()
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for one in wanted:
        dims = one.dims(heads)
        used |= TOKEN_DIMS & set(dims)
        if "head" in dims:
            coordinates["head"] = list(range(vlm.facts.heads) if picked is None else picked)
        values = _stacked(one, samples, layers, dims, length)
        attributes = {
            "units": one.units,
            "long_name": one.name.replace("_", " "),
            "definition": one.definition,
            "quantity": repr(one),
        }
        variables[one.name] = (("sample", "layer", *dims), values, attributes)
        coordinates |= {name: list(labels) for name, labels in one.coordinates().items()}
    for dim in sorted(used):
        coordinates |= _token_coordinates(vlm, dim, samples, length)
    coordinates |= {
        "layer": list(layers),
        "question": ("sample", np.array(questions, str)),
        "length": ("sample", [len(sample.tokens) for sample in samples]),
    }
    described: dict[str, Any] = {
        "model": vlm.name,
        "fingerprint": vlm.fingerprint,
        "method": "none" if compressor is None else str(compressor),
        "heads": heads if picked is None else ", ".join(map(str, picked)),
        "seed": seed,
        "dtype": str(vlm.dtype),
        "attention": vlm.attention,
        **{f"{name}_version": version for name, version in answering_versions().items()},
    }
    return xr.Dataset(variables, coordinates, described)


def _stacked(
    one: Quantity,
    samples: Sequence[Sample],
    layers: Sequence[int],
    dims: Sequence[str],
    length: int,
) -> Values:
    """(S, L, ...) of one quantity, token axes padded at the end."""
    first = samples[0].values[one.name, layers[0]]
    shape = [
        length if dim in TOKEN_DIMS else size for dim, size in zip(dims, first.shape, strict=True)
    ]
    stacked = np.full((len(samples), len(layers), *shape), FILLS[one.dtype], one.dtype)
    for row, sample in enumerate(samples):
        for column, layer in enumerate(layers):
            values = sample.values[one.name, layer]
            where: tuple[int | slice, ...] = (row, column, *map(slice, values.shape))
            stacked[where] = values
    return stacked


def _token_coordinates(
    vlm: VLM, dim: str, samples: Sequence[Sample], length: int
) -> dict[str, Any]:
    """Kind, text, image, frame and cell of every token along ``dim``."""
    shape = (len(samples), length)
    kind, text = np.full(shape, "", object), np.full(shape, "", object)
    cells = {name: np.full(shape, -1) for name in ("image", "frame", "row", "col")}
    for number, sample in enumerate(samples):
        here = (number, slice(len(sample.tokens)))
        kind[here] = [kind_name(value) for value in sample.layout.kind[0].tolist()]
        text[here] = token_texts(vlm, sample.tokens)
        for name, values in cells.items():
            values[here] = getattr(sample.layout, name)[0].numpy()
    both = ("sample", dim)
    return {
        dim: np.arange(length),
        f"{dim}_kind": (both, kind.astype(str)),
        f"{dim}_text": (both, text.astype(str)),
        **{f"{dim}_{name}": (both, values) for name, values in cells.items()},
    }


def token_texts(vlm: VLM, tokens: Sequence[int]) -> list[str]:
    """Tokens as text; ids as digits where a model came without a processor."""
    if vlm.processor is None:
        return [str(token) for token in tokens]
    known = {token: str(vlm.processor.tokenizer.decode([token])) for token in set(tokens)}
    return [known[token] for token in tokens]
