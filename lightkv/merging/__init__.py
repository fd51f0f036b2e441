"""Methods that merge vision tokens, and the parts they are built of."""

from lightkv.merging.lightkv import LightKV, StageSkippedWarning
from lightkv.merging.pitome import PiToMe
from lightkv.merging.tofu import ToFu
from lightkv.merging.tome import ToMe
from lightkv.merging.tome_cache import ToMeCache

__all__ = [
    "LightKV",
    "PiToMe",
    "StageSkippedWarning",
    "ToFu",
    "ToMe",
    "ToMeCache",
]
