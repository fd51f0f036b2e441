"""The model card of the native-resolution model, written from the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lightkv.embedded.card import share_rows, shown_patches, shown_share
from lightkv.embedded.publish import CARD, front_matter
from lightkv.embedded.qwen.items import KINDS

AIMS: Final = dict.fromkeys(KINDS, 0.95) | dict.fromkeys(
    ("where", "read", "legend", "order", "moves", "changes", "compare"), 0.90
)
"""Exact match that every kind was meant to reach."""

_HEADER: Final = (
    front_matter("qwen3-vl")
    + """\
# The native-resolution embedded model of lightkv

A stock `Qwen3VLForConditionalGeneration` with {millions:.2f} million parameters, trained from
random weights on generated pictures, videos and questions. It has what the square embedded model
lacks: rotary positions on three axes, grouped key heads, features added after the first decoder
layers, pictures of any aspect ratio, several pictures, videos and long questions. It is not a
useful assistant.

```python
import lightkv
from lightkv.embedded.qwen.items import native_items

vlm = lightkv.load("embedded-qwen")
item = native_items("legend", 1)[0]
print(vlm.ask(item.images[0], item.question).text, "|", item.answer)
```

Weights, tokenizer and image processor load through the auto classes of transformers. The stock
video processor needs torchvision; `lightkv.embedded.qwen.processing` has one that does not, and
importing it makes `AutoProcessor.from_pretrained` work for this folder.

## Parts

| part | what |
|---|---|
| picture | 64 to 192 pixels a side, any aspect ratio; 64 to 576 vision tokens of 8 x 8 |
| video | 4 to 12 frames of 64 to 96 pixels a side; two frames share a grid of vision tokens |
| vision tower | 3 layers, width 96, 3 heads, patches of 4 x 4 pixels; four are one token |
| deepstack | features of tower layers 0 and 1, added after decoder layers 0 and 1 |
| decoder | Qwen3, 16 layers, width 128, 4 heads of 32 on 2 key heads, feed-forward 384 |
| rotary positions | interleaved, 6 frequencies for time, 5 for height, 5 for width |
| tokenizer | {words} words, one token each; lower case, digits split, the rest `<unk>` |
| weights | float32, {megabytes:.1f} MB |

The prompt is `<s> system : look at the image . user : SEEN QUESTION assistant : ANSWER </s>`; what
is seen is `<vision> <image>... </vision>` for each picture, and
`< 0 . 2 seconds > <vision> <video>... </vision>` for every grid of a video.

## Kinds

The eight kinds of the square model, on pictures of 4, 6 or 9 cells (a side under 96 pixels has two
bands of cells), and

| kind | question | answer |
|---|---|---|
| `legend` | a blip is a red ring , ... . where is the blip ? | top left, yes, no, a code word |
| `order` | what comes first ? / what appears after the red ring ? | blue cross |
| `moves` | where does the red ring go ? | bottom right |
| `changes` | what changes ? | red ring turns blue / appears / vanishes |
| `compare` | which picture shows a red ring ? / has more rings ? | first, both, none, same |

A legend has 2 to 35 definitions of seven words. Video questions come in two to four wordings, and
half of them follow a hint that is right or wrong equally often. In a video a scene lasts two
equal frames; two to six scenes make a video.
"""
)

_RESULTS: Final = """\
## Exact match on held-out items

Greedy `generate`, {count} items per kind, 95 % Clopper-Pearson intervals. *Blank* shows an empty
background, *swapped* what the next item shows; *majority* is the share of the most frequent right
answer. Held-out items come from random streams that training cannot draw from.

| kind | as it is | blank | swapped | majority | aim |
|---|---|---|---|---|---|
{kinds}

{missed}

Video kinds by hint:

| kind | hint | exact match |
|---|---|---|
{hints}

`legend` by the number of words of the question:

| at most | exact match |
|---|---|
{lengths}
"""

_TRAINING: Final = """\
## Training

