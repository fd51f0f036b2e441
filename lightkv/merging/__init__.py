"""Methods that merge vision tokens, and the parts they are built of."""

from lightkv.contract.registry import load_folder
from lightkv.merging.lightkv import LightKV, StageSkippedWarning
from lightkv.merging.pitome import PiToMe
from lightkv.merging.tofu import ToFu
from lightkv.merging.tome import ToMe
from lightkv.merging.tome_cache import ToMeCache

load_folder(__name__, __path__)

__all__ = [
    "LightKV",
    "PiToMe",
    "StageSkippedWarning",
    "ToFu",
    "ToMe",
    "ToMeCache",
]
