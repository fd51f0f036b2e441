"""A CLIP text tower from a checkpoint with both towers: how near each patch is to the question.

A LLaVA checkpoint holds the vision tower alone. What its states have in common with a text is
measured in the space that CLIP was trained for: the states after the last norm and the visual
projection of the CLIP checkpoint, the text after its text projection, as CDPruner (arXiv
2506.10967) does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.errors import ModelError, UnsupportedError


@dataclass(frozen=True)
class TextTower:
    """What is needed of a CLIP checkpoint.

    Attributes:
        checkpoint: Where it came from.
        tokenizer: Of its texts.
        text_model, text_projection: From a text to the joint space.
        vision_norm, visual_projection: From a tower's states to it.
    """

    checkpoint: str
    tokenizer: Any
    text_model: Any
    text_projection: Any
    vision_norm: Any
    visual_projection: Any

    def relevance(self, states: Tensor, texts: Sequence[str]) -> Tensor:
        """(tiles, P, B) float32 cosine of patches and texts, mean over the segments of a text.

        Args:
            states: (tiles, P, C) of the vision tower.
            texts: B of them.

        Raises:
            UnsupportedError: If the states are not those of this checkpoint's vision tower.
        """
        width = int(self.vision_norm.weight.shape[0])
        if states.shape[-1] != width:
            raise UnsupportedError(
                f"{self.checkpoint} has a vision tower of {width} features, the model's has "
                f"{states.shape[-1]}: name the CLIP checkpoint that the model's tower comes from"
            )
        device = self.text_projection.weight.device
        with torch.no_grad():
            patches = self.visual_projection(self.vision_norm(states.to(device, torch.float32)))
            patches = torch.nn.functional.normalize(patches, dim=-1)
            cosines = [(patches @ self._segments(text).T).mean(-1) for text in texts]
        return torch.stack(cosines, -1).to(states.device)

    def _segments(self, text: str) -> Tensor:
        """(S, d) unit embeddings of a text, cut where it is longer than the tower reads."""
        most = int(self.text_model.embeddings.position_embedding.weight.shape[0])
        ids = torch.tensor(
            self.tokenizer(text).input_ids, device=self.text_projection.weight.device
        )
        missing = -len(ids) % most
        # Zeros fill up the last segment; they are masked.
        real = torch.nn.functional.pad(torch.ones_like(ids), (0, missing)).view(-1, most)
        ids = torch.nn.functional.pad(ids, (0, missing)).view(-1, most)
        pooled = self.text_model(input_ids=ids, attention_mask=real).pooler_output
        return torch.nn.functional.normalize(self.text_projection(pooled), dim=-1)


@functools.lru_cache(maxsize=1)
def text_tower(checkpoint: str, device: torch.device) -> TextTower:
    """The text tower of a CLIP checkpoint, by hub id or folder; the last one is kept.

    Raises:
        ModelError: If there is no such checkpoint here, or it lacks one of the towers.
    """
    from transformers import AutoTokenizer, CLIPModel

    load_model: Any = CLIPModel.from_pretrained
    load_tokenizer: Any = AutoTokenizer.from_pretrained
    try:
        model, report = load_model(checkpoint, dtype=torch.float32, output_loading_info=True)
        tokenizer = load_tokenizer(checkpoint)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"the text tower of {checkpoint!r} can't be loaded: {error}. Give the folder of a CLIP "
            "checkpoint with both towers (text_tower=...), or set HF_HUB_OFFLINE=0"
        ) from error
    if report["missing_keys"]:
        # transformers would fill them with random numbers and go on.
        lost = sorted(map(str, report["missing_keys"]))
        raise ModelError(f"{checkpoint!r} lacks {len(lost)} weights of CLIP, {lost[0]} among them")
    model = model.eval().to(device)
    return TextTower(
        checkpoint,
        tokenizer,
        model.text_model,
        model.text_projection,
        model.vision_model.post_layernorm,
        model.visual_projection,
    )
