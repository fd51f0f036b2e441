"""Typed errors: each names the value at fault and what is allowed instead.

Every error a user can cause derives from :class:`LightKVError`, so that one ``except`` catches
what the library raises on purpose and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 60
"""Known names that a message lists at most."""


class LightKVError(Exception):
    """Base of every error that lightkv raises on purpose."""


class InvalidValueError(LightKVError, ValueError):
    """A parameter lies outside its allowed range.

    Args:
        name: The parameter as the user wrote it.
        value: The value that was given.
        allowed: The allowed range, in words.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} is {value!r}; allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class UnknownNameError(LightKVError, KeyError):
    """A name that is in no registry; the message lists the nearest known ones.

    Args:
        kind: What was looked up ("method", "artefact", "model", ...).
        name: The name that was given.
        known: All known names of that kind.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        listed = ", ".join(names[:SHOWN]) + more
        super().__init__(f"unknown {kind} {name!r}; {hint}known: {listed or 'none'}")
        self.kind = kind
        self.name = str(name)
        self.known = tuple(names)

    def __str__(self) -> str:
        return str(self.args[0])


class InputError(LightKVError, ValueError):
    """The image or the question can't be used (missing, empty, unreadable, of a wrong type)."""


class ModelError(LightKVError):
    """A model or its processor can't be loaded, or is of a family that is not supported."""


class UnsupportedError(LightKVError):
    """A combination of settings for which compression would be silently wrong is refused."""


class RetentionMismatchError(LightKVError):
    """A run kept more or fewer entries than requested, beyond protection and rounding."""


class StoreError(LightKVError):
    """Results can't be written or read (disk full, damaged file, results of another format)."""


class ShadowedError(LightKVError, ImportError):
    """Another module has the name of a package of this project and is found first.

    Args:
        package: The name that both have.
        origin: File that Python finds.
        wanted: Folder of the package.
    """

    def __init__(self, package: str, origin: str, wanted: str) -> None:
        super().__init__(
            f"{package!r} is {origin} here and hides the package of that name in {wanted}: rename "
            "that file or folder, or run from another folder"
        )
        self.name = package
