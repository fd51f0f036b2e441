"""Load a model by hub id or folder; an embedded model by name or by default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click
import torch

from lightkv.checkpoint import (
    check_folder,
    check_trust,
    config_of,
    family_of_config,
    model_of,
    processor_of,
)
from lightkv.contract.types import check_type
from lightkv.cost.presets import preset, presets
from lightkv.embedded.location import SHIPPED, shipped
from lightkv.engine.drivers import Driver
from lightkv.errors import InvalidValueError, ModelError
from lightkv.inputs import chat
from lightkv.prompting import Request
from lightkv.vlm import VLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GIB = 2**30

# Options of ``from_pretrained`` that also say where config and processor come from.
_SOURCE_OPTIONS = ("revision", "token", "cache_dir", "trust_remote_code", "local_files_only")
# Options under which transformers decides by itself where weights go.
_PLACED_BY_TRANSFORMERS = ("device_map", "quantization_config")


def load(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    attention: str = "sdpa",
    system: str | None = None,
    driver: Driver = "auto",
    **options: Any,
) -> VLM:
    """Load a vision-language model.

    Args:
        name_or_path: A hub id or a local folder; "embedded" or None for the embedded LLaVA;
            "embedded-qwen" for the embedded Qwen3-VL and "embedded-fuyu" for the encoder-free
            Fuyu, once their weights ship.
        device: Where to put it ("cpu", "cuda", "cuda:1", ...).
        dtype: "float32", "bfloat16", "float16" or a torch dtype. Default: float32 on the CPU,
            bfloat16 elsewhere.
        attention: "sdpa" or "eager".
        system: System sentence of every request that names none. Default: the one that the papers'
            prompt of this hub id has and its chat template lacks (LLaVA-1.5's "A chat between a
            curious user ..."), else none.
        driver: What carries runs through the model: "nnsight", "hooks", or "auto" for nnsight
            wherever something observes or intervenes and hooks where a compressor runs alone.
        **options: Passed on to ``from_pretrained``: ``revision=``, ``device_map="auto"`` for
            several GPUs, ``quantization_config=`` for 4 or 8 bits, ``trust_remote_code=True``.
            Weights are read from safetensors only, unless ``use_safetensors=False``.

    Raises:
        InvalidValueError: If an argument has a value that is not allowed, or an option is unknown.
        ModelError: If files are missing or damaged, the hub can't be reached, the architecture is
            unknown, the processor can't be built, or memory is too small.
    """
    where = device_named(device)
    number_type = dtype_named(dtype, where)
    check_type("attention", attention, Literal["sdpa", "eager"])
    check_type("system", system, str | None)
    check_type("driver", driver, Driver)
    options.setdefault("use_safetensors", True)
    source = located("embedded" if name_or_path is None else name_or_path)
    name = "embedded" if name_or_path is None else str(name_or_path)
    if Path(source).is_dir():
        check_folder(Path(source), bool(options["use_safetensors"]))
    origin = {key: options[key] for key in _SOURCE_OPTIONS if key in options}
    config = config_of(source, origin)
    family = family_of_config(source, config)
    check_trust(source, config, family, bool(options.get("trust_remote_code")))
    processor = processor_of(source, origin)
    if not (family.remote_code or any(key in options for key in _PLACED_BY_TRANSFORMERS)):
        _check_memory(source, config, where, number_type)
    model = model_of(source, family, where, number_type, attention, options)
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    vlm = VLM(name, family.adopt(model).eval(), processor, family, driver)
    vlm.system = system_of(name, processor) if system is None else system
    if sys.stderr.isatty():
        click.echo(f"lightkv: {vlm.summary}", err=True)
    return vlm


def located(name_or_path: str | Path) -> str:
    """The absolute path of a folder or of an embedded model, or a hub id as it is.

    A model whose name goes on to another process is resolved here first, where the user typed it.

    Raises:
        InvalidValueError: If it is neither a text nor a path.
        ModelError: If it is written as a path, and there is no such folder; or if it is an
            embedded model whose weights don't ship yet.
    """
    check_type("name_or_path", name_or_path, str | Path)
    if isinstance(name_or_path, str) and name_or_path in SHIPPED:
        return str(shipped(name_or_path).resolve())
    path = Path(name_or_path).expanduser()
    if path.is_dir() and str(name_or_path):
        return str(path.resolve())
    text = str(name_or_path)
    if path.is_file():
        raise ModelError(f"{text!r} is a file, not a folder with a checkpoint")
    # A hub id is a name, or an owner and a name.
    written = isinstance(name_or_path, Path) or text.startswith((".", "/", "~", "\\"))
    if written or text.count("/") > 1 or text.endswith("/"):
        raise ModelError(f"there is no folder {text!r} (looked in {str(Path.cwd())!r})")
    if not text.strip():
        raise InvalidValueError("name_or_path", text, "a hub id or a folder; None for the embedded")
    return text


def system_of(hub_id: str, processor: Any) -> str | None:
    """System sentence of a model's published prompt, where the chat template leaves it out.

    Args:
        hub_id: The model; a folder has no published prompt.
        processor: Its processor.

    Returns:
        None where the prompt has no such sentence, or the chat template writes it.
    """
    known = (preset(name) for name in presets())
    sentence = next((one.system for one in known if one.hub_id == hub_id and one.system), None)
    if sentence is None or sentence in chat(processor, hub_id, Request((), "?")):
        return None
    sent = chat(processor, hub_id, Request((), "?", system=sentence))
    return sentence if sentence in sent else None


def check_source(name_or_path: str | Path) -> None:
    """Refuse a hub id or folder that :func:`load` could not load, without reading weights.

    Raises:
        ModelError: Files are missing or damaged, the hub can't be reached, the architecture is
            unknown, or the processor can't be built.
    """
    source = located(name_or_path)
    if Path(source).is_dir():
        check_folder(Path(source), safetensors_only=True)
    config = config_of(source, {})
    check_trust(source, config, family_of_config(source, config), False)
    processor_of(source, {})


def weight_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of a model's weights, from its config alone."""
    from transformers import AutoModelForImageTextToText

    build: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model = build(config)
    numbers = sum(int(parameter.numel()) for parameter in model.parameters())
    return numbers * dtype.itemsize


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device in bytes, None where it is not known."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return None


def _check_memory(source: str, config: Any, device: torch.device, dtype: torch.dtype) -> None:
    free = free_bytes(device)
    needed = weight_bytes(config, dtype)
    if free is not None and needed > free:
        raise ModelError(
            f"the weights of {source!r} take {needed / GIB:.1f} GiB in "
            f"{str(dtype).removeprefix('torch.')}, {device} has {free / GIB:.1f} GiB free. Use a "
            "smaller dtype, device_map='auto' for several devices, or quantization_config"
        )


def device_named(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        InvalidValueError: If there is no such device here.
    """
    check_type("device", device, str | torch.device)
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise InvalidValueError("device", device, "'cpu', 'cuda', 'cuda:N', 'mps'") from error
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InvalidValueError("device", str(device), f"one of the {count} CUDA devices here")
    return where


def dtype_named(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype of that name; None is float32 on the CPU and bfloat16 elsewhere.

    Raises:
        InvalidValueError: If no dtype has that name.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidValueError("dtype", dtype, ", ".join(DTYPES))
    return DTYPES[dtype]
