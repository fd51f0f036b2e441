"""VQA accuracy: answers normalised and voted on as in the VQA evaluation (Antol et al., ICCV 2015).

The rules are those published with VQA v2 and used by TextVQA and VizWiz. Both the answer and the
references are always normalised, as lmms-eval does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MINIMUM_REFERENCES = 4
"""A reference is left out in turn and three of the others make a full point."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _misspellings(word: str) -> list[str]:
    """The word with one of its apostrophes left out, for each of them."""
    return [word[:at] + word[at + 1 :] for at, sign in enumerate(word) if sign == "'"]


_REPAIRED = {wrong: right for right in _CONTRACTIONS.split() for wrong in _misspellings(right)}


def normalise(text: str) -> str:
    """Lower case, numbers as digits, no articles or punctuation, contractions repaired."""
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_REPAIRED.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, references: Sequence[str]) -> float:
    """Mean over left-out references of min(1, agreeing others / 3).

    Args:
        answer: The model's answer.
        references: Answers of different people, ten in VQA, TextVQA and VizWiz.
    """
    answered = normalise(answer)
    agrees = [normalise(reference) == answered for reference in references]
    votes = sum(agrees)
    return sum(min(1.0, (votes - agreed) / 3) for agreed in agrees) / len(agrees)


def _without_punctuation(text: str) -> str:
    """Drop a sign that touches a space, put a space in place of one inside a word."""
    result = text
    for sign in _PUNCTUATION:
        loose = f"{sign} " in text or f" {sign}" in text or _NUMBER_COMMA.search(text)
        result = result.replace(sign, "" if loose else " ")
    return _PERIOD.sub("", result)
