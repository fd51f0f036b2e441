"""Names of what can carry a run through a model, and of ways to decode; loads nothing heavy."""

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


Decode = Literal["eager", "compiled"]
"""How tokens after the first are made. "compiled" runs every step as one program of
``torch.compile``, equal to "eager" up to rounding; what can't be compiled is refused."""

DECODES: Final[tuple[str, ...]] = get_args(Decode)


def check_decode(decode: str) -> None:
    """Refuse an unknown way to decode.

    Raises:
        InvalidValueError: See above.
    """
    if decode not in DECODES:
        raise InvalidValueError("decode", decode, ", ".join(map(repr, DECODES)))
