"""Names of what can carry a run through a model, and of ways to decode; loads nothing heavy."""

from __future__ import annotations

from typing import Final, Literal, get_args

Driver = Literal["auto", "nnsight", "hooks"]
"""What carries a run through the model. "auto" is nnsight wherever something observes or
intervenes, and hooks where a compressor runs alone or a trace of the user's own is running."""

DRIVERS: Final[tuple[str, ...]] = get_args(Driver)

Decode = Literal["eager", "compiled"]
"""How tokens after the first are made. "compiled" runs every step as one program of
``torch.compile``, equal to "eager" up to rounding; what can't be compiled is refused."""

DECODES: Final[tuple[str, ...]] = get_args(Decode)
