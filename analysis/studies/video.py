"""T-F4 and T-T9: evictors on questions about videos, asked plainly, led, misled and paraphrased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Unpack

from analysis.asking.store import FACT
from analysis.studies.base import Settings, Tasks, register
from analysis.studies.compared import evictors_compared

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM

VIDEOS: Final = ("embedded-qwen:order", "embedded-qwen:moves", "embedded-qwen:changes")
EVICTORS: Final = ("streamingllm", "snapkv", "h2o", "prefixkv", "tgvkv")
"""What TGV-KV's Table 9 compares."""

SAMPLES: Final = 8
"""Questions per task: there are sixteen settings, and a video has up to 576 tokens."""

PRIMARY: Final = "primary"
PARAPHRASED: Final = "paraphrase"
LED: Final = {"right": "correctly-led", "wrong": "wrongly-led"}


@register
def evictors_on_video(
    vlm: VLM,
    *,
    tasks: Tasks = VIDEOS,
    methods: Sequence[str] = EVICTORS,
    retentions: Sequence[float] = (0.5, 0.2, 0.1),
    samples: int = SAMPLES,
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Evictors at several budgets, with how each question is asked.

    Args:
        vlm: The model.
        tasks: What is asked.
        methods: Registered names of evictors.
        retentions: Shares of the cache that stay.
        samples: Questions per task.
        **settings: See :class:`~analysis.studies.base.Settings`.

    Returns:
        Question rows with ``compared`` and ``retention`` as of
        :func:`~analysis.studies.compared.evictors_compared`, and ``asked``: "correctly-led" or
        "wrongly-led" by a hint, else "paraphrase" or "primary". Empty for a model that takes no
        videos.
    """
    import pandas as pd

    if not vlm.family.takes_videos:
        return pd.DataFrame()
    frame = evictors_compared(
        vlm, tasks=tasks, methods=methods, retentions=retentions, samples=samples, **settings
    )
    return frame.assign(asked=_asked(frame))


def _asked(frame: pd.DataFrame) -> list[str]:
    """How each question is asked, by what its task says of it; a hint counts before the wording."""
    facts = frame.reindex(columns=[f"{FACT}hint", f"{FACT}paraphrased"])
    return [
        LED.get(hint, PARAPHRASED if paraphrased is True else PRIMARY)
        for hint, paraphrased in facts.itertuples(index=False)
    ]
