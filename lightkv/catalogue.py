"""All methods under one roof, by name, and methods written as text.

A method is a registered name, optionally with ``:field=value`` pairs separated by ``;``, values
written as Python literals: ``tgvkv:retention=0.2``, ``fastv:removed=0.75``. ``|`` composes: merge
or prune in prefill, then evict. Merging methods without a schedule get LightKV's, carried over to
the model's depth.

Methods come from the rooms of the package, from other distributions (entry points of the group
``lightkv.methods``, each a module that registers when it is imported), and from modules that the
user names (:func:`load_module`).
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightkv.eviction
import lightkv.pruning  # noqa: F401 - importing a room registers its methods
from lightkv.contract import registry
from lightkv.contract.compressor import Compressor
from lightkv.contract.registry import ENTRIES, RETENTION, Method
from lightkv.contract.types import check_type
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.merging.schedule import scaled

ENTRY_POINTS = "lightkv.methods"
IMPORTS = "LIGHTKV_IMPORT"
"""Environment variable: modules of the user that every process loads, written like PATH."""

_SCHEDULE = ("layers", "windows", "ratios")


def methods() -> dict[str, Method]:
    """Every method there is, by name, in alphabetical order."""
    _load()
    return registry.registered()


def method(name: str, retention: float | None = None, **options: Any) -> Compressor:
    """Build a method by name; see :func:`lightkv.contract.registry.method`."""
    _load()
    return registry.method(name, retention, **options)


@functools.cache
def _load() -> None:
    """Import what other distributions offer, and what the user named for all processes."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            # One broken distribution must not take every other method away.
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"the methods of {point.value} can't be loaded: {reason}", stacklevel=3)
    for name in user_modules():
        _import(name)


def load_module(name: str) -> tuple[str, ...]:
    """Import a user's module, so that the methods that it registers are known.

    Args:
        name: A module as Python imports it, or the path of a ``.py`` file.

    Returns:
        Names of the methods that it added.

    Raises:
        InputError: There is no such module or file, or importing it fails.
    """
    before = set(methods())
    _import(name)
    return tuple(sorted(set(methods()) - before))


def load_everywhere(names: Sequence[str]) -> None:
    """As :func:`load_module`, also in processes that are started from now on, as kernels are.

    Raises:
        InputError: There is no such module or file, or importing it fails.
    """
    whole = [str(Path(name).resolve()) if name.endswith(".py") else name for name in names]
    for name in whole:
        load_module(name)
    os.environ[IMPORTS] = os.pathsep.join(dict.fromkeys((*user_modules(), *whole)))


def user_modules() -> tuple[str, ...]:
    """Modules, or paths of files, that :func:`load_everywhere` was given."""
    return tuple(name for name in os.environ.get(IMPORTS, "").split(os.pathsep) if name)


def user_files() -> dict[str, Path]:
    """Names or paths of :func:`user_modules` with the files that they were loaded from."""
    loaded = {
        name: sys.modules.get(Path(name).stem if name.endswith(".py") else name)
        for name in user_modules()
    }
    files = {name: getattr(module, "__file__", None) for name, module in loaded.items()}
    return {name: Path(file) for name, file in files.items() if file is not None}


def _import(name: str) -> None:
    try:
        if name.endswith(".py"):
            _import_file(Path(name))
        else:
            importlib.import_module(name)
    except Exception as error:
        raise InputError(f"can't import {name}: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> None:
    loaded = getattr(sys.modules.get(path.stem), "__file__", None)
    if loaded is not None and Path(loaded).resolve() == path.resolve():
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    if path.stem in sys.modules:
        raise ImportError(f"a module named {path.stem} is already loaded; rename the file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it runs.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def compressor(text: str, facts: ModelFacts) -> Compressor:
    """The compressor that a text names.

    Args:
        text: One method, or several joined by ``|``.
        facts: The model, whose depth a merging schedule is carried over to.

    Raises:
        UnknownNameError: A name is in no registry.
        InvalidValueError: A field is unknown, badly written or out of range, or missing.
    """
    check_type("a method", text, str)
    return composed(read(text, facts), {})


MethodLike = Compressor | str | None
"""A method as a user may pass it: built, written as text, or None for the full cache."""


def resolved(method: MethodLike, facts: ModelFacts) -> Compressor | None:
    """The compressor that a user passed or wrote.

    Raises:
        UnknownNameError, InvalidValueError: If it is neither, or as :func:`compressor` says.
    """
    if isinstance(method, str):
        return compressor(method, facts)
    if method is not None and not isinstance(method, Compressor):
        shown = method.__name__ if isinstance(method, type) else method
        allowed = "a method such as TGVKV(retention=0.2), its text 'tgvkv:retention=0.2', or None"
        raise InvalidValueError("compressor", shown, allowed)
    return method


@dataclass(frozen=True)
class Part:
    """One method with its options, not built yet.

    Attributes:
        method: The method.
        options: Options that the text sets.
        wants_retention: True for an evictor whose text sets no retention.
    """

    method: Method
    options: Mapping[str, Any]
    wants_retention: bool

    def make(self, more: Mapping[str, Any]) -> Compressor:
        """Build it; ``more`` options go to a part that wants a retention.

        Raises:
            InvalidValueError: An option is not known, is missing or has a value of a wrong type.
        """
        options = {**self.options, **(more if self.wants_retention else {})}
        if self.wants_retention and RETENTION not in options:
            raise InvalidValueError(f"{RETENTION} of {self.method.name}", "missing", "a value")
        return self.method.make(**options)


def read(text: str, facts: ModelFacts) -> list[Part]:
    """The parts of a method written as text; raises as :func:`compressor` does."""
    return [_part(one, facts) for one in text.split("|")]


def composed(parts: Sequence[Part], more: Mapping[str, Any]) -> Compressor:
    """Build the parts and join them."""
    return functools.reduce(lambda a, b: a | b, (part.make(more) for part in parts))


def _part(text: str, facts: ModelFacts) -> Part:
    name, _, assignments = text.strip().partition(":")
    known = methods()
    if name not in known:
        raise UnknownNameError("method", name, known)
    options: dict[str, Any] = {}
    for one in filter(str.strip, assignments.split(";")):
        field, value = _assignment(name, one)
        if field in options:
            raise InvalidValueError(f"option of {name}", one, f"{field} once")
        options[field] = value
    method = known[name]
    if method.takes_retention:
        return Part(method, options, not {RETENTION, ENTRIES} & set(options))
    needed = set(method.required)
    if needed and needed <= set(_SCHEDULE) and not needed & set(options):
        schedule = scaled(facts.layers)
        options = {field: getattr(schedule, field) for field in method.required} | options
    return Part(method, options, False)


def _assignment(method: str, text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise InvalidValueError(f"option of {method}", text, "field=value")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        # A bare word is a text: guidance=uniform.
        return name.strip(), value.strip()
