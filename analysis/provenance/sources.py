"""Digests of source code that change with what can change a result, and with nothing else.

A result depends on the modules that make it and on all that they import, directly or not. Comments,
docstrings and what is imported for type checkers don't count, so a corrected sentence discards
nothing. Installed libraries count by their version (:mod:`analysis.provenance.machine`), code of a
user as it is loaded (:mod:`analysis.provenance.loaded`).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

OURS: Final = ("lightkv", "analysis", "figures")
"""Packages of this project."""

_DATA: Final = {
    "analysis.asking.packed": "analysis/stored/results",
    "analysis.asking.question_rows": "analysis/stored",
    "figures.report": "figures/templates",
}
"""Folders of data that a module reads, besides the files that lie beside a package's ``__init__``.
"""

_HARMLESS: Final = ("lightkv.errors", "lightkv.catalogue", "analysis.provenance")
"""What is said when nothing is stored, what builds a method from its name (the method itself counts
with its own modules), and what decides under which key something is."""

_DIGITS: Final = 16


@cache
def revision(modules: frozenset[str], apart: tuple[str, ...] = ()) -> str:
    """Digest of what some modules do; 16 hexadecimal digits.

    Args:
        modules: Names of modules of this project; others don't count.
        apart: Names of packages that don't count, though they are imported.
    """
    digest = hashlib.sha256()
    for name, file in sorted(closure(modules, apart).items()):
        digest.update(f"module {name}\n{_normalised(file)}\n".encode())
        for data in _data(name, file):
            content = data.read_bytes()
            digest.update(f"data {name} {data.name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:_DIGITS]


@cache
def everything() -> str:
    """Digest of every file of this project's packages, as they are; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for package in OURS:
        folder = _folder(package)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            if "__pycache__" not in file.parts:
                content = file.read_bytes()
                name = file.relative_to(folder.parent).as_posix()
                digest.update(f"{name} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()[:_DIGITS]


def closure(modules: Iterable[str], apart: tuple[str, ...] = ()) -> dict[str, Path]:
    """Modules of this project and those that they import, with their files."""
    left_out = (*_HARMLESS, *apart)
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = source_file(name)
        if file is not None and name not in files and not name.startswith(left_out):
            files[name] = file
            waiting += _imports(name, file)
    return files


@cache
def source_file(module: str) -> Path | None:
    """The Python file of a module of this project, None if there is none."""
    root, *inner = module.split(".")
    if root not in OURS:
        return None
    stem = _folder(root).joinpath(*inner)
    for file in (stem / "__init__.py", stem.with_suffix(".py")):
        if file.is_file():
            return file
    return None


@cache
def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent


def _data(name: str, file: Path) -> list[Path]:
    """Files other than Python that a module reads."""
    folders = [file.parent] if file.name == "__init__.py" and "." in name else []
    if name in _DATA:
        package, inner = _DATA[name].split("/", 1)
        folders.append(_folder(package) / inner)
    files = (one for folder in folders if folder.is_dir() for one in folder.iterdir())
    return sorted(one for one in files if one.is_file() and one.suffix not in (".py", ".md"))


@cache
def _tree(file: Path) -> ast.Module:
    """The code of a file without docstrings and imports for type checkers."""
    tree = _Stripped().visit(ast.parse(file.read_bytes()))
    assert isinstance(tree, ast.Module)  # noqa: S101
    return tree


@cache
def _normalised(file: Path) -> str:
    return ast.dump(_tree(file))


class _Stripped(ast.NodeTransformer):
    """Takes out what does nothing when code runs."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """A text on its own is a docstring, or a comment in quotes."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """The branch of type checkers is never taken."""
        self.generic_visit(node)
        name = getattr(node.test, "id", getattr(node.test, "attr", None))
        return node.orelse if name == "TYPE_CHECKING" else node


def _imports(name: str, file: Path) -> Iterator[str]:
    """What a module imports, wherever in it; some of it is not a module of this project."""
    is_package = file.name == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    if is_package:
        yield from _lazy_names(file).values()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node, package)


def _imported_from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """Modules that a ``from ... import`` names, and the one they come from for all other names."""
    base = node.module or ""
    if node.level:
        kept = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*kept, *([node.module] if node.module else [])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if source_file(inner) is not None else _on_first_use(base, alias.name)


def _on_first_use(package: str, name: str) -> str:
    """The module that a package loads for a name when it is first used, else the package."""
    file = source_file(package)
    if file is None or file.name != "__init__.py":
        return package
    return _lazy_names(file).get(name, package)


@cache
def _lazy_names(file: Path) -> dict[str, str]:
    """Names that a package says it loads later, with their modules."""
    tables = (node for node in _tree(file).body if isinstance(node, ast.Assign))
    pairs = (
        (key.value, value.value)
        for table in tables
        if isinstance(table.value, ast.Dict)
        for key, value in zip(table.value.keys, table.value.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
    )
    return {str(name): str(module) for name, module in pairs if source_file(str(module))}
