"""Fixtures shared by all tests: tiny models, no network, one thread (or `OMP_NUM_THREADS`)."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

from lightkv import VLM
from lightkv.contract import registry
from tests.graph.compiling import Traced
from tests.tiny import tiny_llava

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped in words where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a GPU: CUDA is not there"))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@pytest.fixture(scope="session", params=["sdpa", "eager"])
def tiny_vlm(request: pytest.FixtureRequest) -> VLM:
    """A LLaVA of five layers with random weights, under both attention kernels."""
    return tiny_llava(request.param)


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    """Decode steps of a module's tests are traced and run as they are, in place of compiling."""
    from lightkv.engine import compiled

    with pytest.MonkeyPatch.context() as patch:
        backend = Traced(compiled.BACKEND)
        patch.setattr(compiled, "BACKEND", backend)
        yield backend


@pytest.fixture(scope="session")
def embedded() -> VLM:
    """The embedded model."""
    import lightkv

    return lightkv.load()
