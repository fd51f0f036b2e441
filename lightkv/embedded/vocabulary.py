"""The closed word lists of the embedded models and the fixed part of their prompts.

Every word is one token. The order below fixes the token ids, so words may only be appended. The
square model knows ``WORDS``; the native-resolution model knows ``MORE_WORDS`` after them.
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
VIDEO: Final = "<video>"
VISION_START: Final = "<vision>"
VISION_END: Final = "</vision>"

_CODE_WORDS = (
    "blip dax wug zorp fep toma gazzer lorp kiki bouba modi plok vish snarg drib quonk tulver "
    "nazz pim yort glim harn jat krell lunt mib nurf oxa prell rusk sprad thuz ulk vorn wim zib"
)
CODE_WORDS: Final = tuple(_CODE_WORDS.split())
"""Made-up names that a passage in the question gives to objects, one per shape and color."""

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


_TIME = "< > seconds first last before after then now start end"
_CHANGE = (
    "appears appear vanishes vanish turns turn comes come goes go moves move changes change moved "
    "went came changed happens thing gone new"
)
_COMPARE = "both same more which has have shows pictures only or same different than"
_HINT = "hint think maybe it is said someone answer"


def _more_words() -> tuple[str, ...]:
    groups = (
        (VIDEO, VISION_START, VISION_END),
        CODE_WORDS,
        *(text.split() for text in (_TIME, _CHANGE, _COMPARE, _HINT)),
    )
    known = set(WORDS)
    return tuple(dict.fromkeys(word for group in groups for word in group if word not in known))


WORDS: Final = _words()
"""The words of the square model, in the order of their token ids."""
MORE_WORDS: Final = _more_words()
"""The further words of the native-resolution model, whose token ids follow."""
ALL_WORDS: Final = WORDS + MORE_WORDS
TOKEN: Final = {word: index for index, word in enumerate(ALL_WORDS)}

PAD_ID: Final = TOKEN[PAD]
BOS_ID: Final = TOKEN[BOS]
EOS_ID: Final = TOKEN[EOS]
IMAGE_ID: Final = TOKEN[IMAGE]
VIDEO_ID: Final = TOKEN[VIDEO]
VISION_START_ID: Final = TOKEN[VISION_START]
VISION_END_ID: Final = TOKEN[VISION_END]
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
        words.append(ALL_WORDS[token])
    return " ".join(words)


PREFIX_IDS: Final = tuple(encode(f"{BOS} system : {DEFAULT_SYSTEM} user :"))
"""What stands before the image in a single-turn prompt with the default system sentence."""
