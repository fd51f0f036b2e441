"""Wrong inputs through the public interface: every one ends in a typed error that helps.

A row is the way in, what a user might write, the error and a word of its message. Errors come
before the model runs: a forward pass fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lightkv import VLM
from lightkv.errors import LightKVError
from tests.wrong_inputs.case import Wrong
from tests.wrong_inputs.of_methods import hyperparameters, methods_passed
from tests.wrong_inputs.of_models import loading, options
from tests.wrong_inputs.of_probes import knockouts, probes
from tests.wrong_inputs.of_questions import pictures, questions

TABLE = [
    *methods_passed(),
    *hyperparameters(),
    *questions(),
    *options(),
    *loading(),
    *knockouts(),
    *probes(),
    *pictures(),
]


@pytest.fixture(scope="module")
def guarded(embedded: VLM) -> Iterator[VLM]:
    """A model that must not run."""

    def run(*_: Any) -> None:
        pytest.fail("the model ran")

    handle = embedded.model.register_forward_pre_hook(run)
    yield embedded
    handle.remove()


def test_the_table_is_large() -> None:
    assert len(TABLE) > 200
    assert len({one.way for one in TABLE}) == len(TABLE)


@pytest.mark.parametrize("one", TABLE, ids=lambda one: one.way)
def test_a_wrong_input_ends_in_words(guarded: VLM, one: Wrong) -> None:
    with pytest.raises(LightKVError) as caught:
        one.do(guarded)
    assert type(caught.value) is one.error
    assert one.word in str(caught.value)
    assert len(str(caught.value)) < 1500
