"""Methods that drop vision tokens during prefill."""

from lightkv.contract.registry import load_folder
from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.divprune import DivPrune
from lightkv.pruning.fastv import FastV
from lightkv.pruning.hired import HiRED
from lightkv.pruning.sparsevlm import SparseVLM
from lightkv.pruning.visionzip import VisionZip
from lightkv.pruning.vispruner import VisPruner

load_folder(__name__, __path__)

__all__ = [
    "CDPruner",
    "DivPrune",
    "FastV",
    "HiRED",
    "SparseVLM",
    "VisPruner",
    "VisionZip",
]
