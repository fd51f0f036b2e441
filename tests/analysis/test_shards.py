"""Parts of a run: together they ask what a whole run asks."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from analysis.asking.jobs import Shard
from analysis.asking.merging import merge
from analysis.asking.store import Store
from lightkv.errors import InvalidValueError
from tests.analysis.asked import echo, run
from tests.analysis.fake import FakeVLM


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_together_ask_what_a_whole_run_asks(count: int, tmp_path: Path) -> None:
    whole = FakeVLM(echo)
    expected = run(whole)
    batches: list[list[str]] = []
    parts = []
    with Store(tmp_path) as store:
        for number in range(1, count + 1):
            vlm = FakeVLM(echo)
            parts.append(run(vlm, store=store, shard=Shard(number, count)))
            batches += vlm.batches
        rest = FakeVLM(echo)
        frame = run(rest, store=store)
    assert rest.asked == 0
    assert sorted(batches) == sorted(whole.batches)
    assert sum(map(len, parts)) == 20
    timed = ["seconds"]
    pd.testing.assert_frame_equal(frame.drop(columns=timed), expected.drop(columns=timed))


def test_a_shard_is_picked_up_where_it_stopped(tmp_path: Path) -> None:
    stopped = FakeVLM(echo, fail_after=1)
    with Store(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        run(stopped, store=store, batch_size=2, shard=Shard(1, 2))
    resumed, whole = FakeVLM(echo), FakeVLM(echo)
    with Store(tmp_path) as store:
        run(resumed, store=store, batch_size=2, shard=Shard(1, 2))
    run(whole, batch_size=2, shard=Shard(1, 2))
    assert stopped.batches + resumed.batches == whole.batches
    assert 0 < whole.asked < 20


KILLED = """
    import os, signal, sys
    from analysis.asking.jobs import Shard
    from analysis.asking.store import Store
    from tests.analysis.fake import FakeVLM
    from tests.analysis.asked import echo, run

    def killed(request, compressor):
        if len(vlm.batches) == 2:  # the second batch is asked, the first is stored
            os.kill(os.getpid(), signal.SIGKILL)
        return echo(request, compressor)

    vlm = FakeVLM(killed)
    with Store(sys.argv[1]) as store:
        run(vlm, store=store, batch_size=2, shard=Shard(1, 2))
"""


def test_a_shard_that_is_killed_goes_on_and_merges_to_the_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "1")],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    resumed = FakeVLM(echo)
    for number, vlm in ((1, resumed), (2, FakeVLM(echo))):
        with Store(tmp_path / str(number)) as store:
            run(vlm, store=store, batch_size=2, shard=Shard(number, 2))
    part, whole, rest = FakeVLM(echo), FakeVLM(echo), FakeVLM(echo)
    run(part, batch_size=2, shard=Shard(1, 2))
    assert resumed.batches == part.batches[1:], "the batch that was stored is not asked again"
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    with Store(tmp_path / "both") as store:
        frame = run(rest, store=store, batch_size=2)
    expected = run(whole, batch_size=2)
    assert rest.asked == 0
    pd.testing.assert_frame_equal(frame.drop(columns="seconds"), expected.drop(columns="seconds"))


@pytest.mark.parametrize(
    "text", ["3/2", "0/2", "-1/2", "1/0", "1", "1/", "/2", "a/b", "1.5/2", "1/2/3", "", "1:2"]
)
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"shard is .* allowed: I/N"):
        Shard.read(text)


def test_shards_are_read() -> None:
    assert (Shard.read("1/1"), Shard.read(" 2 / 4 ")) == (Shard(1, 1), Shard(2, 4))
