"""Methods that merge vision tokens during prefill, and the parts they are built of."""

from lightkv.merging.lightkv import LightKV, StageSkippedWarning
from lightkv.merging.methods import METHODS, method, methods
from lightkv.merging.pitome import PiToMe
from lightkv.merging.tofu import ToFu
from lightkv.merging.tome import ToMe

__all__ = [
    "METHODS",
    "LightKV",
    "PiToMe",
    "StageSkippedWarning",
    "ToFu",
    "ToMe",
    "method",
    "methods",
]
