"""``lightkv evaluate``: tasks x methods x retentions, resumable."""

from __future__ import annotations

from pathlib import Path

import click

from analysis.options import method_options, model_options, table

SUMMARY = "summary.csv"
_SHOWN = ["task", "method", "metric", "n", "score", "low", "high", "kv_share", "token_share"]


@click.command("evaluate")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    default=("embedded/read",),
    show_default=True,
    help="embedded/FAMILY, or folder:FILE.jsonl for a benchmark of your own. Repeatable.",
)
@method_options
@model_options
@click.option("--samples", default=100, show_default=True, help="Questions per task; 0: all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--max-new-tokens", default=None, type=int, help="The task's own by default.")
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
    model: str | None,
    device: str,
    dtype: str | None,
    attention: str,
    samples: int,
    seed: int,
    batch_size: int,
    max_new_tokens: int | None,
    out: Path | None,
) -> None:
    """Ask every method every question and print scores with 95 % intervals."""
    from analysis.evaluation import evaluate
    from analysis.methods import compressors
    from analysis.store import Store
    from analysis.summaries import summarise
    from analysis.tasks import task
    from lightkv import load

    chosen = [task(name) for name in tasks]
    with Store(out) as store:
        vlm = load(model, device=device, dtype=dtype, attention=attention)
        frame = evaluate(
            vlm,
            chosen,
            compressors(methods, retentions, vlm.facts),
            samples=samples or None,
            seed=seed,
            store=store,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )
    summary = summarise(frame)
    click.echo(table(summary[_SHOWN]))
    if out is not None:
        summary.to_csv(out / SUMMARY, index=False)
        click.echo(f"rows in {store.path}, this table in {out / SUMMARY}", err=True)
