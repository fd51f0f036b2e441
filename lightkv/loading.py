"""Load a model by hub id or folder; the embedded model by default."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
import torch

from lightkv.contract.types import check_type
from lightkv.cost.presets import preset, presets
from lightkv.embedded.location import CHECKPOINT
from lightkv.engine.drivers import Driver, check_driver
from lightkv.errors import InvalidValueError, ModelError, UnknownNameError
from lightkv.families import FAMILIES, Family, family_of
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
        name_or_path: A hub id or a local folder; None for the embedded model.
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
        InvalidValueError: If an argument or option is none of the known ones.
        ModelError: If files are missing or damaged, the hub can't be reached, the architecture is
            unknown, the processor can't be built, or memory does not suffice.
    """
    where = device_named(device)
    number_type = dtype_named(dtype, where)
    check_type("attention", attention, Literal["sdpa", "eager"])
    check_type("system", system, str | None)
    check_driver(driver)
    options.setdefault("use_safetensors", True)
    source = located(CHECKPOINT if name_or_path is None else name_or_path)
    name = "embedded" if name_or_path is None else str(name_or_path)
    if Path(source).is_dir():
        _check_folder(Path(source), bool(options["use_safetensors"]))
    origin = {key: options[key] for key in _SOURCE_OPTIONS if key in options}
    config = _config(source, origin)
    family = _family(source, config)
    _check_trust(source, config, family, bool(options.get("trust_remote_code")))
    processor = _processor(source, origin)
    if not (family.remote_code or any(key in options for key in _PLACED_BY_TRANSFORMERS)):
        _check_memory(source, config, where, number_type)
    model = _model(source, family, where, number_type, attention, options)
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
    """The absolute path of a folder, or a hub id as it is.

    Whoever hands a model on to another process resolves it here, where the user typed it.

    Raises:
        InvalidValueError: If it is neither a text nor a path.
        ModelError: If it is written as a path, and there is no such folder.
    """
    check_type("name_or_path", name_or_path, str | Path)
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
    """System sentence of a model's published prompt, if it has to be sent to be there.

    Args:
        hub_id: The model; a folder has no published prompt.
        processor: Its processor.

    Returns:
        None where there is none, or the chat template writes it by itself.
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
        _check_folder(Path(source), safetensors_only=True)
    config = _config(source, {})
    _check_trust(source, config, _family(source, config), False)
    _processor(source, {})


def _check_trust(source: str, config: Any, family: Family, trusted: bool) -> None:
    if family.remote_code and not trusted:
        raise ModelError(
            f"{source!r} ({config.model_type}) runs code that comes with the checkpoint; pass "
            "trust_remote_code=True if you trust it"
        )


def _config(source: str, origin: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, **origin)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_advice(source, error)) from error


def _family(source: str, config: Any) -> Family:
    try:
        return family_of(config.model_type)
    except UnknownNameError as error:
        known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
        raise ModelError(
            f"{source!r} is of the architecture {config.model_type!r}, which is unknown here. "
            f"Known: {known}. To add it: a file in lightkv/families that says how its vision "
            "tokens lie on their grids, a line in lightkv/families/__init__.py, and a tiny config "
            "in lightkv/check/tiny/; then lightkv check --all-tiny"
        ) from error


def _processor(source: str, origin: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    build: Any = AutoProcessor.from_pretrained
    try:
        return build(source, **origin)
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        # Without torchvision transformers fails in several ways, not all of which name it.
        lacks = importlib.util.find_spec("torchvision") is None
        hint = (
            ". The processors of several families need torchvision, which is not installed; "
            f"install the build that belongs to torch {torch.__version__}"
            if lacks
            else ""
        )
        trouble = None if lacks else _import_trouble(error)
        reason = trouble or f"{error}{hint}"
        raise ModelError(f"the processor of {source!r} can't be built: {reason}") from error


def _model(
    source: str,
    family: Family,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    options: dict[str, Any],
) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForCausalLM if family.remote_code else AutoModelForImageTextToText
    build: Any = kind.from_pretrained
    if "quantization_config" in options:
        # Quantised weights can't be moved afterwards.
        options = {"device_map": {"": device}, **options}
    try:
        with _without_bars():
            model, report = build(
                source,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                **options,
            )
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(f"{source!r} does not fit: {error}") from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(_advice(source, error)) from error
    except TypeError as error:
        given = ", ".join(sorted(options))
        raise InvalidValueError(
            "options", given, f"options of from_pretrained ({error})"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill them with random numbers and go on.
        lost = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(f"{source!r} lacks {len(lost)} weights, {lost[0]} among them")
    return model if "device_map" in options else model.to(device)


def _import_trouble(error: BaseException) -> str | None:
    """What to do about a package that can't be imported, None if none is behind an error."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    told = " ".join(map(str, chain))
    # A torchvision that was built for another torch raises a RuntimeError when it is imported.
    if not any(isinstance(one, ImportError) for one in chain) and "torchvision::" not in told:
        return None
    reason = f"an installed package can't be imported ({chain[-1]}); the checkpoint is not to blame"
    if "torchvision" not in told:
        return reason
    return f"{reason}. Install the torchvision that belongs to torch {torch.__version__}"


@contextmanager
def _without_bars() -> Iterator[None]:
    """Progress bars of transformers off for a while."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _advice(source: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    trouble = _import_trouble(error)
    if trouble is not None:
        return f"the model {source!r} can't be loaded: {trouble}"
    if Path(source).is_dir():
        return f"the model in {source!r} can't be loaded (damaged or incomplete?): {reason}"
    return (
        f"{source!r} is not a folder here, and as a hub id it can't be loaded: {reason}. Give the "
        "path of a folder with the checkpoint, or set HF_ENDPOINT to a mirror that you can reach"
    )


def _check_folder(folder: Path, safetensors_only: bool) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{str(folder)!r} holds no checkpoint: config.json missing")
    if not any(folder.glob("*.safetensors")) and (
        safetensors_only or not any(folder.glob("*.bin"))
    ):
        hint = ""
        if safetensors_only and any(folder.glob("*.bin")):
            hint = "; its *.bin files can run code when read: use_safetensors=False if you trust it"
        raise ModelError(f"{str(folder)!r} holds no weights: no *.safetensors file{hint}")
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError(f"{str(folder)!r} holds no tokenizer: tokenizer_config.json missing")


def weight_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of a model's weights, from its config alone."""
    from transformers import AutoModelForImageTextToText

    build: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model = build(config)
    numbers = sum(int(parameter.numel()) for parameter in model.parameters())
    return numbers * dtype.itemsize


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, None where it can't be told."""
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
        InvalidValueError: If there is none of that name.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidValueError("dtype", dtype, ", ".join(DTYPES))
    return DTYPES[dtype]
