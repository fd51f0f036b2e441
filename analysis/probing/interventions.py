"""What an intervention does to answers: log-probability and accuracy, question by question.

Answers are forced token by token through the decoding path itself, so interventions, compressed
caches and masks act on them exactly as on answers that the model gives on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from analysis.probing.capture import decoder_layers
from lightkv.contract.checks import check_count
from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.contract.interventions import Intervention, Keys, Knockout, KVPatch, Queries
from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import check_type, fits, plain
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.prompting import Request
from lightkv.settings import GREEDY

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM
    from lightkv.contract.compressor import Compressor

Tokens = tuple[int, ...]


def answer_tokens(vlm: VLM, answers: Sequence[str]) -> list[Tokens]:
    """Tokens of given answers, with the end-of-sequence token behind each.

    Raises:
        InputError: If an answer is no text or has no tokens.
    """
    if not isinstance(answers, list | tuple):
        raise InputError(f"the answers are of type {type(answers).__name__}; give a list of texts")
    end = min(vlm.stop_tokens)
    found = []
    for number, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise InputError(f"answer {number} is of type {type(answer).__name__}; give a text")
        tokens = vlm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise InputError(f"the answer {answer!r} has no tokens")
        found.append((*tokens, end))
    return found


def score_answers(
    vlm: VLM,
    requests: Sequence[Request],
    answers: Sequence[Tokens],
    *,
    compressor: Compressor | None = None,
    interventions: Sequence[Intervention] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Log-probability of given answers, and whether the model would give them greedily.

    Args:
        vlm: The model.
        requests: Questions of one batch.
        answers: Tokens of the answer to each, see :func:`answer_tokens`.
        compressor: Score under this method.
        interventions: Score under these.
        seed: For methods that draw at random.

    Returns:
        One row per request: logprob (nats, sum over the answer's tokens) and given (True if every
        token of the answer was the most likely one; of equally likely ones that of lowest id, and
        of those that differ by rounding alone the one it favours).

    Raises:
        InputError: If there are not as many answers as requests, or they are no tokens.
    """
    if len(requests) != len(answers):
        raise InputError(f"{len(answers)} answers for {len(requests)} questions; give one for each")
    _check_answers(answers)
    inputs = vlm.encode(requests, compressor)
    return _scored(vlm, inputs, answers, compressor, interventions, seed)


def _scored(
    vlm: VLM,
    inputs: dict[str, Tensor],
    answers: Sequence[Tokens],
    compressor: Compressor | None,
    interventions: Sequence[Intervention],
    seed: int,
) -> pd.DataFrame:
    import pandas as pd

    targets, lengths = _padded(answers)
    logits = _forced_logits(vlm, inputs, targets, compressor, interventions, seed)
    # Generation stops when every row has said its end, which may be before the longest answer.
    targets, steps = targets[:, : logits.shape[1]], torch.arange(logits.shape[1])
    counted = steps < lengths[:, None]
    shares = torch.log_softmax(logits, -1).gather(2, targets[..., None])[..., 0]
    best = logits.argmax(-1) == targets
    return pd.DataFrame(
        {
            "logprob": torch.where(counted, shares, 0).sum(1).numpy(),
            "given": (best | ~counted).all(1).numpy(),
        }
    )


def _check_answers(answers: Sequence[Tokens]) -> None:
    for number, answer in enumerate(answers):
        if not fits(plain(answer), tuple[int, ...]) or not len(answer):
            raise InputError(
                f"answer {number} is {answer!r}; give its tokens, as answer_tokens makes them"
            )


