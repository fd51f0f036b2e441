"""Studies: functions that ask a model, or the cost model, and return one tidy table.

Every study that asks questions takes ``samples``, ``seed`` and ``store``; those that score answers
take ``batch_size`` and ``progress`` as well. Studies that share a store share answers: the full
cache, and any method that two of them compare, is asked once.
"""

from analysis.studies.base import STUDIES, Settings, Study, study
from analysis.studies.costs import memory_breakdown, schedule_cost
from analysis.studies.eviction import budget_ranking_retention_pilot, component_ablation
from analysis.studies.maps import kept_maps, merge_maps
from analysis.studies.merging import single_layer_sweep, window_sweep
from analysis.studies.probing import attention_maps, modality_gap
from analysis.studies.probing_causes import causal_profile
from analysis.studies.probing_grounding import grounding_profile
from analysis.studies.probing_information import information_profile
from analysis.studies.probing_redundancy import redundancy_profile
from analysis.studies.protocols import every_method
from analysis.studies.retention import retention_sweep
from analysis.studies.speed import decode_latency
from analysis.studies.sweep import Cell, sweep

__all__ = [
    "STUDIES",
    "Cell",
    "Settings",
    "Study",
    "attention_maps",
    "budget_ranking_retention_pilot",
    "causal_profile",
    "component_ablation",
    "decode_latency",
    "every_method",
    "grounding_profile",
    "information_profile",
    "kept_maps",
    "memory_breakdown",
    "merge_maps",
    "modality_gap",
    "redundancy_profile",
    "retention_sweep",
    "schedule_cost",
    "single_layer_sweep",
    "study",
    "sweep",
    "window_sweep",
]
