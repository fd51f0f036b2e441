"""Names of what can carry a run through a model; loads nothing heavy, for command lines."""

from __future__ import annotations

from typing import Final, Literal, get_args

from lightkv.errors import InvalidValueError

Driver = Literal["auto", "nnsight", "hooks"]
"""What carries a run through the model. "auto" is nnsight wherever something observes or
intervenes, and hooks where a compressor runs alone or a trace of the user's own is running."""

DRIVERS: Final[tuple[str, ...]] = get_args(Driver)


def check_driver(driver: str) -> None:
    """Refuse an unknown driver.

    Raises:
        InvalidValueError: See above.
    """
    if driver not in DRIVERS:
        raise InvalidValueError("driver", driver, ", ".join(map(repr, DRIVERS)))
