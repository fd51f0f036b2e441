"""``lightkv evaluate``: tasks x methods x retentions x protocols, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.asking.rows import ALL
from analysis.options import method_options, model_options, table
from lightkv.errors import InvalidValueError, LightKVError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tasks import Task

SUMMARY = "summary.csv"
REFUSED = "refused.csv"
ROWS = "rows.csv.gz"
_SHOWN = ["protocol", "task", "method", "metric", "n", "score", "low", "high"]
_SHARES = ["kv_share", "token_share"]


@click.command("evaluate")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    default=("embedded/read",),
    show_default=True,
    help="embedded/KIND, all (of the embedded kinds), embedded-qwen:KIND for pictures of any size, "
    "pairs and videos, folder:FILE.jsonl for questions of your own, or lmms:NAME for a published "
    "benchmark. Repeatable.",
)
@method_options
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=("question-first",),
    show_default=True,
    help="question-first (the papers'), question-agnostic, second-turn, or all. Repeatable.",
)
@model_options
@click.option("--samples", default=100, show_default=True, help="Questions per task; 0: all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--max-new-tokens", default=None, type=int, help="The task's own by default.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Ask the I-th of N parts only, I from 1; processes or machines ask the others, with the "
    "same options and an --out of their own, and lightkv merge joins them.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of results; the same command goes on where it stopped. Default: keep nothing.",
)
def evaluate_command(
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    retentions: tuple[float, ...],
    protocols: tuple[str, ...],
    model: str | None,
    device: str,
    dtype: str | None,
    attention: str,
    samples: int,
    seed: int,
    batch_size: int,
    max_new_tokens: int | None,
    shard: str | None,
    out: Path | None,
) -> None:
    """Ask every method every question and print scores with 95 % intervals.

    A method that can't be used is an error, except with --method all: what does not fit the model,
    the prompts or a protocol is then left out and named with its reason.
    """
    from analysis.asking.evaluation import evaluate
    from analysis.asking.jobs import Shard
    from analysis.asking.method_grid import compressors
    from analysis.asking.opening import UnloadedVLM, open_model
    from analysis.asking.store import Store
    from analysis.scoring.benchmarks import unscored
    from analysis.scoring.summaries import summarise
    from lightkv.protocols import PROTOCOLS

    part = None if shard is None else Shard.read(shard)
    if part is not None and out is None:
        raise InvalidValueError("--out", None, "a folder, to keep the part that --shard asks for")
    wanted = _tasks(tasks, remarks=max_new_tokens is None)
    refused: dict[tuple[str, str, str], str] = {}

    def note(protocol: str, task_name: str, label: str, error: LightKVError) -> None:
        refused.setdefault((protocol, task_name, label), str(error))

    with Store(out) as store:
        vlm = open_model(store, model, device=device, dtype=dtype, attention=attention)
        frame = evaluate(
            vlm,
            wanted,
            compressors(methods, retentions, vlm.facts),
            protocols=tuple(PROTOCOLS) if protocols == (ALL,) else protocols,
            samples=samples or None,
            seed=seed,
            store=store,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            on_refusal=note if ALL in methods else None,
            shard=part,
        )
    if isinstance(vlm, UnloadedVLM) and not vlm.is_loaded:
        click.echo("nothing was left to ask, so the model was not loaded", err=True)
    summary, left_out = summarise(frame), _left_out(refused)
    _print(summary, unscored(frame), left_out, shard)
    if out is not None and part is None:
        _write(out, summary, left_out, frame)
        click.echo(f"answers in {store.path}, this table in {out / SUMMARY}", err=True)


def _tasks(names: tuple[str, ...], *, remarks: bool) -> list[Task]:
    """The tasks of some names; says what they remark on if that is wanted."""
    from analysis.tasks import task
    from analysis.tasks.embedded import EVERY_KIND

    wanted = [task(name) for name in (EVERY_KIND if names == (ALL,) else names)]
    for remark in (note for one in wanted for note in one.notes if remarks):
        click.echo(remark, err=True)
    return wanted


def _write(out: Path, summary: pd.DataFrame, left_out: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Tables beside the store: scores, what was refused, and every row."""
    from analysis.asking.question_rows import write_rows

    summary.to_csv(out / SUMMARY, index=False, float_format="%.6g")
    left_out.to_csv(out / REFUSED, index=False)
    write_rows(frame, out / ROWS)


def _left_out(refused: Mapping[tuple[str, str, str], str]) -> pd.DataFrame:
    """A table of what was refused, with the reason of each."""
    import pandas as pd

    cells = [(*cell, reason) for cell, reason in refused.items()]
    return pd.DataFrame(cells, columns=["protocol", "task", "method", "reason"])


def _print(
    summary: pd.DataFrame, without: Sequence[str], left_out: pd.DataFrame, shard: str | None
) -> None:
    """The table of scores on stdout, remarks on stderr."""
    if without:
        click.echo(f"no number is made here of {', '.join(without)}", err=True)
    if shard is not None:
        click.echo(f"part {shard} of the questions; lightkv merge joins the parts", err=True)
    click.echo(table(summary[_SHOWN + _SHARES]))
    if len(left_out):
        click.echo(f"\nleft out:\n{table(left_out)}", err=True)
