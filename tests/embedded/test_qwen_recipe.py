"""The recipe of the native-resolution model: rates, budgets, batches, the curriculum, options."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from lightkv.commands.train_embedded import train_embedded_command
from lightkv.embedded.qwen import batches as making
from lightkv.embedded.qwen.batches import SORTS
from lightkv.embedded.qwen.legends import MOST_DEFINITIONS
from lightkv.embedded.qwen.recipe import SHIPPED, Rates, with_batches
from lightkv.embedded.qwen.stream import Budget


def test_rates_rise_and_fall() -> None:
    rates = Rates(1.0, 1.0, warmup=10, constant=0.5)
    assert rates.scale(0.0, 0) == pytest.approx(0.1)
    assert rates.scale(0.5, 30) == 1.0
    assert rates.scale(0.75, 30) == pytest.approx(0.5)
    assert rates.scale(0.75, 4) == pytest.approx(0.25)
    assert rates.scale(1.0, 30) == 0.0


def test_a_budget_counts_minutes_or_steps_from_where_it_begins() -> None:
    assert Budget(minutes=2.0).progress(99, 30.0) == pytest.approx(0.25)
    assert Budget(steps=10).progress(5, 1e9) == pytest.approx(0.5)
    assert Budget(steps=10, begin=0.6).progress(3, 0.0) == pytest.approx(0.9)


def test_batches_grow_by_a_factor_in_every_part() -> None:
    grown = with_batches(SHIPPED, 1.5)
    assert grown.vision.tokens == 1.5 * SHIPPED.vision.tokens
    pairs = list(zip(grown.phases, SHIPPED.phases, strict=True))
    assert all(g.difficulty.tokens == 1.5 * s.difficulty.tokens for g, s in pairs)
    assert with_batches(SHIPPED, 1.0) == SHIPPED


def test_the_curriculum_ends_with_every_token_and_every_size() -> None:
    assert [phase.until for phase in SHIPPED.phases][-1] == 1.0
    last = SHIPPED.phases[-1].difficulty
    assert last.background is None and last.side == 24
    assert last.definitions == MOST_DEFINITIONS
    assert SHIPPED.phase(0.0) is SHIPPED.phases[0]
    assert SHIPPED.phase(1.0) is SHIPPED.phases[-1]
    assert SHIPPED.phase(SHIPPED.vision_share + 0.3 * (1 - SHIPPED.vision_share)).until == 0.42
    for phase in SHIPPED.phases:
        assert set(phase.difficulty.text.weights) <= set(making.NAMES)
        assert set(phase.difficulty.sorts) == set(SORTS)


@pytest.mark.parametrize(("tokens", "least"), [(2000, 0), (1, 2)])
def test_a_batch_of_text_is_as_large_as_its_tokens_allow(tokens: int, least: int) -> None:
    start = SHIPPED.phases[0].difficulty
    difficulty = replace(start, sorts={"text": 1.0}, tokens=tokens)
    for seed in range(5):
        batch = making.make_batch(np.random.default_rng(seed), difficulty)
        length = batch.text.shape[1]
        assert batch.sort == "text" and batch.views == ()
        assert len(batch) == max(least, tokens // length)
        # A passage of seven words a definition, and room for questions.
        assert length in [7 * count + 72 for count in range(2, start.definitions + 1)]
        asked = {making.NAMES[kind] for kind in batch.kind[batch.kind >= 0].tolist()}
        assert asked == {"meaning", "code_word"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1"], "--minutes has no effect on --model square"),
        (["--model", "qwen", "--save-every", "9"], "--save-every has no effect on --model qwen"),
        (["--model", "qwen", "--dry", "--evaluate", "9"], "--evaluate has no effect beside --dry"),
        (["--bfloat16"], "--bfloat16 has no effect on --model square"),
        (["--batch-factor", "2"], "--batch-factor has no effect on --model square"),
        (["--model", "qwen"], "one of --minutes and --steps"),
        (["--model", "qwen", "--minutes", "1", "--steps", "1"], "one of --minutes and --steps"),
    ],
)
def test_options_without_effect_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(train_embedded_command, arguments)
    assert result.exit_code == 2 and message in result.output
