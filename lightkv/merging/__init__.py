"""Methods that merge vision tokens during prefill, and the parts they are built of."""

from lightkv.merging.lightkv import LightKV, StageSkippedWarning

__all__ = ["LightKV", "StageSkippedWarning"]
