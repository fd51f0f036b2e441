"""Parts of a method written as text: a class by name, with its fields as keywords."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, get_type_hints

from lightkv.errors import InvalidValueError, UnknownNameError

Part = TypeVar("Part")


def part_from_text(
    name: str, text: str, kind: type[Part], checked: Callable[[str, Any, Any], Any]
) -> Part:
    """The part that a text such as ``HoldBudget(victim='oldest')`` or ``Grow`` names.

    Args:
        name: The option, for messages.
        text: A class of the kind, loaded by now, perhaps with keywords that are literals.
        kind: Base class of the parts that are allowed.
        checked: Turns (name, value, type) into a value of the type, or raises.

    Raises:
        UnknownNameError: No such class.
        InvalidValueError: The text is neither of the two, or a keyword is wrong.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        target = node if call is None else call.func
        if not isinstance(target, ast.Name) or (call is not None and call.args):
            raise ValueError(text)
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords} if call else {}
    except (SyntaxError, ValueError) as error:
        allowed = "a name, or Name(option=value, ...) with plain values"
        raise InvalidValueError(name, text, allowed) from error
    known = {one.__name__: one for one in concrete(kind)}
    if target.id not in known:
        raise UnknownNameError(name, target.id, known)
    build = known[target.id]
    hints = get_type_hints(build)
    options = list(inspect.signature(build).parameters)
    for key in keywords:
        if key not in options:
            listed = f"options of {target.id}: {', '.join(options) or 'none'}"
            raise InvalidValueError("option", key, listed)
    return build(**{k: checked(f"{k} of {target.id}", v, hints[k]) for k, v in keywords.items()})


def concrete(kind: type[Part]) -> Iterator[type[Part]]:
    """Every loaded class of the kind that can be built, the kind itself included."""
    if not inspect.isabstract(kind):
        yield kind
    for below in kind.__subclasses__():
        yield from concrete(below)
