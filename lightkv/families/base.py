"""What a model family tells the library about its models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightkv.errors import ModelError
from lightkv.layout import TokenLayout


class Family(ABC):
    """One architecture family: where its parts are and how vision tokens lie on their grids.

    A family is stateless; everything it needs comes from the model's config and the inputs.
    """

    #: ``config.model_type`` values of this family.
    model_types: tuple[str, ...]

    def decoder_path(self, model: Any) -> str:
        """Dotted path of the text decoder (the module that owns ``layers``)."""
        decoder = model.get_decoder()
        for path, module in model.named_modules():
            if module is decoder:
                return str(path)
        raise ModelError(f"{type(model).__name__} does not contain the decoder it reports")

    @abstractmethod
    def layout(self, config: Any, inputs: Mapping[str, Tensor]) -> TokenLayout:
        """Layout of a processed batch.

        Args:
            config: The model's config.
            inputs: What the processor returned: ``input_ids`` (B, N), ``attention_mask`` (B, N)
                and whatever carries the grids.
        """
