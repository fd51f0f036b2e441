"""Methods that drop vision tokens during prefill."""

from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.divprune import DivPrune
from lightkv.pruning.fastv import FastV
from lightkv.pruning.hired import HiRED
from lightkv.pruning.sparsevlm import SparseVLM
from lightkv.pruning.visionzip import VisionZip
from lightkv.pruning.vispruner import VisPruner

__all__ = [
    "CDPruner",
    "DivPrune",
    "FastV",
    "HiRED",
    "SparseVLM",
    "VisPruner",
    "VisionZip",
]
