"""Digests of code that comes from outside this project, as it is loaded.

A user's ranking, task or metric may come from a file, a notebook or an installed plugin, and may
have been edited and loaded again since. So what is digested is what would run: the instructions of
its methods, the functions, classes and values that they refer to in the user's own modules, what
they close over, and attributes of its classes. Comments, docstrings and line numbers don't count.
Installed libraries that such code uses don't either.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from analysis.provenance.identity import described, parts_of
from analysis.provenance.sources import OURS
from lightkv.errors import UnsupportedError

_WRITTEN_BY_DATACLASS: Final = frozenset(
    ("__init__", "__eq__", "__repr__", "__hash__", "__setattr__", "__delattr__", "__replace__")
)
_BOOKKEEPING: Final = frozenset(("_abc_impl",))


def loaded_code(parts: Iterable[object]) -> str:
    """Digest of the code from outside that some objects, classes or functions are made of.

    Returns:
        16 hexadecimal digits, "" if all of it is of this project or of the standard library.

    Raises:
        UnsupportedError: A value that the code refers to can't be read, so that a change of it
            would go unnoticed.
    """
    roots = [definition(part) for part in parts]
    walk = _Walk(frozenset(_package(root) for root in roots))
    for root in roots:
        walk.add(root)
    if not walk.lines:
        return ""
    return hashlib.sha256("\n".join(walk.lines).encode()).hexdigest()[:16]


class _Walk:
    """Lines that describe what was reached, each thing once, in the order it was reached."""

    def __init__(self, packages: frozenset[str]) -> None:
        self.lines: list[str] = []
        self._packages = packages
        self._seen: dict[int, object] = {}

    def add(self, thing: Any) -> None:
        """A class or a function; what is not from outside is skipped."""
        if id(thing) in self._seen or not isinstance(thing, type | types.FunctionType):
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, type):
            for base in thing.__mro__[1:]:
                self.add(base)
        if not self._is_outside(str(thing.__module__)):
            for cell in getattr(thing, "__closure__", None) or ():
                self.add(_contents(cell))
            return
        self.lines.append(f"{type(thing).__name__} {thing.__module__}.{thing.__qualname__}")
        if isinstance(thing, type):
            self._add_class(thing)
        else:
            self._add_function(thing)

    def _add_class(self, kind: type) -> None:
        is_dataclass = "__dataclass_params__" in vars(kind)
        for name, value in sorted(vars(kind).items()):
            functions = _functions(value)
            if is_dataclass and name in _WRITTEN_BY_DATACLASS:
                functions = [one for one in functions if one.__code__.co_filename != "<string>"]
            for function in functions:
                self.lines.append(f"method {name}")
                self._add_function(function)
            if not (functions or name.startswith("__") or name in _BOOKKEEPING):
                self._add_value(f"{kind.__qualname__}.{name}", value)

    def _add_function(self, function: types.FunctionType) -> None:
        self._add_code(function.__code__)
        for value in (function.__defaults__ or (), function.__kwdefaults__ or {}):
            self._add_value(f"defaults of {function.__qualname__}", value)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name != "__class__":
                self._add_value(f"{name} in {function.__qualname__}", _contents(cell))
        names = sorted(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                self._add_global(name, function.__globals__[name], names)

    def _add_global(self, name: str, value: object, names: list[str]) -> None:
        """What a function reaches by a global name; of a module, what it may take from it."""
        if not isinstance(value, types.ModuleType):
            self._add_value(name, value)
        elif self._is_outside(value.__name__):
            for inner in names:
                if hasattr(value, inner):
                    self._add_global(f"{name}.{inner}", getattr(value, inner), [])

    def _add_value(self, name: str, value: object) -> None:
        if isinstance(value, _WITHOUT_CODE):
            return
        if isinstance(value, types.MethodType):
            self._add_value(name, value.__func__)
            value = value.__self__
        elif isinstance(value, functools.partial):
            self._add_value(name, value.func)
            value = (value.args, value.keywords)
        if isinstance(value, type | types.FunctionType):
            self.add(value)
            self.lines.append(f"{name} is {value.__module__}.{value.__qualname__}")
        elif functions := _functions(value):
            for function in functions:
                self._add_value(name, function)
        else:
            for part in parts_of(value):
                self.add(type(part))
            self.lines.append(f"{name} = {_printed(name, value)}")

    def _add_code(self, code: types.CodeType) -> None:
        """Instructions with their arguments; independent of where in the file they stand."""
        for step in dis.get_instructions(code):
            if isinstance(step.argval, types.CodeType):
                self.lines.append(f"{step.opname} {step.argval.co_name}")
                self._add_code(step.argval)
            elif isinstance(step.argval, frozenset):
                self.lines.append(f"{step.opname} {sorted(map(repr, step.argval))}")
            else:
                self.lines.append(f"{step.opname} {step.argval!r}")

    def _is_outside(self, module: str) -> bool:
        root = module.partition(".")[0]
        if root in OURS or root in sys.stdlib_module_names:
            return False
        if root in self._packages:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is None or not any(Path(file).is_relative_to(one) for one in _libraries())


_WITHOUT_CODE: Final = (
    types.ModuleType,
    types.BuiltinFunctionType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
)
"""What has no code of its own, or is itself a library's."""


def definition(part: object) -> type | Callable[..., Any]:
    """A class or function, or the class of an instance."""
    return part if isinstance(part, type | types.FunctionType) else type(part)


def _package(thing: type | Callable[..., Any]) -> str:
    return str(thing.__module__).partition(".")[0]


def _functions(value: object) -> list[types.FunctionType]:
    """Functions behind a class attribute."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    candidates = [value]
    if isinstance(value, property):
        candidates = [value.fget, value.fset, value.fdel]
    elif isinstance(value, functools.cached_property):
        candidates = [value.func]
    elif not isinstance(value, types.FunctionType | type) and hasattr(value, "__wrapped__"):
        candidates = [value.__wrapped__]
    return [one for one in candidates if isinstance(one, types.FunctionType)]


def _names(code: types.CodeType) -> set[str]:
    """Names that code, and the functions inside it, look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _printed(name: str, value: object) -> str:
    """A value, or a digest of it."""
    try:
        return described(value)
    except UnsupportedError:
        pass
    try:
        return hashlib.sha256(_serialised(value)).hexdigest()
    except Exception as error:
        raise UnsupportedError(
            f"{name} is a {type(value).__name__}, a change of which can't be noticed, so results "
            "that depend on it can't be stored: make it a field of the method, a number or a text"
        ) from error


def _serialised(value: Any) -> bytes:
    """Bytes that are equal in every process; tensors pickle with the address of their numbers."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "untyped_storage"):
        import torch

        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        content: bytes = flat.tobytes()
        return f"{value.dtype} {tuple(value.shape)} ".encode() + content
    return pickle.dumps(value)


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Folders of installed libraries."""
    named = sysconfig.get_paths()
    folders = {named[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(map(Path, (*folders, *site.getsitepackages(), site.getusersitepackages())))