The run ended with `lightkv train-embedded --model qwen {options}`, seed {seed}, torch {torch}.
Where it was stopped and continued, its earlier parts may have had other options. A budget of
minutes gives another run each time, since what a batch holds depends on when it is drawn; with
`--steps` the seed decides all of an uninterrupted run. The log is `training_log.csv`, all numbers
of this card are in `metrics.json`.

| stage | steps | prompts | minutes |
|---|---|---|---|
{stages}

The first stage teaches the tower to name, for every token, the color, kind, digit, place of the
digit and grid row and column of what it shows; then the tower is frozen. Share right on object
tokens at its end: {patches}. The second stage trains mergers and decoder on batches of one sort
(pictures, legends, videos, pairs, definitions without a picture) and one size, many questions to a
prompt, first with few objects and a third of the vision tokens, at the end with all. A further loss
lets every vision token name, through the tied word embeddings, what it shows. Matrices are trained
with Muon, the rest with AdamW.
"""

_LIMITS: Final = """\
## Limits

- One model, one training seed; what is found on it are statements about it.
- The pictures are easy to see, every digit lies inside one token, and the tower had dense labels,
  so the content of a vision token is more local than in a large model.
- Both frames of a grid are equal, so nothing moves within a token.
- It knows a closed vocabulary and the wordings above.
- The first answer token is computed while the prompt is read: evicting vision tokens after that
  cannot change an answer of one word (`color`, `shape_at`, `count`, `exist`, `compare`).
"""


def write_card(metrics: dict[str, Any], folder: Path) -> None:
    """Write the card of the checkpoint in ``folder``."""
    (folder / CARD).write_text(render_card(metrics, folder), encoding="utf-8")


def render_card(metrics: dict[str, Any], folder: Path) -> str:
    """The text of the card."""
    from lightkv.embedded.vocabulary import ALL_WORDS

    training = metrics["training"]
    weights = folder / "model.safetensors"
    header = _HEADER.format(
        millions=training["parameters"] / 1e6,
        words=len(ALL_WORDS),
        megabytes=weights.stat().st_size / 1e6 if weights.exists() else 0.0,
    )
    course = _TRAINING.format(
        seed=training["seed"],
        torch=training["torch"],
        options=describe_options(training),
        patches=shown_patches(training["stages"][0]["final"]),
        stages="\n".join(
            f"| {stage['name']} | {stage['steps']} | {stage['images']} | {stage['minutes']} |"
            for stage in training["stages"]
        ),
    )
    return "\n".join([header, _results(metrics), course, _LIMITS])


def describe_options(training: dict[str, Any]) -> str:
    """Options of the command that last trained."""
    budget = ((name, training["budget"][name]) for name in ("minutes", "steps"))
    options = [
        *(f"--{name} {amount:g}" for name, amount in budget if amount is not None),
        f"--device {training['device']}",
        f"--workers {training['workers']}",
    ]
    if training["batch_factor"] != 1:
        options.append(f"--batch-factor {training['batch_factor']:g}")
    if training["compile"]:
        options.append("--compile")
    if training["bfloat16"] != (training["device"] == "cuda"):
        options.append("--bfloat16" if training["bfloat16"] else "--no-bfloat16")
    return " ".join(options)


def _results(metrics: dict[str, Any]) -> str:
    rows = metrics["kinds"]
    missed = [kind for kind, row in rows.items() if row["full"]["share"] < AIMS[kind]]
    told = ", ".join(f"`{kind}`" for kind in missed)
    return _RESULTS.format(
        count=metrics["count"],
        kinds="\n".join(
            f"| `{kind}` | {shown_share(row['full'])} | {shown_share(row['blank'])} "
            f"| {shown_share(row['swapped'])} | {row['majority']:.3f} | {AIMS[kind]:.2f} |"
            for kind, row in rows.items()
        ),
        missed=f"Below their aim: {told}." if missed else "Every kind reaches its aim.",
        hints="\n".join(
            f"| `{kind}` | {hint} | {shown_share(row)} |"
            for kind, by_hint in metrics["by_hint"].items()
            for hint, row in by_hint.items()
        ),
        lengths=share_rows(metrics["legend_by_length"]),
    )
