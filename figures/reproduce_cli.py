"""``lightkv reproduce``, ``report``, ``notebook`` and ``artefacts``."""

from __future__ import annotations

import ast
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    from figures.reproduce import Step

_RESULTS = click.option(
    "--results", default="results", show_default=True, help="Folder of stored results."
)
_OPTIONS = {"tasks": "--task"}
"""How an option is typed, where it isn't called as the studies call it."""

_OUT = click.option("--out", default="report", show_default=True, help="Folder of the report.")


@click.command("reproduce")
@click.argument("ids", nargs=-1)
@click.option(
    "--model", help="Hub id or folder of a model; default: each artefact's own embedded model."
)
@click.option("--device", help="cpu, cuda, cuda:1, mps; default: cpu.")
@click.option("--dtype", help="float32, bfloat16, float16; default: what suits the device.")
@click.option("--samples", type=int, help="Questions per task; default: each study's own.")
@click.option("--seed", type=int, help="Which questions, and random methods; default: 0.")
@click.option("--task", "tasks", multiple=True, help="A task for the studies; may be repeated.")
@click.option(
    "--jobs", type=int, help="Notebooks at once; default: a core each for the embedded model, or 1."
)
@click.option(
    "--benchmarks",
    is_flag=True,
    help="Ask the paper's own benchmarks, their lite parts, in place of tasks that stand for them; "
    "needs lmms-eval.",
)
@click.option("--full", is_flag=True, help="With --benchmarks: whole benchmarks.")
@click.option(
    "--benchmarks-from",
    "folder",
    type=click.Path(path_type=Path),
    help="With --benchmarks: a folder of task files that stand for lmms-eval's, named as they are.",
)
@click.option(
    "--replay", type=int, help="Which draw of the shipped rows is asked again; default: 0."
)
@click.option(
    "--fresh", is_flag=True, help="Take no rows that ship: ask everything, at each study's number."
)
@_OUT
@_RESULTS
def reproduce_command(
    ids: tuple[str, ...],
    model: str | None,
    device: str | None,
    dtype: str | None,
    samples: int | None,
    seed: int | None,
    tasks: tuple[str, ...],
    jobs: int | None,
    benchmarks: bool,
    full: bool,
    folder: Path | None,
    replay: int | None,
    fresh: bool,
    out: str,
    results: str,
) -> None:
    """Make the artefacts IDS (default: all) and write the report.

    What is complete is taken from the stored results. Where rows ship for an artefact and no option
    changes what it asks, verdicts come from those rows, and a drawn sample of them is asked again
    and compared; the report says how many agree. An option that changes none of the artefacts is an
    error; one that changes only some is named with the artefacts that it does not change. If a
    notebook fails, the others go on, the report says so, and the exit status is 1.
    """
    from figures.models import named
    from figures.reproduce import plan, reproduce, usual_jobs

    options: dict[str, Any] = {
        "model": None if model is None else named(model),
        "device": device,
        "dtype": dtype,
        "samples": samples,
        "seed": seed,
        "tasks": list(tasks) or None,
        "replay": replay,
        "fresh": fresh or None,
    }
    settings = {name: value for name, value in options.items() if value is not None}
    _check(settings if jobs is None else {**settings, "jobs": jobs})
    groups = [(ids, settings)]
    if benchmarks:
        groups = _with_benchmarks(ids, settings, full, folder, results)
    elif full or folder is not None:
        raise InvalidValueError("--full, --benchmarks-from", "given", "with --benchmarks only")
    units = [unit for wanted, chosen in groups for unit in plan(wanted, chosen, results)]
    for wanted, chosen in groups:
        _tell_left_out(wanted, chosen)
    started = time.monotonic()
    command = shlex.join(["lightkv", *sys.argv[1:]])
    at_once = usual_jobs(settings) if jobs is None else jobs
    made = reproduce(units, out, jobs=at_once, tell=_tell, command=command)
    for name, error in made.failures.items():
        click.echo(f"failed: {name}: {error}", err=True)
    click.echo(f"report: {made.report} ({_clock(time.monotonic() - started)})")
    if made.failures:
        raise SystemExit(1)


