"""X-3: what attention and cache entries are needed for, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.probing.interventions import answer_tokens, knockouts
from analysis.probing.patching import donors_for, patches
from analysis.studies import probing_information
from analysis.studies.base import Tasks, register
from analysis.studies.probing import Asked, tabled
from analysis.studies.probing_information import information_profile

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASKS = ("embedded/color",)
DEFAULT_SAMPLES = 16
_BATCH = 16


@register
def causal_profile(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    width: int | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Knock-out curves, and vision entries of another image from each layer on.

    Args:
        vlm: The model.
        tasks: What is asked; patching takes pairs of questions with the same words.
        samples: Questions per task; at least 64 inform the estimates of information.
        seed: Which questions.
        width: Layers of a knock-out; None for about a quarter of all.
        store: Where the table is kept.

    Returns:
        Rows with ``panel`` and ``layer``. Per question: "knockout" (``pair`` as "text to vision",
        ``effect`` on the right answer's log-probability in nats, ``given`` whether it is still
        given, ``lost``) and "patch" (``preference`` for the donor's answer over the question's own
        in nats; ``own``, ``donor``: which one is said). Per question and over all of them (``item``
        -1): "information", the rows of
        :func:`~analysis.studies.probing_information.information_profile`.
    """
    import pandas as pd

    def measure(asked: Asked) -> pd.DataFrame:
        parts = []
        for start in range(0, len(asked.items), _BATCH):
            batch = Asked(asked.task, asked.seed, asked.items[start : start + _BATCH])
            parts.append(batch.named(_knocked(vlm, batch, width)))
            patched = _patched(vlm, batch)
            if patched is not None:
                parts.append(patched)
        return pd.concat(parts, ignore_index=True)

    parameters = {"width": width}
    frame = tabled("causal_profile", vlm, tasks, samples, seed, parameters, store, measure)
    profiled = max(samples, probing_information.DEFAULT_SAMPLES)
    known = information_profile(vlm, tasks=tasks, samples=profiled, seed=seed, store=store)
    return pd.concat([frame, known.assign(panel="information")], ignore_index=True)


def _knocked(vlm: VLM, asked: Asked, width: int | None) -> pd.DataFrame:
    requests = [item.request() for item in asked.items]
    answers = answer_tokens(vlm, [item.answers[0] for item in asked.items])
    frame = knockouts(vlm, requests, answers, width=width)
    frame["pair"] = frame["source"] + " to " + frame["target"]
    return frame.drop(columns=["source", "target"]).assign(panel="knockout")


def _patched(vlm: VLM, asked: Asked) -> pd.DataFrame | None:
    """Rows of the questions that have a donor, None if there is none."""
    items = asked.items
    answers = [item.answers[0] for item in items]
    donors = donors_for([item.question for item in items], answers)
    pairs: list[tuple[Any, Any]] = [
        (item, items[donor]) for item, donor in zip(items, donors, strict=True) if donor is not None
    ]
    if not pairs:
        return None
    originals, other = zip(*pairs, strict=True)
    frame = patches(
        vlm,
        [item.request() for item in originals],
        [item.request() for item in other],
        answer_tokens(vlm, [item.answers[0] for item in originals]),
        answer_tokens(vlm, [item.answers[0] for item in other]),
    )
    return Asked(asked.task, asked.seed, originals).named(frame.assign(panel="patch"))
