"""The console script: quick help, errors in one line, what fails does not stop the rest."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from figures import cli, reproduce
from figures.artefacts import artefacts, ids
from figures.cli import LazyGroup, commands, main
from figures.runner import Finished, Unit
from lightkv.catalogue import load_module, methods
from lightkv.contract import registry
from lightkv.errors import InputError


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from figures.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'pandas', 'matplotlib', 'papermill'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout


def test_commands_of_every_room_load() -> None:
    group = main
    assert isinstance(group, LazyGroup)
    assert {"reproduce", "report", "notebook", "artefacts", "ask", "cost"} <= set(commands())
    for name in commands():
        result = call(name, "--help")
        assert result.exit_code == 0, (name, result.output)


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
        result = call(*command, "--import", "missing_file.py")
        assert result.exit_code == 2, command
        assert "can't import" in result.stderr and "missing_file.py is not a file" in result.stderr
        assert "--import MODULE" in call(*command, "--help").stdout


OWN = """
from lightkv.contract.registry import register
from lightkv.eviction.evictor import Evicting

@register("{name}")
def two_ends(retention: float, first: int = 4) -> Evicting:
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
    result = call("list", "methods", "--import", file.name)
    assert result.exit_code == 0 and "mine-to-name" in result.stdout
    again = call("list", "methods", "--import", file.name, "--import", str(file))
    assert again.exit_code == 0, "a file that is loaded already is not an error"
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
        (("reproduce", "--model", "/no/such/folder"), "there is no folder '/no/such/folder'"),
        (("reproduce", "--model", "./tests"), "holds no checkpoint"),
        (("reproduce", "--model", "no/such-model"), "'no/such-model' is not a folder here"),
        (("reproduce", "--dtype", "float8"), "dtype is 'float8'"),
        (("reproduce", "--task", "embedded/colour"), "did you mean embedded/color"),
        (("reproduce", "--jobs", "0"), "jobs is 0"),
        (("reproduce", "L-F1", "--samples", "9"), "it has no effect on L-F1, which take models"),
        (("reproduce", "L-F1", "L-T6", "--device", "cpu"), "no effect on L-F1, L-T6"),
        (("reproduce", "--device", "cuda:99"), "device is 'cuda:99'"),
        (("reproduce", "--device", "abacus"), "device is 'abacus'"),
        (("notebook", "artefact"), "did you mean artefacts"),
        (("notebook", "artefacts", "-p", "sample", "3"), "did you mean samples"),
        (("notebook", "artefacts", "-p", "seed", "0", "-p", "out", "3"), "out is 3"),
    ],
)
def test_errors_are_one_line_without_traceback(arguments: tuple[str, ...], says: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_interrupt_says_that_work_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "plan", interrupted)
    result = call("reproduce")
    assert result.exit_code == cli.INTERRUPTED
    assert "finished work is kept" in result.stderr


def test_a_failed_notebook_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def run(unit: Unit) -> Finished:
        ran.append(unit.name)
        error = "ValueError: broken" if unit.name == "costs" else None
        return Finished(unit.folder, 1.0, error=error)

    monkeypatch.setattr(Unit, "run", run)
    out = tmp_path / "report"
    places = ("--out", str(out), "--results", str(tmp_path), "--jobs", "1")
    result = call("reproduce", "T-T5", "L-F6", "L-F1", "--samples", "3", *places)
    assert ran == ["costs", "merging", "eviction"]
    assert result.exit_code == 1
    assert "failed: costs: ValueError: broken" in result.stderr
    assert "--samples has no effect on L-F1" in result.stderr
    assert f"report: {out / 'index.html'}" in result.stdout
    assert "[3/3] eviction: T-T5 … about" in result.stderr
    assert "ValueError: broken" in (out / "index.html").read_text(encoding="utf-8")


def test_units_at_once_come_back_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)

    def run(unit: Unit) -> Finished:
        both.wait()
        return Finished(unit.folder, 1.0, error=f"broken {unit.name}")

    monkeypatch.setattr(Unit, "run", run)
    told: list[reproduce.Step] = []
    units = reproduce.plan(("L-F6", "X-1"), {}, tmp_path)
    made = reproduce.reproduce(units, tmp_path / "report", jobs=2, tell=told.append)
    assert list(made.failures) == ["merging", "retention"]
    assert [step.finished is None for step in told] == [True, True, False, False]
    assert told[0].unit.name == "retention", "the longest goes first"
    assert told[0].left == max(reproduce._usual(unit) for unit in units)
    assert told[-1].left == 0


def test_an_error_in_one_of_several_ends_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped: list[bool] = []

    def run(unit: Unit) -> Finished:
        raise KeyboardInterrupt

    monkeypatch.setattr(Unit, "run", run)
    monkeypatch.setattr(reproduce, "stop_kernels", lambda: stopped.append(True))
    units = reproduce.plan(("L-F6", "T-T5"), {}, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce(units, tmp_path / "report", jobs=2)
    assert stopped == [True]


def test_options_reach_the_units_that_take_them(tmp_path: Path) -> None:
    options = {"samples": 3, "device": "cuda", "tasks": ["embedded/read"]}
    units = {unit.name: unit for unit in reproduce.plan((), options, tmp_path)}
    made = [one for unit in units.values() for one in unit.artefacts]
    here = [one.id for one in artefacts() if not one.absent]
    assert sorted(made) == sorted(here)
    assert set(ids()) - set(here) <= {"L-T3", "T-F4", "T-F6", "T-T9", "X-9"}
    passed = {name: unit.parameters for name, unit in units.items()}
    assert passed["eviction"]["artefacts"] == "T-T1 T-T5"
    assert passed["eviction"]["samples"] == 3 and passed["eviction"]["tasks"] == ["embedded/read"]
    assert passed["eviction"]["device"] == "cuda"
    assert passed["costs"]["samples"] is None and passed["costs"]["device"] == "cpu"
    assert passed["speed"]["samples"] is None and passed["speed"]["tasks"] == ["embedded/read"]
    assert passed["protocols"]["samples"] == 3
    without = reproduce.without_effect(("X-6", "L-F1", "T-T4"), options)
    assert without == {"samples": ("L-F1", "T-T4"), "device": ("L-F1",), "tasks": ("L-F1",)}


@pytest.mark.parametrize(
    ("options", "jobs"),
    [({}, 2), ({"model": "a/b"}, 1), ({"device": "cuda"}, 1), ({"samples": 3}, 2)],
)
def test_small_models_use_every_core(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], jobs: int
) -> None:
    monkeypatch.setattr(reproduce, "_cores", lambda: 2)
    assert reproduce.usual_jobs(options) == jobs
    monkeypatch.setattr(reproduce, "_cores", lambda: 64)
    assert reproduce.usual_jobs({}) == reproduce.MOST_JOBS


def test_artefacts_are_listed() -> None:
    result = call("artefacts")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(ids())
    assert "[component_ablation, " in result.output


def test_the_groups_own_errors_pass_through() -> None:
    group = LazyGroup("x", where={})
    with pytest.raises(SystemExit) as caught:
        group.main(["nothing"])
    assert caught.value.code == 2
    assert issubclass(InputError, Exception)
