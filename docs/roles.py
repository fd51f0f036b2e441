"""Sphinx roles of docstrings as links: an extension of the reader behind the reference pages."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Turns ``:class:`~package.Name``` into a link to the page of that name."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(obj, role), obj.docstring.value)


def _link(obj: griffe.Object, role: re.Match[str]) -> str:
    short, target = role.groups()
    shown = target.rpartition(".")[2] if short else target
    first, dot, rest = target.partition(".")
    if first not in ("lightkv", "analysis", "figures"):
        try:
            target = obj.resolve(first) + dot + rest
        except griffe.NameResolutionError:
            return f"`{shown}`"
    return f"[`{shown}`][{target}]"