@click.command("report")
@_OUT
@_RESULTS
def report_command(out: str, results: str) -> None:
    """Write the report from the latest stored results; nothing is run."""
    from figures.report import write_report

    click.echo(f"report: {write_report({}, out, results=results)}")


@click.command("notebook")
@click.argument("name")
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@_RESULTS
def notebook_command(name: str, parameters: tuple[tuple[str, str], ...], results: str) -> None:
    """Run the notebook NAME with parameters, unless that is stored already.

    A VALUE is read as a Python literal where it is one, else as text.
    """
    from figures.models import named
    from figures.notebook import Notebook
    from figures.runner import FAILED, Unit

    settings = {key: _literal(value) for key, value in parameters}
    if isinstance(settings.get("model"), str):
        settings["model"] = named(settings["model"])
    finished = Unit.of(Notebook.named(name), settings, results).run()
    if finished.error is not None:
        click.echo(f"failed: {finished.error}; see {finished.folder / FAILED}", err=True)
        raise SystemExit(1)
    click.echo(f"{'stored already' if finished.reused else 'done'}: {finished.folder}")


@click.command("artefacts")
def artefacts_command() -> None:
    """List all artefacts: id, title, study, usual seconds, and what is missing for some."""
    from figures.artefacts import artefacts

    for one in artefacts():
        how = f"missing: {one.lacking}" if one.lacking else f"{one.study}, {one.seconds:g} s"
        click.echo(f"{one.id:6}{one.title}  [{how}]")


def _with_benchmarks(
    ids: tuple[str, ...],
    settings: dict[str, Any],
    full: bool,
    folder: Path | None,
    results: str,
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Artefacts with the settings that ask their benchmarks; says first what that takes."""
    from figures.benchmarks import ALL, grouped, measure, sources, targets

    if "tasks" in settings:
        raise InvalidValueError("--task", settings["tasks"], "left out: --benchmarks names them")
    groups = grouped(targets(ids), full, folder)
    settings = {"samples": ALL, **settings}

    def say(line: str) -> None:
        click.echo(line, err=True)

    for line in sources([one for group in groups for one in group.tasks], settings.get("model")):
        say(line)
    extent = measure(groups, settings, results, say)
    for name, count in extent.questions.items():
        say(f"{name}: {count:,} questions under {extent.settings[name]} settings")
    say(
        f"{extent.left:,} of {extent.asks:,} answers are to be asked, about "
        f"{_clock(extent.left * extent.seconds)} if each takes as long as those of a first batch "
        f"({extent.seconds:.2g} s)"
    )
    return [(group.artefacts, {**settings, "tasks": list(group.tasks)}) for group in groups]


def _check(settings: dict[str, Any]) -> None:
    """Refuse values that no study can use, before anything runs."""
    from analysis.tasks import task
    from figures.models import check_model

    for name, least in (("samples", 1), ("seed", 0), ("replay", 0), ("jobs", 1)):
        if name in settings and settings[name] < least:
            raise InvalidValueError(f"--{name}", settings[name], f"at least {least}")
    for name in settings.get("tasks", ()):
        task(name)
    check_model(settings.get("model"), settings.get("device"), settings.get("dtype"))


def _tell_left_out(ids: tuple[str, ...], settings: dict[str, Any]) -> None:
    """Artefacts whose model is not here, and options that change nothing about some."""
    from figures.reproduce import absent, without_effect

    for one, models in absent(ids, settings).items():
        lacking = f"the weights of {' and '.join(models)} don't ship yet"
        click.echo(f"{one} is left out: {lacking}", err=True)
    for name, others in without_effect(ids, settings).items():
        option = _OPTIONS.get(name, f"--{name}")
        click.echo(f"{option} has no effect on {', '.join(others)}", err=True)


def _tell(step: Step) -> None:
    """One line when a unit begins and one when it ends."""
    head = f"[{step.number}/{step.total}] {step.unit.name}"
    finished = step.finished
    if finished is None:
        what = " ".join(step.unit.artefacts)
        click.echo(f"{head}: {what} … about {_clock(step.left)} left", err=True)
    elif finished.error is not None:
        click.echo(f"{head}: failed after {_clock(finished.seconds)}", err=True)
    elif finished.reused:
        click.echo(f"{head}: stored already", err=True)
    else:
        click.echo(f"{head}: done in {_clock(finished.seconds)}", err=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
