"""The checks: each runs the model and says how far it is from what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.check.drawn_methods import DrawnEviction, DrawnMerges
from lightkv.check.subject import Subject, difference, logits
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.engine.drivers import Driver
from lightkv.errors import LightKVError


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        name: Of the check.
        passed: Whether the model may be trusted in this respect.
        measured: What was measured, in words.
        error: Relative error, None where nothing is measured.
    """

    name: str
    passed: bool
    measured: str
    error: float | None = None


def run_checks(subject: Subject) -> list[Outcome]:
    """All checks of a subject; one that raises counts as failed."""
    outcomes = []
    for name, check in CHECKS.items():
        try:
            outcomes.append(check(subject, name))
        except (LightKVError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            outcomes.append(Outcome(name, False, f"{type(error).__name__}: {error}"))
    return outcomes


def _within(subject: Subject, name: str, error: float) -> Outcome:
    measured = f"{error:.1e} of the largest logit (limit {subject.limit:.0e})"
    return Outcome(name, error <= subject.limit, measured, error)


def parts(subject: Subject, name: str) -> Outcome:
    """Layers, rotary embedding and head are where the family says."""
    model, facts = subject.vlm.model, subject.vlm.facts
    path = subject.vlm.family.decoder_path(model)
    decoder = model.get_submodule(path)
    present = {
        f"{facts.layers} layers": len(decoder.layers) == facts.layers,
        "rotary_emb": hasattr(decoder, "rotary_emb"),
        "head": model.get_output_embeddings() is not None,
    }
    missing = [part for part, there in present.items() if not there]
    words = f"not found in {path}: {', '.join(missing)}" if missing else f"{path}: {facts.layers}"
    return Outcome(name, not missing, words if missing else f"{words} layers, rotary, head")


def vision_tokens(subject: Subject, name: str) -> Outcome:
    """Every vision token has its slot, and every cell of a grid exactly one token."""
    layout = subject.vlm.layout(subject.batch)
    wrong = int((layout.vision != (layout.segment >= 0)).sum())
    cells = 0
    for row, grids in enumerate(layout.grids):
        for number, grid in enumerate(grids):
            mine = (layout.segment[row] == number) & (layout.col[row] < grid.cols)
            place = (layout.frame[row] * grid.rows + layout.row[row]) * grid.cols + layout.col[row]
            wrong += not torch.equal(place[mine].sort().values.cpu(), torch.arange(grid.cells))
            cells += grid.cells
    pictures = int((layout.image.max(1).values + 1).sum())
    tokens = int(layout.vision.sum())
    measured = f"{tokens} tokens, {pictures} pictures, {cells} cells, {wrong} misplaced"
    return Outcome(name, wrong == 0 and tokens > 0, measured)


class _AllRows:
    """Keeps the attention of all layers."""

    def __init__(self) -> None:
        self.attention: list[Tensor] = []

    def layers(self, facts: ModelFacts) -> range:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> range:
        return range(facts.layers)

    def see(self, view: LayerView) -> None:
        every = torch.arange(view.layout.length, device=view.hidden.device)
        every = every.expand(view.layout.batch_size, -1)
        self.attention.append(view.read_attention().probabilities(every))


def attention_rows(subject: Subject, name: str) -> Outcome:
    """Attention recomputed from queries and keys is that of the eager kernel."""
    seen = _AllRows()
    model, kernel = subject.vlm.model, subject.vlm.attention
    model.set_attn_implementation("eager")
    try:
        subject.vlm.generate(
            subject.batch,
            observers=(seen,),
            **{**subject.settings(None), "max_new_tokens": 1, "min_new_tokens": 1},
        )
        with torch.no_grad():
            full = model.generate(
                **subject.vlm.model_inputs(subject.batch),
                max_new_tokens=1,
                do_sample=False,
                return_dict_in_generate=True,
                output_attentions=True,
            )
    finally:
        model.set_attn_implementation(kernel)
    real = subject.real
    worst = max(
        float((ours.transpose(1, 2)[real] - theirs.transpose(1, 2)[real].float()).abs().max())
        for ours, theirs in zip(seen.attention, full.attentions[0], strict=True)
    )
    limit = max(subject.limit, 4 * torch.finfo(subject.vlm.dtype).eps)
    measured = f"{worst:.1e} at most (limit {limit:.0e})"
    return Outcome(name, worst <= limit, measured, worst)


def an_edit_acts(subject: Subject, name: str) -> Outcome:
    """Emptying one layer's cache changes what the model says next."""
    run = subject.compressed(DrawnEviction(0.0, only_layer=0))
    changed = difference(logits(run.output), logits(subject.plain))
    measured = f"an emptied layer moves logits by {changed:.1e}"
    return Outcome(name, changed > 10 * subject.limit, measured)


def evict_nothing(subject: Subject, name: str) -> Outcome:
    """Keeping everything gives the plain model's logits, bit for bit."""
    run = subject.compressed(DrawnEviction(2.0))
    same = torch.equal(logits(run.output), logits(subject.plain))
    error = difference(logits(run.output), logits(subject.plain))
    return Outcome(name, same, "equal bit for bit" if same else f"off by {error:.1e}", error)


def eviction(subject: Subject, name: str) -> Outcome:
    """Evicting entries equals hiding their keys."""
    run = subject.compressed(DrawnEviction())
    return _within(subject, name, difference(logits(run.output), logits(subject.masked(run))))


def shortening(subject: Subject, name: str) -> Outcome:
    """Merging and dropping tokens equals hiding and overwriting them."""
    run = subject.compressed(DrawnMerges(_stage(subject)))
    oracle = subject.masked(run, _stage(subject))
    return _shortened(subject, name, run, oracle)


def both(subject: Subject, name: str) -> Outcome:
    """Merging in prefill, then evicting, equals both oracles at once."""
    run = subject.compressed(DrawnMerges(0) | DrawnEviction())
    return _shortened(subject, name, run, subject.masked(run, 0))


def _shortened(subject: Subject, name: str, run: Any, oracle: Any) -> Outcome:
    lengths = run.records[0].prefill_lengths
    if lengths[-1] >= lengths[0]:
        return Outcome(name, False, "nothing was merged, so nothing was tested")
    return _within(subject, name, difference(logits(run.output), logits(oracle)))


def _stage(subject: Subject) -> int:
    return min(1, subject.vlm.facts.layers - 2)


def batch_equals_single(subject: Subject, name: str) -> Outcome:
    """A row answers in a batch as it does alone."""
    method = DrawnMerges(_stage(subject)) | DrawnEviction()
    together = subject.compressed(method)
    scale = logits(together.output).abs().max()
    worst = 0.0
    for number, row in enumerate(subject.rows):
        alone = subject.generate(row, method, subject.answer[number : number + 1])
        apart = (logits(together.output)[number] - logits(alone.output)[0]).abs().max()
        worst = max(worst, float(apart / scale))
        for ours, theirs in zip(
            together.records[number].layers, alone.records[0].layers, strict=True
        ):
            if not torch.equal(ours.kept, theirs.kept):
                return Outcome(name, False, f"row {number} keeps other entries than alone")
    return _within(subject, name, worst)


def positions(subject: Subject, name: str) -> Outcome:
    """Decoded tokens have the positions they have without compression."""
    method = DrawnMerges(_stage(subject)) | DrawnEviction()
    with _watch_last_layer(subject) as plain:
        subject.generate_plain(subject.batch, subject.answer)
    with _watch_last_layer(subject) as ours:
        subject.generate(subject.batch, method, subject.answer)
    same = len(plain) == len(ours) and all(
        torch.equal(a, b) for a, b in zip(plain, ours, strict=True)
    )
    return Outcome(name, same, f"{len(ours)} steps {'as' if same else 'not as'} without")


@contextmanager
def _watch_last_layer(subject: Subject) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args[0].shape[1] == 1:
            seen.append(kwargs["position_embeddings"][0])

    layer = subject.vlm.model.get_decoder().layers[-1]
    handle = layer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def cache_lengths(subject: Subject, name: str) -> Outcome:
    """Each layer's cache holds what the record says, padded to the longest row."""
    held: list[list[int]] = []

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args[0].shape[1] == 1 and not held:
            held.append([int(layer.keys.shape[2]) for layer in kwargs["past_key_values"].layers])

    first = subject.vlm.model.get_decoder().layers[0]
    handle = first.register_forward_pre_hook(before, with_kwargs=True)
    method = DrawnMerges(_stage(subject)) | DrawnEviction()
    try:
        run = subject.generate(subject.batch, method, subject.answer)
    finally:
        handle.remove()
    recorded = [
        max(len(record.layers[layer].kept) for record in run.records)
        for layer in range(subject.vlm.facts.layers)
    ]
    same = held == [recorded]
    measured = f"{min(recorded)} to {max(recorded)} entries a layer"
    return Outcome(name, same, measured if same else f"{held} held, {recorded} recorded")


def drivers(subject: Subject, name: str) -> Outcome:
    """nnsight traces and hooks carry out a run alike, bit for bit."""
    method = DrawnMerges(_stage(subject)) | DrawnEviction()
    settings = subject.settings(subject.answer)
    ours, theirs = (
        logits(subject.vlm.generate(subject.batch, method, driver=driver, **settings).output)
        for driver in _DRIVERS
    )
    same = torch.equal(ours, theirs)
    outcome = "equal bit for bit" if same else f"off by {difference(ours, theirs):.1e}"
    return Outcome(name, same, outcome, difference(ours, theirs))


_DRIVERS: tuple[Driver, ...] = ("nnsight", "hooks")

CHECKS: dict[str, Callable[[Subject, str], Outcome]] = {
    "parts": parts,
    "vision tokens": vision_tokens,
    "attention rows": attention_rows,
    "an edit acts": an_edit_acts,
    "evict nothing": evict_nothing,
    "eviction = masking": eviction,
    "shortening = masking": shortening,
    "both = masking": both,
    "batch = single": batch_equals_single,
    "positions": positions,
    "cache lengths": cache_lengths,
    "nnsight = hooks": drivers,
}
