"""What an intervention does to answers: log-probability and accuracy, question by question.

Answers are forced token by token through the decoding path itself, so interventions, compressed
caches and masks act on them exactly as on answers that the model gives on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from transformers import LogitsProcessor

from analysis.probing.capture import decoder_layers
from lightkv.contract.checks import check_count
from lightkv.contract.interventions import Intervention, Keys, Knockout, Queries
from lightkv.contract.types import check_type, fits, plain
from lightkv.errors import InputError, InvalidValueError
from lightkv.prompting import Request
from lightkv.settings import GREEDY

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM
    from lightkv.contract.compressor import Compressor

Tokens = tuple[int, ...]

PAIRS: Final[Sequence[tuple[Queries, Keys]]] = (
    ("text", "vision"),
    ("vision", "vision"),
    ("last", "vision"),
)
"""What goes blind to what, one after the other."""


def answer_tokens(vlm: VLM, answers: Sequence[str]) -> list[Tokens]:
    """Tokens of given answers, with the end-of-sequence token after each.

    Raises:
        InputError: If an answer is not a text or has no tokens.
    """
    if not isinstance(answers, list | tuple):
        raise InputError(f"the answers are of type {type(answers).__name__}; give a list of texts")
    end = min(vlm.stop_tokens)
    sequences = []
    for number, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise InputError(f"answer {number} is of type {type(answer).__name__}; give a text")
        tokens = vlm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise InputError(f"the answer {answer!r} has no tokens")
        sequences.append((*tokens, end))
    return sequences


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
        InputError: If there are not as many answers as requests, or they are not tokens.
    """
    if len(requests) != len(answers):
        raise InputError(f"{len(answers)} answers for {len(requests)} questions; give one for each")
    check_answers(answers)
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

    targets, lengths = padded(answers)
    logits = forced_logits(vlm, inputs, targets, compressor, interventions, seed)
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


def check_answers(answers: Sequence[Tokens]) -> None:
    """Refuse answers that are not given as tokens; raises :class:`InputError`."""
    for number, answer in enumerate(answers):
        if not fits(plain(answer), tuple[int, ...]) or not len(answer):
            raise InputError(
                f"answer {number} is {answer!r}; give its tokens, as answer_tokens makes them"
            )


def padded(answers: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Tokens (B, T), the last one repeated, and their number (B,)."""
    longest = max(map(len, answers))
    rows = [[*one, *one[-1:] * (longest - len(one))] for one in answers]
    return torch.tensor(rows), torch.tensor(list(map(len, answers)))


def forced_logits(
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
    pairs: Sequence[tuple[Queries, Keys]] = PAIRS,
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
        model: effect (nats, negative where the knock-out hurts) and lost (True if the untouched
        model gives the answer and this one does not).

    Raises:
        InputError: If an answer is not given as tokens.
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
    check_answers(answers)
    inputs = vlm.encode(requests)
    untouched = _scored(vlm, inputs, answers, None, (), 0)
    parts = []
    for source, target in pairs:
        for layer in centres:
            cut = Knockout(windows[layer], source, target)
            scored = _scored(vlm, inputs, answers, None, (cut,), 0)
            parts.append(
                scored.assign(
                    sample=range(len(scored)),
                    source=source,
                    target=target,
                    layer=layer,
                    effect=scored["logprob"] - untouched["logprob"],
                    lost=untouched["given"] & ~scored["given"],
                )
            )
    return pd.concat(parts, ignore_index=True)
