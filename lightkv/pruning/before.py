"""Base of the methods that drop vision tokens before the first decoder layer."""

from __future__ import annotations

from dataclasses import dataclass

from lightkv.contract.checks import require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.pruning.selection import image_groups


@dataclass(frozen=True, kw_only=True)
class BeforeDecoder(Reducer):
    """One stage at the input of the decoder.

    Attributes:
        positions: "reindex" numbers the survivors as the released codes do, which never give a
            position to what they drop; "keep" leaves gaps. See
            :data:`~lightkv.contract.compressor.Positions`.
    """

    positions: Positions = "reindex"

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Before the first layer."""
        return (-1,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """None: the decoder has not run yet."""
        return ()

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image."""
        require_vision(layout)


def require_tokens(name: str, wanted: int, layout: TokenLayout) -> None:
    """Refuse a number of tokens per image that an image does not have.

    Raises:
        InvalidValueError: See above.
    """
    fewest = int(image_groups(layout).counts.min())
    if wanted > fewest:
        raise InvalidValueError(name, wanted, f"at most {fewest}, the tokens of the smallest image")
