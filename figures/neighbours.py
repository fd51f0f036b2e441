"""Whether the packages that belong together are the ones that Python finds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightkv.errors import ShadowedError

_HERE = Path(__file__).resolve().parent.parent


def check_neighbours() -> None:
    """Refuse a user's module that hides a package of ours.

    Raises:
        ShadowedError: ``analysis`` or ``lightkv`` is not the package beside this one.
    """
    for name in ("analysis", "lightkv"):
        spec = find_spec(name)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin != _HERE / name / "__init__.py":
            raise ShadowedError(name, str(origin), str(_HERE / name))
