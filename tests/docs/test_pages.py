"""What README and the documentation print works as printed: code blocks run, commands parse."""

from __future__ import annotations

import linecache
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from figures.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_SNIPPET = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)
_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in that language."""
    text = page.read_text(encoding="utf-8")
    text = _SNIPPET.sub(lambda snippet: (ROOT / snippet[1]).read_text(encoding="utf-8"), text)
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every shell command in a plain block: page and words."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|", line):
                    words = shlex.split(part, comments=True)
                    while words and "=" in words[0]:
                        words = words[1:]
                    if words and words[0] in ("lightkv", "make"):
                        yield page.name, words


def _name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=_name)
def test_code_runs_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", module)
    names = vars(module)
    for number, block in enumerate(blocks(page, "python")):
        source = f"{page.name}, block {number + 1}"
        # nnsight compiles the bodies of traces from their source.
        lines = (len(block), None, block.splitlines(keepends=True), source)
        monkeypatch.setitem(linecache.cache, source, lines)
        exec(compile(block, source, "exec"), names)


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda value: str(value)[:60])
def test_commands_exist(page: str, words: list[str]) -> None:
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(targets) <= _TARGETS
        return
    command: click.Command = main
    context = click.Context(main, info_name="lightkv")
    rest = words[1:]
    while isinstance(command, click.Group):
        subcommand = command.get_command(context, rest[0])
        assert subcommand is not None, f"{page}: lightkv {rest[0]} is not a command"
        command, rest = subcommand, rest[1:]
    # Values are not read, options have to exist.
    rest = [word for word in rest if not word.startswith("[")]
    command.make_context(words[1], rest, resilient_parsing=True)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_names_tests_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\| `(tests/[\w/.]+)` \|", text)
    assert len(named) == 16 and all((ROOT / name).is_file() for name in named)
