"""How answers to the embedded model's kinds of questions are scored."""

from __future__ import annotations

from typing import Final

_OF_KIND: Final = {"caption": "coco_rouge_l"}


def metric_of_kind(kind: str) -> str:
    """ROUGE-L of caption tables for captions, since one wrong word of forty is not a wrong caption.

    All other kinds have one right answer and are scored by exact match.
    """
    return _OF_KIND.get(kind, "exact")
