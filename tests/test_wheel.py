"""The built wheel is all that is needed: it reproduces from an empty folder, without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from lightkv.embedded.qwen.checkpoint import UNFINISHED

CHECKOUT = Path(__file__).parent.parent
SOURCES = ("lightkv", "analysis", "figures", "notebooks")
DIRT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info")


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(CHECKOUT / name, source / name, ignore=DIRT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", str(out), str(source))
    return next(out.glob("*.whl"))


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        file.relative_to(CHECKOUT).as_posix()
        for name in SOURCES
        for file in (CHECKOUT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and ".ipynb_" not in str(file)
        if file.parent != UNFINISHED
    }
    assert sorted(there - held) == []
    assert sorted(held - there) == []


def test_it_reproduces_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = "import figures, lightkv; print(figures.__file__, lightkv.__file__)"
    places = run(sys.executable, "-c", where, cwd=empty, env=environment).stdout
    assert all(path.startswith(str(site)) for path in places.split())
    command = (sys.executable, str(site / "bin" / "lightkv"), "reproduce", "X-1", "--samples", "2")
    done = run(*command, "--task", "embedded/read", cwd=empty, env=environment)
    assert "report: report/index.html" in done.stdout
    page = (empty / "report" / "index.html").read_text(encoding="utf-8")
    assert 'id="X-1"' in page and "data:image/" in page
    assert (empty / "report" / "artefacts" / "X-1" / "rows.csv").is_file()
