"""``lightkv ask``: one question about one picture, with and without compression."""

from __future__ import annotations

from pathlib import Path

import click

from lightkv.engine.drivers import DECODES


@click.command("ask")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--model", default=None, help="Hub id or folder; the embedded model by default.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--method",
    "text",
    default=None,
    help='As "tgvkv:retention=0.2"; several joined by |; see `lightkv list methods`.',
)
@click.option("--max-new-tokens", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--decode", default="eager", show_default=True, type=click.Choice(DECODES))
def ask_command(
    image: Path,
    question: str,
    model: str | None,
    device: str,
    text: str | None,
    max_new_tokens: int,
    seed: int,
    decode: str,
) -> None:
    """Answer QUESTION about the picture in the file IMAGE."""
    from lightkv import load

    vlm = load(model, device=device)
    answer = vlm.ask(
        image,
        question,
        text,
        max_new_tokens=max_new_tokens,
        seed=seed,
        decode=decode,  # type: ignore[arg-type]  # one of DECODES, click sees to it
    )
    click.echo(answer.text)
    record = answer.record
    click.echo(
        f"{record.kv_bytes:,} of {record.full_kv_bytes:,} bytes of KV cache "
        f"({record.achieved_retention:.1%}), method: {text or record.method}",
        err=True,
    )
