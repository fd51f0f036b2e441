"""lmms-eval, imported without what its import does to the process.

Its import silences every Python warning, and its tasks log under names of their own; neither
reaches us. The evaluator, which replaces log handlers and seeds, is never imported here.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lightkv.errors import UnsupportedError

VERSION: Final = "0.7.3"
"""The version that tasks and scores are tested with."""

INSTALL: Final = (
    'pip install "lightkv[lmms]"',
    f"pip install --no-deps lmms-eval=={VERSION}",
)
"""Two commands: lmms-eval by itself asks for 65 packages that the tasks here don't need."""

MODEL: Final = "lightkv"
"""Our name for tasks that have prompts for certain models."""


@cache
def tasks() -> Any:
    """The module ``lmms_eval.tasks``.

    Raises:
        UnsupportedError: It is not installed, or can't be imported.
    """
    return _imported("lmms_eval.tasks")


@cache
def manager(folder: str | None = None) -> Any:
    """All tasks of the harness, or those of a folder.

    Raises:
        UnsupportedError: As :func:`tasks`.
    """
    if folder is None:
        return tasks().TaskManager(model_name=MODEL)
    return tasks().TaskManager(include_path=folder, include_defaults=False, model_name=MODEL)


def config_of(path: str) -> dict[str, Any]:
    """A task's file with what it includes, its functions imported."""
    read = _imported("lmms_eval.utils").load_yaml_config
    with warnings.catch_warnings():
        config: dict[str, Any] = read(path, mode="full")
    return config


def code_beside(path: str) -> str:
    """Digest of the Python and YAML files in the folder of a task's file; 16 digits."""
    digest = hashlib.sha256()
    for file in sorted(Path(path).parent.iterdir()):
        if file.suffix in (".py", ".yaml", ".yml") or file.name.endswith("_yaml"):
            digest.update(f"{file.name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def version() -> str:
    """The installed version."""
    return metadata.version("lmms-eval")


def _imported(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            module = importlib.import_module(name)
        from loguru import logger
    except ImportError as error:
        raise UnsupportedError(
            f"benchmarks of lmms-eval need it and a few packages ({error}): "
            f"{' and then '.join(INSTALL)}"
        ) from error
    # Task files log under the name that the harness gives them.
    for source in ("lmms_eval", "utils"):
        logger.disable(source)
    return module
