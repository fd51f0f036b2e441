"""What the training of a model for square pictures asks of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightkv.embedded.batches import Batch


class Student(nn.Module, ABC):
    """A stock model and a lean way through its parameters.

    Attributes:
        model: The stock model.
        width: Width of what `see` returns.
        words: The tied word embeddings.
        inner: How the names of matrices begin that Muon trains, in the parts below.
    """

    inner: ClassVar[tuple[str, ...]]
    model: PreTrainedModel
    width: int
    words: nn.Embedding

    @abstractmethod
    def compile_parts(self) -> None:
        """Compile the forward passes."""

    @abstractmethod
    def see(self, pixels: Tensor) -> Tensor:
        """What the model knows of every patch before it reads.

        Args:
            pixels: Bytes ``(B, 128, 128, 3)``.

        Returns:
            ``(B, 256, width)``.
        """

    @abstractmethod
    def answer(self, batch: Batch, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Read the questions of a batch with some of the image tokens.

        Args:
            batch: The batch.
            kept: Patch index of the image tokens in use ``(B, N)``, sorted.

        Returns:
            Logits of the text ``(B, T, vocabulary)``, and the image tokens ``(B, N, D)`` that
            should be closest to the words for what they show.
        """

    @abstractmethod
    def vision_parts(self) -> Iterable[nn.Module]:
        """What patch classification trains."""

    @abstractmethod
    def language_parts(self) -> Iterable[nn.Module]:
        """What the questions train."""
