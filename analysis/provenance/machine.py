"""What produced a result: versions, hardware, model; read without loading the model."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

ANSWERING: Final = ("lightkv", "torch", "transformers", "nnsight")
"""What computes answers."""

SCORING: Final = ("anls-star", "pycocoevalcap", "rouge-score")
"""What scores them."""

LIBRARIES: Final = (*ANSWERING, "numpy", "pandas", "matplotlib", "papermill")
"""What makes results of them."""


@cache
def answering_versions() -> dict[str, str]:
    """Versions of what computes answers."""
    return {name: metadata.version(name) for name in ANSWERING}


@cache
def scoring_versions() -> dict[str, str]:
    """Versions of what scores answers."""
    return {name: metadata.version(name) for name in SCORING}


@cache
def versions() -> dict[str, str]:
    """Python and the libraries that results depend on."""
    installed = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


@cache
def hardware() -> dict[str, str]:
    """Processor, memory, operating system, and accelerators where torch is loaded and has any."""
    import sys

    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 1024**3:.1f} GiB",
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = torch.cuda.device_count()
        parts["accelerators"] = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    return parts


def model_identity(model: str | None) -> str:
    """A digest that changes when a model's files do, read from disk; "none" without a model.

    The embedded models and folders: every file's content up to 16 MiB, else its size and time.
    A hub id: the id and the revision that is cached, if any.
    """
    from lightkv.embedded.location import SHIPPED

    if model is None:
        return "none"
    folder = SHIPPED.get(model) or Path(model).expanduser()
    digest = hashlib.sha256(model.encode())
    if folder.is_dir():
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            stat = file.stat()
            small = stat.st_size <= 16 * 1024**2
            content = file.read_bytes() if small else f"{stat.st_size} {stat.st_mtime_ns}".encode()
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(content)
    else:
        digest.update(_cached_revision(model).encode())
    return digest.hexdigest()[:16]


def model_is_here(model: str) -> bool:
    """Whether a model's files lie on this machine, so that its identity tells one from another."""
    from lightkv.embedded.location import SHIPPED

    folder = SHIPPED.get(model) or Path(model).expanduser()
    return folder.is_dir() or _cached_revision(model) != _NOT_CACHED


_NOT_CACHED: Final = "not cached"


def _cached_revision(model: str) -> str:
    from huggingface_hub import constants

    name = "models--" + model.replace("/", "--")
    reference = Path(constants.HF_HUB_CACHE) / name / "refs" / "main"
    return reference.read_text(encoding="utf-8") if reference.is_file() else _NOT_CACHED


def _processor() -> str:
    """The processor's name as the system tells it."""
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
