"""``lightkv reproduce``, ``report``, ``notebook`` and ``artefacts``."""

from __future__ import annotations

import ast
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from figures.reproduce import Step

_RESULTS = click.option(
    "--results", default="results", show_default=True, help="Folder of stored results."
)
_OUT = click.option("--out", default="report", show_default=True, help="Folder of the report.")


@click.command("reproduce")
@click.argument("ids", nargs=-1)
@click.option("--model", help="Hub id or folder of a model; default: the embedded model.")
@click.option("--device", help="cpu, cuda, cuda:1, mps; default: cpu.")
@click.option("--dtype", help="float32, bfloat16, float16; default: what suits the device.")
@click.option("--samples", type=int, help="Questions per task; default: each study's own.")
@click.option("--seed", type=int, help="Which questions, and random methods; default: 0.")
@click.option("--task", "tasks", multiple=True, help="A task for the studies; may be repeated.")
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
    out: str,
    results: str,
) -> None:
    """Make the artefacts IDS (default: all) and write the report.

    What is complete is taken from the stored results. If a notebook fails, the others go on, the
    report says so, and the exit status is 1.
    """
    from figures.reproduce import plan, reproduce

    options: dict[str, Any] = {
        "model": model,
        "device": device,
        "dtype": dtype,
        "samples": samples,
        "seed": seed,
        "tasks": list(tasks) or None,
    }
    _check(options)
    given = {name: value for name, value in options.items() if value is not None}
    units = plan(ids, given, results)
    started = time.monotonic()
    command = shlex.join(["lightkv", *sys.argv[1:]])
    made = reproduce(units, out, tell=_tell, command=command)
    for name, error in made.failures.items():
        click.echo(f"failed: notebook {name}: {error}", err=True)
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
    from figures.notebook import Notebook
    from figures.runner import FAILED, Unit

    given = {key: _literal(value) for key, value in parameters}
    finished = Unit.of(Notebook.named(name), given, results).run()
    if finished.error is not None:
        click.echo(f"failed: {finished.error}; see {finished.folder / FAILED}", err=True)
        raise SystemExit(1)
    click.echo(f"{'stored already' if finished.reused else 'done'}: {finished.folder}")


@click.command("artefacts")
def artefacts_command() -> None:
    """List all artefacts: id, title, and the notebook that makes each."""
    from figures.artefacts import artefacts, notebook_of

    for one in artefacts():
        click.echo(f"{one.id:6}{one.title}  [{notebook_of(one.id)}]")


def _check(options: dict[str, Any]) -> None:
    """Refuse values that no study can use, before anything is loaded."""
    from figures.models import check_model
    from lightkv.errors import InvalidValueError

    check_model(options["model"], options["device"])
    samples, seed = options["samples"], options["seed"]
    if samples is not None and samples < 1:
        raise InvalidValueError("--samples", samples, "at least 1")
    if seed is not None and seed < 0:
        raise InvalidValueError("--seed", seed, "at least 0")


def _tell(step: Step) -> None:
    """One line before a notebook and one after it."""
    head = f"[{step.number}/{step.total}] {step.notebook}"
    found = step.finished
    if found is None:
        click.echo(f"{head} … about {_clock(step.left)} left", err=True)
    elif found.error is not None:
        click.echo(f"{head}: failed after {_clock(found.seconds)}", err=True)
    elif found.reused:
        click.echo(f"{head}: stored already", err=True)
    else:
        click.echo(f"{head}: done in {_clock(found.seconds)}", err=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
