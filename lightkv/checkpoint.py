"""The parts of a checkpoint, and what to say where they can't be read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lightkv.errors import InvalidValueError, ModelError, UnknownNameError
from lightkv.families import FAMILIES, Family, family_of


def check_folder(folder: Path, safetensors_only: bool) -> None:
    """Refuse a folder that lacks a part of a checkpoint; raises :class:`ModelError`."""
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


def check_trust(source: str, config: Any, family: Family, trusted: bool) -> None:
    """Refuse code that comes with a checkpoint unless it is trusted; raises :class:`ModelError`."""
    if family.remote_code and not trusted:
        raise ModelError(
            f"{source!r} ({config.model_type}) runs code that comes with the checkpoint; pass "
            "trust_remote_code=True if you trust it"
        )


def config_of(source: str, origin: dict[str, Any]) -> Any:
    """The config of a hub id or folder.

    Args:
        source: Hub id or folder.
        origin: Options that say where files come from (``revision=``, ``token=``, ...).

    Raises:
        ModelError: If there is none, or it can't be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, **origin)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_advice(source, error)) from error


def family_of_config(source: str, config: Any) -> Family:
    """The family of a config's architecture; raises :class:`ModelError` if it is unknown."""
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


def processor_of(source: str, origin: dict[str, Any]) -> Any:
    """The processor of a hub id or folder; arguments and errors as :func:`config_of`."""
    from transformers import AutoProcessor

    # Makes the processors of the embedded models known, wherever their folders lie.
    import lightkv.embedded.fuyu.processing
    import lightkv.embedded.qwen.processing  # noqa: F401

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


def model_of(
    source: str,
    family: Family,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    options: dict[str, Any],
) -> Any:
    """The model of a hub id or folder, with every weight that its config asks for.

    Args:
        source: Hub id or folder.
        family: Its family.
        device: Where to put it, unless an option places it.
        dtype: Of its weights.
        attention: Its attention kernel.
        options: Passed on to ``from_pretrained``.

    Raises:
        InvalidValueError: If ``from_pretrained`` has no such option.
        ModelError: If weights are missing or damaged, or it doesn't fit the device.
    """
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
        raise ModelError(
            f"{source!r} does not fit into the memory of {device}: {error}. Use a smaller dtype, "
            "device_map='auto' for several devices, or quantization_config"
        ) from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(_advice(source, error)) from error
    except TypeError as error:
        names = ", ".join(sorted(options))
        raise InvalidValueError(
            "options", names, f"options of from_pretrained ({error})"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill them with random numbers and go on.
        lost = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(f"{source!r} lacks {len(lost)} weights, {lost[0]} among them")
    return model if "device_map" in options else model.to(device)


def _import_trouble(error: BaseException) -> str | None:
    """What to do about a package that can't be imported, None if none caused an error."""
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
