"""The papers' benchmarks in lmms-eval, a value for each score that a table prints."""

from __future__ import annotations

from typing import Final

from figures.contract import Published

CHARTQA: Final = Published("chartqa", "chartqa_lite", "relaxed_overall")
DOCVQA: Final = Published("docvqa_val", "docvqa_val_lite", "anls")
VIZWIZ: Final = Published("vizwiz_vqa_val", "vizwiz_vqa_val_lite", "exact_match")
TEXTVQA: Final = Published("textvqa_val", "textvqa_val_lite", "exact_match")
TEXTVQA_LITE: Final = Published("textvqa_val_lite", "textvqa_val_lite", "exact_match")
GQA: Final = Published("gqa", "gqa_lite", "exact_match")
SEED: Final = Published("seedbench", "seedbench_lite", "seed_image")
SCIENCE: Final = Published("scienceqa_img", "scienceqa_img", "exact_match")
NOCAPS: Final = Published("nocaps_val", "nocaps_val_lite", "nocaps_CIDEr")
POPE_ACCURACY: Final = Published("pope", "pope", "pope_accuracy")
POPE_F1: Final = Published("pope", "pope", "pope_f1_score")
MME_COGNITION: Final = Published("mme", "mme", "mme_cognition_score")
MME_PERCEPTION: Final = Published("mme", "mme", "mme_perception_score")
MME_BOTH: Final = Published("mme", "mme", "mme_score")


def coco(score: str) -> Published:
    """A score of COCO's captions of 2017, such as "CIDEr"."""
    return Published("coco2017_cap_val", "coco2017_cap_val_lite", f"coco_{score}")


def textcaps(score: str) -> Published:
    """A score of TextCaps, likewise."""
    return Published("textcaps_val", "textcaps_val_lite", f"textcaps_{score}")
