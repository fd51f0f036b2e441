"""Every merging method by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightkv.contract.compressor import Compressor
from lightkv.errors import UnknownNameError
from lightkv.merging.lightkv import LightKV
from lightkv.merging.pitome import PiToMe
from lightkv.merging.tofu import ToFu
from lightkv.merging.tome import ToMe
from lightkv.merging.tome_cache import ToMeCache

METHODS: dict[str, Callable[..., Compressor]] = {
    "lightkv": LightKV,
    "tome": ToMe,
    "pitome": PiToMe,
    "tofu": ToFu,
    "tome-cache": ToMeCache,
}


def method(name: str, **options: Any) -> Compressor:
    """Build a registered method; options are the fields of its class.

    Raises:
        UnknownNameError: If there is no method of that name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name](**options)


def methods() -> dict[str, str]:
    """Registered names with their descriptions."""
    return {name: (build.__doc__ or "").splitlines()[0] for name, build in METHODS.items()}
