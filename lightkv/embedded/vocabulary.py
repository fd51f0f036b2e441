"""The closed word list of the embedded model and the fixed part of its prompt.

Every word is one token. The order below fixes the token ids, so words may only be appended.
"""

from __future__ import annotations

from typing import Final

SHAPES: Final = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLORS: Final = ("red", "green", "blue", "yellow", "purple", "white")
ROWS: Final = ("top", "middle", "bottom")
COLUMNS: Final = ("left", "center", "right")
PLACES: Final = ("first", "second", "third", "fourth")
DIGITS: Final = tuple("0123456789")
PLURALS: Final = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}

PAD: Final = "<pad>"
BOS: Final = "<s>"
EOS: Final = "</s>"
UNKNOWN: Final = "<unk>"
IMAGE: Final = "<image>"
SPECIAL: Final = (PAD, BOS, EOS, IMAGE, UNKNOWN)

DEFAULT_SYSTEM: Final = "look at the image ."
REFUSAL: Final = "i do not know"

_STRUCTURE = "system user assistant : ? , . look at the image and answer"
_QUESTION = (
    "what color is shape how many shapes there a where list colors of describe number in are "
    "which digit yes no none i do not know"
)
_OTHER = (
    "an it this that picture object objects please tell me you your name hello hi can see say "
    "read see show big small word text to with on for from who when why do does any all"
)


def _words() -> tuple[str, ...]:
    groups = (
        SPECIAL,
        _STRUCTURE.split(),
        _QUESTION.split(),
        SHAPES,
        tuple(PLURALS.values()),
        COLORS,
        ROWS,
        COLUMNS,
        PLACES,
        DIGITS,
        _OTHER.split(),
    )
    return tuple(dict.fromkeys(word for group in groups for word in group))


WORDS: Final = _words()
TOKEN: Final = {word: index for index, word in enumerate(WORDS)}

PAD_ID: Final = TOKEN[PAD]
BOS_ID: Final = TOKEN[BOS]
EOS_ID: Final = TOKEN[EOS]
IMAGE_ID: Final = TOKEN[IMAGE]
UNKNOWN_ID: Final = TOKEN[UNKNOWN]


def encode(text: str) -> list[int]:
    """Token ids of a text that is already lower case with spaces around punctuation."""
    return [TOKEN.get(word, UNKNOWN_ID) for word in text.split()]


def decode(tokens: list[int]) -> str:
    """The words of ``tokens`` up to the end-of-sequence token, joined by single spaces."""
    words = []
    for token in tokens:
        if token == EOS_ID:
            break
        words.append(WORDS[token])
    return " ".join(words)


PREFIX_IDS: Final = tuple(encode(f"{BOS} system : {DEFAULT_SYSTEM} user :"))
"""What stands before the image in a single-turn prompt with the default system sentence."""
