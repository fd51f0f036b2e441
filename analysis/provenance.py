"""What results depend on besides the question: code, library versions, settings of the model."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable

# Code that decides an answer or its score; a change there makes stored results another thing.
_ANSWERING = ("lightkv", "analysis.tasks")
_SCORING = ("scoring/metrics.py", "scoring/vqa.py")
_SUFFIXES = (".py", ".toml")
_LIBRARIES = ("lightkv", "torch", "transformers", "nnsight")


@cache
def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that compute answers."""
    return {name: metadata.version(name) for name in _LIBRARIES}


@cache
def code_revision() -> str:
    """Digest of the source that answers and scores; 16 hexadecimal digits."""
    files: list[tuple[str, Traversable]] = []
    for package in _ANSWERING:
        files += _sources(package, resources.files(package))
    files += [(name, resources.files("analysis") / name) for name in _SCORING]
    return _digest(files)


@cache
def study_revision() -> str:
    """Digest of all source that a study's table comes from; 16 hexadecimal digits."""
    rooms = ("lightkv", "analysis")
    return _digest([file for room in rooms for file in _sources(room, resources.files(room))])


def _digest(files: list[tuple[str, Traversable]]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files, key=lambda pair: pair[0]):
        content = file.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _sources(prefix: str, folder: Traversable) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found += _sources(name, entry)
        elif entry.name.endswith(_SUFFIXES):
            found.append((name, entry))
    return found
