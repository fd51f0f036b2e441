"""The console script: quick help, errors in one line, what fails does not stop the rest."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from figures import cli, reproduce
from figures.cli import LazyGroup, commands, main
from figures.runner import Finished, Unit
from lightkv.catalogue import load_module, methods
from lightkv.contract import registry
from lightkv.errors import InputError


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from figures.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'papermill'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1.0


def test_commands_of_every_room_load() -> None:
    group = main
    assert isinstance(group, LazyGroup)
    assert {"reproduce", "report", "notebook", "artefacts", "ask", "cost"} <= set(commands())
    for name in commands():
        found = call(name, "--help")
        assert found.exit_code == 0, (name, found.output)


def leaves(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*above, name))
        else:
            yield (*above, name)


def test_every_command_imports_what_the_user_names() -> None:
    commands_below = list(leaves(main))
    assert ("bench", "methods") in commands_below and ("evaluate",) in commands_below
    for command in commands_below:
        found = call(*command, "--import", "missing_file.py")
        assert found.exit_code == 2, command
        assert "can't import" in found.stderr and "missing_file.py is not a file" in found.stderr
        assert "--import MODULE" in call(*command, "--help").stdout


OWN = """
from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting

@register("{name}")
def own(retention: float, first: int = 4) -> Evicting:
    \"\"\"Mine.\"\"\"
    return Evicting(retention=retention, protect_first=first)
"""


def test_an_imported_method_can_be_named_here_and_in_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTKV_IMPORT", "")
    monkeypatch.setattr(registry, "_METHODS", methods())
    file = tmp_path / "mine_to_name.py"
    file.write_text(OWN.format(name="mine-to-name"))
    monkeypatch.chdir(tmp_path)
    found = call("list", "methods", "--import", file.name)
    assert found.exit_code == 0 and "mine-to-name" in found.stdout
    again = call("list", "methods", "--import", file.name, "--import", str(file))
    assert again.exit_code == 0, "a file that is loaded already is no error"
    # A kernel starts elsewhere, in the environment of this process.
    script = "from lightkv.catalogue import method; print(method('mine-to-name', 0.5, first=2))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True
    )
    assert "protect_first=2" in done.stdout
    del sys.modules["mine_to_name"]


def test_an_imported_module_is_part_of_what_a_notebook_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> str:
        return reproduce.plan(("X-1",), {}, tmp_path)[0].key

    file = tmp_path / "counted.py"
    file.write_text("x = 1")
    keys = [key()]
    monkeypatch.setenv("LIGHTKV_IMPORT", str(file))
    load_module(str(file))
    keys.append(key())
    file.write_text("x = 2")
    keys.append(key())
    assert len(set(keys)) == 3
    del sys.modules["counted"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reproduce", "T-T55"), "did you mean T-T5"),
        (("reproduce", "--samples", "0"), "--samples is 0"),
        (("reproduce", "--seed", "-1"), "--seed is -1"),
        (("reproduce", "--model", "/no/such/folder"), "'/no/such/folder' holds no model"),
        (("reproduce", "--device", "cuda:99"), "--device is 'cuda:99'"),
        (("reproduce", "--device", "abacus"), "--device is 'abacus'"),
        (("notebook", "ablatoin"), "did you mean ablation"),
        (("notebook", "ablation", "-p", "sample", "3"), "did you mean samples"),
        (("notebook", "ablation", "-p", "samples", "many"), "samples is 'many'"),
    ],
)
def test_errors_are_one_line_without_traceback(arguments: tuple[str, ...], says: str) -> None:
    found = call(*arguments)
    assert found.exit_code == 2
    assert found.stderr.startswith("Error: ")
    assert says in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_an_interrupt_says_that_work_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "plan", interrupted)
    found = call("reproduce")
    assert found.exit_code == cli.INTERRUPTED
    assert "finished work is kept" in found.stderr


def test_a_failed_notebook_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def run(unit: Unit) -> Finished:
        ran.append(unit.notebook.name)
        error = "ValueError: broken" if unit.notebook.name == "cost" else None
        return Finished(unit.folder, 1.0, error=error)

    monkeypatch.setattr(Unit, "run", run)
    out = tmp_path / "report"
    places = ("--out", str(out), "--results", str(tmp_path))
    found = call("reproduce", "L-F1", "L-F6", "T-T5", "--samples", "3", *places)
    assert ran == ["ablation", "cost", "layer_sweep"]
    assert found.exit_code == 1
    assert "notebook cost: ValueError: broken" in found.stderr
    assert f"report: {out / 'index.html'}" in found.stdout
    assert "[3/3]" in found.stderr and "left" in found.stderr
    assert "ValueError: broken" in (out / "index.html").read_text(encoding="utf-8")


def test_options_reach_the_notebooks_that_have_them(tmp_path: Path) -> None:
    options = {"samples": 3, "device": "cuda", "tasks": ["embedded/read"]}
    units = {u.notebook.name: u.parameters for u in reproduce.plan((), options, tmp_path)}
    assert len(units) == 14
    assert units["ablation"]["samples"] == 3
    assert units["ablation"]["device"] == "cuda"
    assert units["pilot"]["tasks"] == ["embedded/read"]
    assert "samples" not in units["cost"]


def test_artefacts_are_listed() -> None:
    found = call("artefacts")
    assert found.exit_code == 0
    assert len(found.output.splitlines()) == 19


def test_the_groups_own_errors_pass_through() -> None:
    group = LazyGroup("x", where={})
    with pytest.raises(SystemExit) as caught:
        group.main(["nothing"])
    assert caught.value.code == 2
    assert issubclass(InputError, Exception)