def _padded(answers: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Tokens (B, T), the last one repeated, and their number (B,)."""
    longest = max(map(len, answers))
    rows = [[*one, *one[-1:] * (longest - len(one))] for one in answers]
    return torch.tensor(rows), torch.tensor(list(map(len, answers)))


def _forced_logits(
    vlm: VLM,
    inputs: dict[str, Tensor],
    targets: Tensor,
    compressor: Compressor | None,
    interventions: Sequence[Intervention],
    seed: int,
) -> Tensor:
    """Logits (B, T', vocabulary) float32 while ``targets`` (B, T) are said, T' at most T."""
    output = vlm.generate(
        inputs,
        compressor,
        seed=seed,
        interventions=interventions,
        logits_processor=[_Forced(targets.to(vlm.device), inputs["input_ids"].shape[1])],
        max_new_tokens=targets.shape[1],
        **GREEDY,
        output_logits=True,
        return_dict_in_generate=True,
    ).output
    return torch.stack(output.logits, 1).float().cpu()


class _Forced(LogitsProcessor):
    """Lets one token through at each step."""

    def __init__(self, targets: Tensor, start: int) -> None:
        self._targets = targets
        self._start = start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        target = self._targets[:, input_ids.shape[1] - self._start, None]
        # Beams and several returned sequences would repeat rows; greedy decoding does not.
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter_(1, target, 0.0)


def around(layer: int, layers: int, width: int) -> tuple[int, ...]:
    """The ``width`` layers around one, fewer at the ends of the network.

    Raises:
        InvalidValueError: If ``width`` is not a whole number of at least 1.
    """
    check_count("width", width)
    first = layer - (width - 1) // 2
    return tuple(number for number in range(first, first + width) if 0 <= number < layers)


def usual_width(layers: int) -> int:
    """A window of about a quarter of the layers: 9 of 32, as is usual for knock-outs."""
    return 2 * (layers // 8) + 1


def knockouts(
    vlm: VLM,
    requests: Sequence[Request],
    answers: Sequence[Tokens],
    *,
    pairs: Sequence[tuple[Queries, Keys]] = (
        ("text", "vision"),
        ("vision", "vision"),
        ("last", "vision"),
    ),
    width: int | None = None,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Attention knocked out in a window of layers around each layer.

    Args:
        vlm: The model.
        requests: Questions of one batch.
        answers: Tokens of the right answers.
        pairs: (queries that go blind, keys that they can't see), see
            :class:`lightkv.contract.interventions.Knockout`.
        width: Layers of a window; None for :func:`usual_width`.
        layers: Centres; None for all.

    Returns:
        Columns sample, source, target, layer, logprob, given, and the change against the untouched
        model: effect (nats, negative where the knock-out hurts) and lost (True if an answer that
        was given is no longer).

    Raises:
        InputError: If an answer is no tokens.
        InvalidValueError: If ``pairs``, ``width`` or a layer is out of range.
    """
    import pandas as pd

    count = vlm.facts.layers
    window = usual_width(count) if width is None else width
    check_type("pairs", plain(pairs), tuple[tuple[Queries, Keys], ...])
    if not pairs:
        raise InvalidValueError("pairs", pairs, "at least one (queries, keys)")
    centres = decoder_layers(vlm.facts, layers)
    windows = {layer: around(layer, count, window) for layer in centres}
    _check_answers(answers)
    inputs = vlm.encode(requests)
    untouched = _scored(vlm, inputs, answers, None, (), 0)
    parts = []
    for source, target in pairs:
        for layer in centres:
            cut = Knockout(windows[layer], source, target)
            found = _scored(vlm, inputs, answers, None, (cut,), 0)
            parts.append(
                found.assign(
                    sample=range(len(found)),
                    source=source,
                    target=target,
                    layer=layer,
                    effect=found["logprob"] - untouched["logprob"],
                    lost=untouched["given"] & ~found["given"],
                )
            )
    return pd.concat(parts, ignore_index=True)


class _Donors:
    """Observer that keeps every layer's cache entries."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.layout: TokenLayout | None = None

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return ()

    def see(self, view: LayerView) -> None:
        if view.keys is None or view.values is None:
            raise UnsupportedError(f"layer {view.layer} has no cache entries to give")
        self.keys[view.layer], self.values[view.layer] = view.keys.clone(), view.values.clone()
        self.layout = view.layout


def patches(
    vlm: VLM,
    requests: Sequence[Request],
    donors: Sequence[Request],
    answers: Sequence[Tokens],
    donor_answers: Sequence[Tokens],
    *,
    from_layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Vision entries of another image from one layer on: where does the answer follow them?

    Both answers are compared at the first token where they part, behind what they share.

    Args:
        vlm: The model.
        requests: Questions of one batch.
        donors: The same questions about other images of the same size.
        answers: Tokens of the right answers for the questions' own images.
        donor_answers: The same for the donors' images; they differ.
        from_layers: Layers from which on entries are the donors', each tried; None for all.

    Returns:
        Columns sample, layer (the first with the donors' entries), preference (log-probability of
        the donor's token minus that of the own one, nats), own and donor (whether that token is
        the most likely of all).

    Raises:
        InputError: If there are not as many donors, their vision tokens lie elsewhere, or two
            answers are the same.
        InvalidValueError: If a layer does not exist.
    """
    import pandas as pd

    firsts = decoder_layers(vlm.facts, from_layers)
    _check_answers([*answers, *donor_answers])
    if not len(donors) == len(requests) == len(answers) == len(donor_answers):
        raise InputError(
            f"{len(donors)} donors and {len(answers)} and {len(donor_answers)} answers for "
            f"{len(requests)} questions; give one of each for each"
        )
    place = torch.tensor([_parting(*pair) for pair in zip(answers, donor_answers, strict=True)])
    rows = torch.arange(len(place))
    watch = _Donors()
    vlm.observe(donors, watch)
    if watch.layout is None:
        raise UnsupportedError("the donors' run has shown no layer")
    inputs, count = vlm.encode(requests), vlm.facts.layers
    own, donor = _padded(answers)[0], _padded(donor_answers)[0]
    parts = []
    for layer in firsts:
        patch = KVPatch(tuple(range(layer, count)), watch.keys, watch.values, watch.layout)
        logits = _forced_logits(vlm, inputs, own, None, (patch,), 0)[rows, place]
        theirs, ours = donor[rows, place], own[rows, place]
        parts.append(
            pd.DataFrame(
                {
                    "sample": rows.numpy(),
                    "layer": layer,
                    "preference": (logits[rows, theirs] - logits[rows, ours]).numpy(),
                    "own": (logits.argmax(-1) == ours).numpy(),
                    "donor": (logits.argmax(-1) == theirs).numpy(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _parting(one: Tokens, other: Tokens) -> int:
    """First place where two answers differ."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    raise InputError("own and donor's answer are the same; pair images with different answers")


def donors_for(questions: Sequence[str], answers: Sequence[Any]) -> list[int | None]:
    """For each question another one with the same words and another answer, None if there is none.

    Each is given the next such question in order, so that donors vary.
    """
    found: list[int | None] = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        order = [(number + step) % len(questions) for step in range(1, len(questions))]
        fitting = [o for o in order if questions[o] == question and answers[o] != answer]
        found.append(fitting[0] if fitting else None)
    return found
