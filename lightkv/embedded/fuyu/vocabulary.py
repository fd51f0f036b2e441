"""The words of the encoder-free model; apart from its architecture, which training imports."""

from __future__ import annotations

from typing import Final

from lightkv.embedded.vocabulary import WORDS

LINE: Final = "<line>"
"""What closes every row of patches."""
KNOWN: Final = (*WORDS, LINE)
"""The words of the model in the order of their token ids."""
LINE_ID: Final = len(WORDS)
