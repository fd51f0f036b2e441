"""Files that a command writes: whole or not at all, and refused before anything is measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightkv.errors import InvalidValueError, StoreError


def check_out(out: Path | None, *endings: str) -> None:
    """Refuse a file that can't be written when the work is done; None stands for no file.

    Args:
        out: The file.
        endings: Allowed ends of its name, such as ".csv"; none for any.

    Raises:
        InvalidValueError: The name ends otherwise.
        StoreError: Its folder does not exist.
    """
    if out is None:
        return
    if not out.parent.is_dir():
        raise StoreError(f"there is no folder {out.parent} for {out.name}; make it first")
    if endings and out.suffix not in endings:
        raise InvalidValueError("out", out.name, f"a name that ends in {' or '.join(endings)}")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends without an error.

    Raises:
        StoreError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error}") from error
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; raises as :func:`replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
