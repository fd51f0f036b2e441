"""Probe a model: ask for quantities by name, get a dataset with named dimensions.

    data = probe(lightkv.load(), [image], ["what color is the circle ?"], ["block_sum"])
    data.block_sum.mean("sample").plot.line(x="layer")

Everything is reduced while the prompt runs, layer by layer; what is kept is what was asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor

from analysis.probing.capture import Capture, check_heads, check_layers
from analysis.probing.dataset import Sample, assemble
from analysis.probing.quantities import Heads, Quantity, quantities
from lightkv.catalogue import MethodLike, resolved
from lightkv.contract.checks import check_count
from lightkv.contract.types import check_type
from lightkv.errors import InputError, InvalidValueError, StoreError
from lightkv.prompting import Request
from lightkv.settings import GREEDY
from lightkv.vlm import VLM

if TYPE_CHECKING:
    import xarray as xr

    from lightkv.contract.interventions import Intervention

LARGE_CAPTURE: Final = 256 * 2**20
"""Bytes from which a capture is announced by a :class:`CaptureSizeWarning`."""


class CaptureSizeWarning(UserWarning):
    """A probe will hold much memory; says how much before anything runs."""


def probe(
    vlm: VLM,
    images: Any,
    questions: str | Sequence[str],
    quantities: str | Quantity | Iterable[str | Quantity],
    layers: Sequence[int] | None = None,
    heads: Heads | Sequence[int] = "mean",
    *,
    videos: Sequence[Sequence[Any]] | None = None,
    batch_size: int = 8,
    compressor: MethodLike = None,
    interventions: Sequence[Intervention] = (),
    seed: int = 0,
) -> xr.Dataset:
    """Run prompts once and keep the quantities asked for.

    Args:
        vlm: The model.
        images: One image per question (or a list of images for a question), or a single image that
            all questions are about.
        questions: One or several.
        quantities: Names (see :data:`analysis.probing.quantities.QUANTITIES`) or instances with
            parameters of their own.
        layers: Decoder layers, 0-based; -1 is the input of the first layer, which has hidden
            states only. None for all decoder layers.
        heads: "mean" averages attention over heads first, as the papers do; "all" keeps a ``head``
            dimension; a list such as ``[0, 2]`` keeps these heads alone, in this order.
        videos: For every question its videos, each a list of frames; a question that has one needs
            no image (``[]``). None for no videos.
        batch_size: Prompts run at once; changes nothing but speed and memory.
        compressor: Probe the model as this method leaves it; also as text.
        interventions: Probe it under these, see :mod:`lightkv.contract.interventions`.
        seed: For methods that draw at random.

    Returns:
        One variable per quantity with dimensions (sample, layer, ...). Token dimensions (query,
        key) count positions of the prompt itself, without padding, and carry the coordinates
        ``key_kind``, ``key_text``, ``key_frame``, ``key_row``, ``key_col``, ``key_image`` (and the
        same for query). What a token does not have, or a method has merged away, is NaN (-1 for
        integers).

    Raises:
        InputError: If there is no question, a question is empty, or one has no image and no video.
        UnknownNameError: If a quantity is unknown; the message lists the known ones.
        InvalidValueError: If a layer, ``heads`` or ``batch_size`` is out of range.
    """
    requests = _requests(images, questions, videos)
    check_count("batch_size", batch_size)
    batches = [requests[i : i + batch_size] for i in range(0, len(requests), batch_size)]
    return probe_inputs(
        vlm,
        # Encoded one by one, so that only one batch is held.
        (vlm.encode(batch, compressor) for batch in batches),
        quantities,
        layers,
        heads,
        compressor=compressor,
        interventions=interventions,
        seed=seed,
        questions=[request.question for request in requests],
    )


def probe_inputs(
    vlm: VLM,
    batches: Iterable[Mapping[str, Tensor]],
    quantities: str | Quantity | Iterable[str | Quantity],
    layers: Sequence[int] | None = None,
    heads: Heads | Sequence[int] = "mean",
    *,
    compressor: MethodLike = None,
    interventions: Sequence[Intervention] = (),
    seed: int = 0,
    questions: Sequence[str] | None = None,
) -> xr.Dataset:
    """As :func:`probe`, for batches that a processor made.

    Args:
        vlm: The model.
        batches: Processor outputs (see :meth:`lightkv.VLM.encode`).
        quantities: As for :func:`probe`, and so are the arguments that are not named here.
        questions: One per row, for the ``question`` coordinate; default empty.

    Raises:
        InputError: If there is no batch, or a row has no image.
        UnknownNameError, InvalidValueError: As :func:`probe`.
    """
    check_type("vlm", vlm, VLM)
    wanted = _wanted(quantities)
    depths = check_layers(vlm.facts, layers, wanted)
    mode, picked = check_heads(vlm.facts, heads, wanted)
    compressor = resolved(compressor, vlm.facts)
    samples: list[Sample] = []
    for inputs in batches:
        layout = vlm.layout(inputs)
        blind = (~layout.vision.any(1)).nonzero()[:, 0].tolist()
        if blind:
            raise InputError(
                f"question {len(samples) + blind[0]} has no image; give every question one"
            )
        if not samples:
            count = len(questions) if questions is not None else layout.batch_size
            _announce(vlm, wanted, len(depths) * count, layout.length, mode, picked)
        lengths = layout.prompt_lengths.tolist()
        capture = Capture(wanted, depths, mode, vlm.model, lengths, picked=picked)
        records = vlm.generate(
            inputs,
            compressor,
            seed=seed,
            observers=(capture,),
            interventions=interventions,
            max_new_tokens=1,
            **GREEDY,
        ).records
        real = layout.real.to(inputs["input_ids"].device)
        ids = [row[keep] for row, keep in zip(inputs["input_ids"], real, strict=True)]
        samples += capture.samples(records, ids)
    if not samples:
        raise InputError("no prompt to probe; give at least one question")
    names = [""] * len(samples) if questions is None else list(questions)
    return assemble(vlm, samples, wanted, depths, mode, names, compressor, seed, picked=picked)


def expected_bytes(
    vlm: VLM,
    quantities: str | Quantity | Iterable[str | Quantity],
    length: int,
    *,
    samples: int = 1,
    layers: int | None = None,
    heads: Heads | Sequence[int] = "mean",
) -> int:
    """Bytes that the result of a probe takes, before anything runs.

    Args:
        vlm: The model.
        quantities: As for :func:`probe`.
        length: Tokens of the prompt.
        samples: Questions.
        layers: How many layers; None for all.
        heads: As for :func:`probe`.

    Raises:
        UnknownNameError, InvalidValueError: If a quantity is unknown or a number out of range.
    """
    check_count("length", length)
    check_count("samples", samples)
    count = samples * (vlm.facts.layers if layers is None else layers)
    wanted = _wanted(quantities)
    mode, picked = check_heads(vlm.facts, heads, wanted)
    return sum(_bytes(vlm, one, length, mode, picked) for one in wanted) * count


def save(data: xr.Dataset, path: str | Path) -> None:
    """Write a dataset as netCDF (HDF5).

    Raises:
        StoreError: If the file can't be written.
    """
    try:
        data.to_netcdf(Path(path), engine="h5netcdf")
    except OSError as error:
        raise StoreError(f"the dataset can't be written to {str(path)!r}: {error}") from error


def load(path: str | Path) -> xr.Dataset:
    """Read a dataset that :func:`save` wrote; identical to what was written.

    Raises:
        StoreError: If the file is missing or not a dataset.
    """
    import xarray as xr

    try:
        with xr.open_dataset(Path(path), engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(path)!r} can't be read as a dataset: {error}") from error


def _wanted(asked: str | Quantity | Iterable[str | Quantity]) -> tuple[Quantity, ...]:
    wanted = quantities(asked)
    if not wanted:
        raise InvalidValueError("quantities", (), "at least one quantity")
    twice = {one.name for one in wanted if sum(o.name == one.name for o in wanted) > 1}
    if twice:
        raise InvalidValueError("quantities", sorted(twice), "each quantity once")
    labels: dict[str, list[Any]] = {}
    for one in wanted:
        for dim, values in one.coordinates().items():
            if list(values) != labels.setdefault(dim, list(values)):
                raise InvalidValueError(
                    f"{dim} of {one.name}",
                    list(values),
                    f"{labels[dim]} as in the other quantities",
                )
    return wanted


def _requests(
    images: Any, questions: str | Sequence[str], videos: Sequence[Sequence[Any]] | None
) -> list[Request]:
    asked = [questions] if isinstance(questions, str) else questions
    if not isinstance(asked, list | tuple):
        raise InputError(f"the questions are of type {type(asked).__name__}; give a list of texts")
    if not asked:
        raise InputError("no question given; ask at least one")
    pictures = list(images) if isinstance(images, list | tuple) else [images] * len(asked)
    if len(pictures) != len(asked):
        raise InputError(f"{len(pictures)} images for {len(asked)} questions; give one for each")
    films = [()] * len(asked) if videos is None else videos
    if not isinstance(films, list | tuple) or len(films) != len(asked):
        raise InputError(
            f"videos is not a list of {len(asked)} entries; give one list of videos for each "
            "question, [] for none"
        )
    requests = []
    for number, (image, question, shown) in enumerate(zip(pictures, asked, films, strict=True)):
        several = tuple(image) if isinstance(image, list | tuple) else (image,)
        if not (several or shown) or any(one is None for one in several):
            raise InputError(f"question {number} has no image; give every question one")
        if not isinstance(question, str):
            raise InputError(f"question {number} is of type {type(question).__name__}; give a text")
        requests.append(Request(several, question, videos=shown))
    return requests


def _bytes(vlm: VLM, one: Quantity, length: int, heads: Heads, picked: Sequence[int] | None) -> int:
    width = 8 if one.dtype == "int64" else 4
    numbers = one.size(vlm.facts, length, heads)
    if picked is not None and "head" in one.dims(heads):
        numbers = numbers // vlm.facts.heads * len(picked)
    return numbers * width


def _announce(
    vlm: VLM,
    wanted: Sequence[Quantity],
    count: int,
    length: int,
    heads: Heads,
    picked: Sequence[int] | None,
) -> None:
    """Warn of a capture whose result is large."""
    sizes = {one.name: _bytes(vlm, one, length, heads, picked) * count for one in wanted}
    if sum(sizes.values()) < LARGE_CAPTURE:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    parts = ", ".join(f"{name} {sizes[name] / 2**20:,.1f}" for name in largest)
    warnings.warn(
        f"the result will take {sum(sizes.values()) / 2**20:,.0f} MiB ({parts}) for prompts of "
        f"{length} tokens; ask for fewer layers or samples, or for a reduced quantity",
        CaptureSizeWarning,
        stacklevel=4,
    )
