"""Model families: one small file each, one line of registration here."""

from __future__ import annotations

from lightkv.errors import UnknownNameError
from lightkv.families.base import Family
from lightkv.families.eve import Eve
from lightkv.families.fuyu import Fuyu
from lightkv.families.gemma3 import Gemma3
from lightkv.families.idefics3 import Idefics3
from lightkv.families.internvl import InternVL
from lightkv.families.llava import Llava
from lightkv.families.llava_next import LlavaNext
from lightkv.families.llava_onevision import LlavaOnevision
from lightkv.families.qwen_vl import Qwen3VL, QwenVL

FAMILIES: tuple[Family, ...] = (
    Llava(),
    LlavaNext(),
    LlavaOnevision(),
    QwenVL(),
    Qwen3VL(),
    InternVL(),
    Gemma3(),
    Idefics3(),
    Fuyu(),
    Eve(),
)


def family_of(model_type: str) -> Family:
    """The family of a ``config.model_type``.

    Raises:
        UnknownNameError: If no family is registered for it.
    """
    by_type = {name: family for family in FAMILIES for name in family.model_types}
    if model_type not in by_type:
        raise UnknownNameError("model family", model_type, by_type)
    return by_type[model_type]


__all__ = ["FAMILIES", "Family", "family_of"]
