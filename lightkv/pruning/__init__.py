"""Methods that drop vision tokens during prefill."""

from lightkv.contract.registry import load_folder
from lightkv.pruning.cdpruner import CDPruner
from lightkv.pruning.dart import DART
from lightkv.pruning.divprune import DivPrune
from lightkv.pruning.downsample import Downsample
from lightkv.pruning.fastv import FastV
from lightkv.pruning.hiprune import HiPrune
from lightkv.pruning.hired import HiRED
from lightkv.pruning.prumerge import PruMerge, PruMergePlus
from lightkv.pruning.pyramiddrop import PyramidDrop
from lightkv.pruning.sparsevlm import SparseVLM
from lightkv.pruning.uniform_grid import UniformGrid
from lightkv.pruning.visionzip import VisionZip
from lightkv.pruning.vispruner import VisPruner

load_folder(__name__, __path__)

__all__ = [
    "DART",
    "CDPruner",
    "DivPrune",
    "Downsample",
    "FastV",
    "HiPrune",
    "HiRED",
    "PruMerge",
    "PruMergePlus",
    "PyramidDrop",
    "SparseVLM",
    "UniformGrid",
    "VisPruner",
    "VisionZip",
]
