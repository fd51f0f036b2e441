"""Command line of the reference cases."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("verify")
@click.argument("directory", type=click.Path(path_type=Path))
@click.pass_context
def verify_command(context: click.Context, directory: Path) -> None:
    """Replay the reference cases in DIRECTORY through this library.

    Prints a line per difference and per skipped case, then the counts. The exit status is 0 only
    if no case failed.
    """
    from lightkv.errors import InputError
    from lightkv.golden.verify import verify

    try:
        report = verify(directory)
    except InputError as error:
        raise click.ClickException(str(error)) from error
    for line in report.lines():
        click.echo(line)
    if report.failed:
        context.exit(1)
