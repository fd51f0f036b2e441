"""Options that several commands share: which model, which methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import pandas as pd

Command = TypeVar("Command", bound=Callable[..., Any])

_MODEL = (
    click.option("--model", default=None, help="Hub id or folder; the embedded model by default."),
    click.option("--device", default="cpu", show_default=True),
    click.option("--dtype", default=None, help="float32, bfloat16 or float16."),
    click.option(
        "--attention", default="sdpa", show_default=True, type=click.Choice(["sdpa", "eager"])
    ),
)
_METHODS = (
    click.option(
        "--method",
        "methods",
        multiple=True,
        default=("vanilla", "lightkv", "tgvkv", "random"),
        show_default=True,
        help="A name, name:field=value;..., methods joined by |, or all. Repeatable.",
    ),
    click.option(
        "--retention",
        "retentions",
        multiple=True,
        type=float,
        default=(0.2, 0.05),
        show_default=True,
        help="Share of the cache for evictors that name none. Repeatable.",
    ),
)


def model_options(command: Command) -> Command:
    """Options that choose a model."""
    return _with(command, _MODEL)


def method_options(command: Command) -> Command:
    """Options that choose methods."""
    return _with(command, _METHODS)


def table(frame: pd.DataFrame) -> str:
    """A frame as text, numbers with four digits."""
    return frame.to_string(index=False, float_format=lambda number: f"{number:.4g}")


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
