"""What is compiled for decoding: one program for many prompts, and nothing of ours in it."""

from __future__ import annotations

import cProfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import lightkv
from lightkv import VLM
from lightkv.engine import compiled
from lightkv.engine.compiled import StaticEntries, static_cache
from tests.graph.compiling import Traced
from tests.graph.methods import KeepNewest
from tests.tiny import prompt, tiny_llava

LAYERS = 3
WAITS = ("item", "tolist", "nonzero", "cpu", "is_nonzero")


def programs(vlm: VLM, traced: Traced, *lengths: int) -> int:
    """Programs that answers of these lengths make anew."""
    before = len(traced.graphs)
    for length in lengths:
        vlm.generate(prompt(1, 8), decode="compiled", max_new_tokens=length, do_sample=False)
    return len(traced.graphs) - before


def test_one_program_for_all_lengths_up_to_the_next_multiple(traced: Traced) -> None:
    vlm = tiny_llava(layers=1)
    slots = prompt(1, 8)["input_ids"].shape[1]
    room = compiled.SLOTS - slots
    assert compiled.SLOTS == 64
    assert programs(vlm, traced, room, room - 1, 3) == 1
    assert programs(vlm, traced, room + 1) == 1
    assert programs(vlm, traced, room + 2, room) == 0


def test_programs_used_longest_ago_are_compiled_again(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled.KEPT_PROGRAMS == 8
    monkeypatch.setattr(compiled, "KEPT_PROGRAMS", 2)
    vlm = tiny_llava(layers=1)
    assert programs(vlm, traced, 3, 64 + 3, 3) == 2
    assert programs(vlm, traced, 128 + 3, 3) == 1
    assert programs(vlm, traced, 64 + 3) == 1


def test_more_programs_than_torch_keeps_of_one_function(traced: Traced) -> None:
    with torch._dynamo.config.patch(recompile_limit=1):
        assert programs(tiny_llava(layers=1), traced, 3, 64 + 3) == 2


def test_programs_on_disk_are_told_apart_by_vectors(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernels in ("AVX2", "DEFAULT"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=kernels: name)
        with torch.compiler.config.patch(cache_key_tag="the user's own "):
            assert programs(tiny_llava(layers=1), traced, 3) == 1
        assert traced.tags[-1] == f"the user's own {kernels}"
        assert torch.compiler.config.cache_key_tag == ""


def test_buffers_hold_what_is_held() -> None:
    vlm = tiny_llava(layers=LAYERS)
    run = vlm.generate(prompt(1, 8), KeepNewest(), keep_run=True, max_new_tokens=1).run
    assert run is not None
    before = [(layer.keys.clone(), layer.values.clone()) for layer in run.held.cache.layers]
    room = compiled.SLOTS - run.held.entries[1].slots
    cache = static_cache(run.held, room)
    # Otherwise generate would make one mask for all layers at every step.
    assert not cache.is_compileable
    layers: Sequence[Any] = cache.layers
    assert [layer.keys.shape[2] for layer in layers] == [64, 64, 128]
    for (keys, values), layer, cached in zip(before, layers, run.held.cache.layers, strict=True):
        slots = keys.shape[2]
        assert torch.equal(layer.keys[:, :, :slots], keys)
        assert torch.equal(layer.values[:, :, :slots], values)
        assert not layer.keys[:, :, slots:].any()
        # The model's own cache is a part of the buffer: nothing is held twice.
        assert cached.keys.data_ptr() == layer.keys.data_ptr()
        assert cached.values.data_ptr() == layer.values.data_ptr()
        assert torch.equal(cached.keys, keys)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_token_sees_what_is_held_and_itself(kernel: str) -> None:
    held = torch.ones(1, 2, 3, 4)
    seen = torch.tensor([False, True, True, False, False])[None, None, None]
    lowest = torch.finfo(torch.float32).min
    mask = seen if kernel == "sdpa" else torch.zeros(seen.shape).masked_fill(~seen, lowest)
    layer = StaticEntries(held, held, mask.clone())
    for last in (3, 4):
        now = layer.next_mask()
        visible = now if kernel == "sdpa" else now == 0
        assert visible.flatten().nonzero().flatten().tolist() == list(range(1, last + 1))
        layer.update(held[:, :, :1] * last, held[:, :, :1] * -last)
        assert layer.keys[0, 0, last, 0] == last
        assert layer.values[0, 0, last, 0] == -last


def calls_of_ours(vlm: VLM, new_tokens: int) -> int:
    """Calls of functions of this project in one compiled generation."""
    profile = cProfile.Profile()
    inputs = prompt(1, 8)
    profile.enable()
    vlm.generate(inputs, decode="compiled", max_new_tokens=new_tokens, do_sample=False)
    profile.disable()
    root = str(Path(lightkv.__file__).parent)
    return sum(
        one.callcount
        for one in profile.getstats()
        if not isinstance(one.code, str) and one.code.co_filename.startswith(root)
    )


def test_nothing_of_ours_runs_in_the_layers_of_a_step(traced: Traced) -> None:
    vlm = tiny_llava(layers=LAYERS)
    calls_of_ours(vlm, 20)
    graphs = len(traced.graphs)
    per_step = (calls_of_ours(vlm, 20) - calls_of_ours(vlm, 10)) / 10
    assert len(traced.graphs) == graphs
    # What stands in for the model's forward, and the program.
    assert per_step == 2


def test_no_layer_of_a_step_waits(traced: Traced) -> None:
    vlm = tiny_llava(layers=LAYERS)
    assert programs(vlm, traced, 3) == 1
    names = {
        str(getattr(node.target, "__name__", node.target)) for node in traced.graphs[-1].graph.nodes
    }
    assert "scaled_dot_product_attention" in names
    assert not names & set(WAITS)
