"""Mutation testing with mutmut: a random sample of mutants per room, and what killed none.

``make mutants`` runs it. mutmut keeps its verdicts in ``mutants/``, so a run that was interrupted
goes on where it stopped, and a change of the code or the tests makes new ones of what it touched.

A room is a few files whose tests are quick. mutmut mutates the bodies of functions; what it leaves
out (fields of classes, decorated functions) are defaults and compositions, which
``tests/test_defaults.py`` compares one by one. Texts of errors and warnings are left out here,
what they say is for people to read, and so are ``device=`` arguments, which only an accelerator
notices.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import json
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "mutants"
PAGE = ROOT / "docs" / "mutants.md"
ROOMS = {
    "merging": ["lightkv/merging/*"],
    "pruning": ["lightkv/pruning/*"],
    "eviction": ["lightkv/eviction/*"],
    "attention": ["lightkv/contract/attention.py", "lightkv/contract/attention_sources.py"],
    "reduction": ["lightkv/contract/reduction.py"],
    "allocation": ["lightkv/eviction/parts/allocation.py"],
    "statistics": [
        "analysis/scoring/*",
        "analysis/probing/information.py",
        "analysis/probing/canonical.py",
    ],
}
SURVIVED, UNTESTED = 0, 33
"""mutmut's exit codes for a mutant that its tests let pass, and for one that no test reaches."""


@dataclass(frozen=True)
class Mutant:
    """One mutant of one function.

    Attributes:
        name: mutmut's name of it.
        path: The file, from the root of the project.
        function: The function, with its class.
        change: The lines that differ, with ``-`` and ``+``.
        verdict: mutmut's exit code, None if it was not tried.
    """

    name: str
    path: str
    function: str
    change: tuple[str, ...]
    verdict: int | None

    @property
    def survived(self) -> bool:
        return self.verdict in (SURVIVED, UNTESTED)

    @property
    def line(self) -> str:
        """The change as a row of the page has it."""
        return " ".join(f"`{line}`" for line in self.change)


def mutants(room: str) -> Iterator[Mutant]:
    """All mutants of a room but those of messages and devices, in the order of their names."""
    for path in sorted(KEPT.rglob("*.py.meta")):
        source = str(path.relative_to(KEPT)).removesuffix(".meta")
        if not any(fnmatch.fnmatch(source, pattern) for pattern in ROOMS[room]):
            continue
        verdicts = json.loads(path.read_text())["exit_code_by_key"]
        spans = json.loads(path.with_suffix(".spans").read_text())["spans"]
        lines = (KEPT / source).read_text(encoding="utf-8").splitlines()
        for name, verdict in sorted(verdicts.items()):
            key = name.rpartition(".")[2]
            before, after = (
                lines[start - 1 : stop]
                for start, stop in (spans[re.sub(r"_\d+$", "_orig", key)], spans[key])
            )
            if not (_is_message(before, after) or _is_device(before, after)):
                yield Mutant(name, source, _function(key), _change(before, after), verdict)


def _function(key: str) -> str:
    return key.partition("__mutmut")[0].replace("xǁ", "").replace("ǁ", ".").removeprefix("x_")


def _change(before: list[str], after: list[str]) -> tuple[str, ...]:
    """Changed lines; the first line of a function has another name in every mutant."""
    named = [re.sub(r"__mutmut_\w+", "", line) for line in before]
    renamed = [re.sub(r"__mutmut_\w+", "", line) for line in after]
    marks = difflib.ndiff(named, renamed)
    return tuple(f"{one[0]} {one[2:].strip()}" for one in marks if one[0] in "-+")


def _is_device(before: list[str], after: list[str]) -> bool:
    """True if nothing but a device is left out, which no processor notices."""
    sides = (
        re.sub(r"__mutmut_\w+|\bdevice=[\w.]+|\s", "", "".join(side)) for side in (before, after)
    )
    one, other = (re.sub(",+([,)])", r"\1", side) for side in sides)
    return one == other


def _is_message(before: list[str], after: list[str]) -> bool:
    """True if the change is in what is raised or warned of."""
    differ = [number for number, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b]
    place = next((number for number in differ if "__mutmut_" not in before[number - 1]), 0)
    tree = ast.parse(textwrap.dedent("\n".join(before)))
    for node in ast.walk(tree):
        spoken = isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("warn", "Error"))
        )
        if spoken and node.lineno <= place <= (node.end_lineno or 0):
            return True
    return False


def sample(room: str, size: int, seed: int) -> list[Mutant]:
    """The same mutants for the same code; a larger sample holds a smaller one."""
    population = list(mutants(room))
    order = random.Random(f"{seed} {room}").sample(range(len(population)), len(population))
    return [population[number] for number in order[:size]]


@click.group(help=__doc__)
def main() -> None:
    pass


def of_rooms(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that both commands take."""
    rooms = click.argument("rooms", nargs=-1, type=click.Choice(list(ROOMS)))
    size = click.option("--sample", "size", default=60, show_default=True, help="Of each room.")
    seed = click.option("--seed", default=0, show_default=True, help="Of the sample.")
    return rooms(size(seed(command)))


@main.command()
@of_rooms
@click.option("--again", is_flag=True, help="Try survivors again, after new tests.")
def run(rooms: tuple[str, ...], size: int, seed: int, again: bool) -> None:
    """Try what was not tried yet of each room's sample."""
    mutmut = [str(Path(sys.executable).parent / "mutmut"), "run", "--max-children"]
    workers = str(os.environ.get("WORKERS", "2"))
    # A name that no mutant has: mutmut makes the mutants, finds their tests, and stops.
    subprocess.run([*mutmut, workers, "none"], cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
    waiting = [
        one.name
        for room in rooms or ROOMS
        for one in sample(room, size, seed)
        if one.verdict is None or (again and one.survived)
    ]
    if waiting:
        subprocess.run([*mutmut, workers, *waiting], cwd=ROOT, check=True)


@main.command()
@of_rooms
def report(rooms: tuple[str, ...], size: int, seed: int) -> None:
    """Print the table of the page, and below it the survivors that the page doesn't explain."""
    known = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    click.echo("| room | mutants | sampled | killed | share killed | 95 % interval |")
    click.echo("|---|---|---|---|---|---|")
    unexplained = []
    for room in rooms or ROOMS:
        tried = [one for one in sample(room, size, seed) if one.verdict is not None]
        killed = sum(not one.survived for one in tried)
        unexplained += [one for one in tried if one.survived and one.line not in known]
        if tried:
            between = binomtest(killed, len(tried)).proportion_ci(method="wilson")
            numbers = f"{len(list(mutants(room)))} | {len(tried)} | {killed}"
            share = f"{killed / len(tried):.0%} | {between.low:.0%} to {between.high:.0%}"
            click.echo(f"| {room} | {numbers} | {share} |")
    for one in unexplained:
        click.echo(f"\n{one.path} {one.function} ({one.name})")
        click.echo("\n".join(one.change))


if __name__ == "__main__":
    main()
