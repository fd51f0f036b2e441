"""Methods of the prefill on every family that has what they need; refused in words elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightkv.check.subject import FLOAT32_LIMIT, logits
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.contract.compressor import Reducer
from lightkv.errors import InputError, UnsupportedError
from lightkv.pruning import (
    DART,
    Downsample,
    HiPrune,
    PruMerge,
    PruMergePlus,
    PyramidDrop,
    SparseVLM,
    UniformGrid,
)

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 3,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}

ANYWHERE: list[Reducer] = [
    DART(removed=0.5, vision_pivots=2, text_pivots=2),
    PyramidDrop(layers=(1, 2), ratios=(0.5, 0.25), positions="keep"),
    SparseVLM(
        layers=(1,), kept=(5,), recycle=False, heads=2, correct_rotary=True, positions="keep"
    ),
    UniformGrid(kept=0.4, positions="keep"),
    Downsample(kept=0.4, positions="keep"),
]
OF_THE_TOWER: list[Reducer] = [
    HiPrune(tokens=4, alpha=0.8, positions="keep"),
    PruMerge(neighbours=2, positions="keep"),
    PruMergePlus(neighbours=2, fixed=0.07, positions="keep"),
]
WITH_CLASS_TOKEN = {"llava", "llava_next", "llava_next_mistral"}


@pytest.mark.parametrize("method", ANYWHERE + OF_THE_TOWER, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("name", ZOO)
def test_a_row_of_a_batch_answers_as_alone(name: str, method: Reducer) -> None:
    vlm = ZOO[name].build()
    rows = ZOO[name].rows(vlm.model.config)[:3]
    if method in OF_THE_TOWER and name not in WITH_CLASS_TOKEN:
        with pytest.raises(UnsupportedError, match="the model has none"):
            vlm.generate(rows[0], method, **SETTINGS)
        return
    if isinstance(method, Downsample) and vlm.facts.grid_follows_picture:
        # The picture itself has to be smaller: see tests/test_pictures.py.
        with pytest.raises(InputError, match="before the processor"):
            vlm.generate(rows[0], Downsample(kept=0.4), **SETTINGS)
        return
    together = vlm.generate(stack(rows), method, **SETTINGS)
    scale = logits(together.output).abs().max()
    for number, row in enumerate(rows):
        alone = vlm.generate(row, method, **SETTINGS)
        assert alone.records[0].kv_bytes == together.records[number].kv_bytes
        assert alone.records[0].achieved_retention < 1
        off = (logits(together.output)[number] - logits(alone.output)[0]).abs().max() / scale
        assert float(off) < FLOAT32_LIMIT


@pytest.mark.parametrize("name", sorted(WITH_CLASS_TOKEN))
def test_states_of_the_tower_are_merged_before_the_projector(name: str) -> None:
    """Projected one by one they are the model's own embeddings."""
    vlm = ZOO[name].build()
    row = ZOO[name].rows(vlm.model.config)[0]
    layout = vlm.layout(row)
    names = frozenset({"features", "tile"})
    vision = vlm.family.vision_features(vlm.model, row, layout, names)
    assert vision.features is not None
    assert vision.tile is not None
    assert vision.project is not None
    patches = vision.tile >= 0
    embedded = vision.project(vision.features)[patches]
    seen: list[torch.Tensor] = []
    hook = vlm.model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    vlm.model.generate(**row, max_new_tokens=1, do_sample=False)
    hook.remove()
    off = (embedded - seen[0][patches]).abs().max() / seen[0].abs().max()
    assert float(off) < FLOAT32_LIMIT
