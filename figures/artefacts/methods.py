"""How the methods of the papers' tables are named and drawn."""

from __future__ import annotations

from typing import Final

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Look

VANILLA: Final = "vanilla"

LOOKS: Final = {
    "vanilla": Look("full cache", BLACK, "o", ":"),
    "lightkv": Look("LightKV", BLUE, "s"),
    "tome": Look("ToMe (P)", ORANGE, "D", "--"),
    "pitome": Look("PiToMe", GREEN, "^", "--"),
    "tofu": Look("ToFu", PINK, "v", "--"),
    "fastv": Look("FastV", RED, "P", "-."),
    "hired": Look("HiRED", SKY, "X", "-."),
    "elasticcache": Look("ElasticCache", SKY, "X", ":"),
    "random": Look("Rand", GREY, "v", ":"),
    "random-vision": Look("ImgRand", GREY, "*", "-."),
    "tome-cache": Look("ToMe (C)", ORANGE, "d", ":"),
    "tgvkv": Look("TGV-KV", RED, "^"),
    "tgvkv-vision-only": Look("TGV-KV, vision only", RED, "^"),
    "streamingllm": Look("StreamingLLM", GREY, "s", "--"),
    "snapkv": Look("SnapKV", BLUE, "D", "--"),
    "h2o": Look("H2O", GREEN, "v", "--"),
    "prefixkv": Look("PrefixKV", ORANGE, "P", "-."),
    "aircache": Look("AirCache", BLUE, "s", "--"),
    "divprune": Look("DivPrune", BLUE, "s", "--"),
    "visionzip": Look("VisionZip", GREEN, "D", "--"),
    "vispruner": Look("VisPruner", ORANGE, "v", "-."),
    "cdpruner": Look("CDPruner", PINK, "P", "-."),
}
"""How methods are drawn, by their registered name."""

PRINTED: Final = {"random": "rand", "random-vision": "imgrand", "tgvkv": "tgv-kv"} | {
    "tgvkv-vision-only": "tgv-kv"
}
"""Names of methods in the papers' numbers, where they differ."""

OURS: Final = {"rand": "random", "imgrand": "random-vision", "tgv-kv": "tgvkv"}
"""The other way round."""
