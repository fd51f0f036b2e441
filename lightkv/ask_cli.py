"""``lightkv ask``: one question about one picture, with and without compression."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("ask")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--model", default=None, help="Hub id or folder; the embedded model by default.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--method", "name", default=None, help="An evictor, see `lightkv list methods`.")
@click.option("--retention", default=0.2, show_default=True, help="Share of the cache to keep.")
@click.option("--max-new-tokens", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True)
def ask_command(
    image: Path,
    question: str,
    model: str | None,
    device: str,
    name: str | None,
    retention: float,
    max_new_tokens: int,
    seed: int,
) -> None:
    """Answer QUESTION about the picture in the file IMAGE."""
    from lightkv import load
    from lightkv.eviction.methods import method

    compressor = method(name, retention) if name is not None else None
    vlm = load(model, device=device)
    answer = vlm.ask(image, question, compressor, max_new_tokens=max_new_tokens, seed=seed)
    click.echo(answer.text)
    record = answer.record
    click.echo(
        f"{record.kv_bytes:,} of {record.full_kv_bytes:,} bytes of KV cache "
        f"({record.achieved_retention:.1%}), method: {record.method}",
        err=True,
    )
