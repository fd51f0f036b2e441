"""Load a model by hub id or folder; the embedded model by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightkv.embedded import CHECKPOINT
from lightkv.errors import InvalidValueError, ModelError
from lightkv.families import family_of
from lightkv.vlm import VLM

# What a checkpoint folder must hold, and what is said when it does not.
REQUIRED_FILES = ("config.json",)
WEIGHT_PATTERNS = ("*.safetensors",)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    attention: str = "sdpa",
    **options: Any,
) -> VLM:
    """Load a vision-language model.

    Args:
        name_or_path: A hub id or a local folder; None for the embedded model.
        device: Where to put it ("cpu", "cuda", "cuda:1", ...).
        dtype: "float32", "bfloat16", "float16" or a torch dtype. Default: float32 on the CPU,
            bfloat16 elsewhere.
        attention: "sdpa" or "eager".
        **options: Passed on to ``from_pretrained`` (``revision=``, ``device_map=``, ...).

    Raises:
        InvalidValueError: If device, dtype or attention is none of the known ones.
        ModelError: If files are missing or damaged, or the hub can't be reached.
        UnknownNameError: If the model's family is not supported.
    """
    where = _device(device)
    number_type = _dtype(dtype, where)
    if attention not in ("sdpa", "eager"):
        raise InvalidValueError("attention", attention, "'sdpa' or 'eager'")
    source = CHECKPOINT if name_or_path is None else name_or_path
    name = "embedded" if name_or_path is None else str(name_or_path)
    folder = Path(source).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        source = folder
    return _from_pretrained(name, str(source), where, number_type, attention, options)


def _from_pretrained(
    name: str,
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    options: dict[str, Any],
) -> VLM:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    hub = {key: options[key] for key in ("revision", "token", "cache_dir") if key in options}
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        family = family_of(config.model_type)
        processor: Any = AutoProcessor.from_pretrained(source, **hub)  # type: ignore[no-untyped-call]
        model: Any
        model, report = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(_advice(source, error)) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill them with random numbers and go on.
        lost = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(f"{source!r} lacks {len(lost)} weights, {lost[0]} among them")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    processor.tokenizer.padding_side = "left"
    if "device_map" not in options:
        model = model.to(device)
    return VLM(name, model.eval(), processor, family)


def _advice(source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return f"the model in {source!r} can't be loaded (damaged or incomplete?): {error}"
    return (
        f"{source!r} is no folder here, and as a hub id it can't be loaded: {error}. Give the path "
        "of a folder with the checkpoint, or set HF_ENDPOINT to a mirror that you can reach"
    )


def _check_folder(folder: Path) -> None:
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{str(folder)!r} holds no checkpoint: {', '.join(missing)} missing")
    if not any(path for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern)):
        raise ModelError(f"{str(folder)!r} holds no weights: no *.safetensors file")
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError(f"{str(folder)!r} holds no tokenizer: tokenizer_config.json missing")


def _device(device: str | torch.device) -> torch.device:
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise InvalidValueError("device", device, "'cpu', 'cuda', 'cuda:N', 'mps'") from error
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InvalidValueError("device", str(device), f"one of the {count} CUDA devices here")
    return where


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InvalidValueError("dtype", dtype, ", ".join(DTYPES))
    return DTYPES[dtype]
