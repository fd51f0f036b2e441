"""The model card, written from the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lightkv.embedded.publish import CARD, front_matter
from lightkv.embedded.recipe import SHIPPED, LanguageStage, Recipe
from lightkv.embedded.vocabulary import WORDS

_HEADER: Final = (
    front_matter("llava")
    + """\
# The embedded model of lightkv

A stock `LlavaForConditionalGeneration` with {millions:.2f} million parameters, trained from random
weights on generated pictures and questions. It exists to study the compression of the KV
cache offline, on a laptop, in seconds: it has the parts and the prompt layout of a large LLaVA,
and its question kinds respond to compression in different ways. It is not a useful assistant.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor
from lightkv.embedded import CHECKPOINT, items

model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
processor = AutoProcessor.from_pretrained(CHECKPOINT)
item = items("read", 1)[0]
content = [{{"type": "image"}}, {{"type": "text", "text": item.question}}]
chat = [{{"role": "user", "content": content}}]
prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
inputs = processor(text=prompt, images=item.image, return_tensors="pt")
output = model.generate(**inputs, do_sample=False)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(output, skip_special_tokens=True), "|", item.answer)
```

## Parts

| part | what |
|---|---|
| picture | 128 x 128 pixels, patches of 8, 16 x 16 = 256 image tokens |
| vision tower | CLIP, 3 layers, width 128, 4 heads; last hidden state without the summary token |
| projector | linear, GELU, linear |
| decoder | Llama, 8 layers, width 128, 4 heads of 32, feed-forward 352, tied embeddings |
| tokenizer | {words} words, one token each; lower case, digits split, the rest `<unk>` |
| prompt | `<s> system : look at the image . user : <image> QUESTION assistant : ANSWER </s>` |
| weights | float32, {megabytes:.1f} MB |

Later turns repeat `user : ... assistant : ... </s>`. The chat template supplies the system
sentence if none is given and puts images before the text of their message.
"""
)

_KINDS: Final = """\
## Pictures and questions

A picture holds 3 to 6 shapes (6 kinds, 6 colors) and one or two four-digit numbers of different
colors on a 3 x 3 grid, over a textured background with noise.

| kind | question | answer | behaves like |
|---|---|---|---|
| `color` | what color is the circle ? | red | short VQA |
| `shape_at` | what shape is at the top left ? | ring | short VQA |
| `count` | how many red shapes ? / how many circles ? | 2 | counting |
| `exist` | is there a red circle ? | yes or no, balanced | POPE |
| `where` | where is the red circle ? | top left | grounding |
| `read` | what is the red number ? | 3 0 7 7 | TextVQA, DocVQA |
| `list` | list the colors of the shapes . | red blue red | reading order, several tokens |
| `caption` | describe the image . | top left red circle , ... | captioning |

`color` is asked where one shape has the kind, `where` where one shape has color and kind.
"""

_RESULTS: Final = """\
## Exact match on held-out items

Greedy `generate`, {count} items per kind, 95 % Clopper-Pearson intervals. *Blank* replaces the
picture by an empty background, *swapped* by the picture of the next item; *majority* is the share
of the most frequent right answer, what a model that ignores the picture can reach. Held-out items
come from random streams that training cannot draw from: every stream is keyed by its purpose
before its seed. The model may refuse, so a picture that does not show the asked object can score
below the majority answer.

| kind | full | blank | swapped | majority |
|---|---|---|---|---|
{kinds}

`read` by how many numbers the picture shows (the color word must choose):

| numbers | exact match |
|---|---|
{reading}

Second question of a two-turn conversation, the first answered correctly:

| kind of the second question | exact match |
|---|---|
{turns}

## Inputs it cannot answer

The model is trained to answer `i do not know` to questions about objects that are not in the
picture and to words outside its vocabulary.

| input | refused |
|---|---|
| well-formed question about an absent object | {absent} |
| unknown words, or known words in random order | {unknown} |
| {free_count} free-form sentences | {free} |

{answers}
"""

_TRAINING: Final = """\
## Training

`{command}` runs this recipe (here seed {seed}; {threads} threads, {device}, torch
{torch}). The schedule counts steps, the data are drawn from (seed, stage, step), and an
interrupted run continues exactly. Other hardware or libraries round differently, so expect similar
scores, not equal weights. The log is `training_log.csv`, all numbers of this card are in
`metrics.json`.

| stage | steps | batch | pictures | minutes |
|---|---|---|---|---|
{stages}
"""

_LEARNT: Final = """\
The first stage teaches the vision tower to name, for every patch, the color, kind, digit, place
of the digit and grid row and column of what it shows; then the tower is frozen, as CLIP is in
LLaVA. Share right on object patches at its end: {patches}.

The language stages train projector and decoder on many questions per picture, {conversation} of
the batches as conversations. An additional loss lets every image token name, through the tied
word embeddings, what its patch shows. The pictures start with few objects. Most steps use a
subset of the image tokens (all object patches and random background, at their true positions);
the last part uses all 256. Matrices are trained with Muon, everything else with AdamW.

Two numbers in a picture need the color word to choose. Against ignoring it: pictures with up to
three numbers, patch labels that tell a number's first digit from the others, double weight on
the first digit, helper questions about single digits and the place of a number, and decoder keys
that start correlated with the queries. They were introduced together, so the run does not say
which of them is needed. The shipped run was stopped and continued in between and has not been
repeated from the start; its minutes are wall time on cores shared with other work. Length, rates
and mix of the later stages were chosen from the scores on training batches of the earlier ones,
never from held-out items.
"""

_LIMITS: Final = """\
## Limits

- One model, one training seed. Differences between methods found on it are statements about it.
- The pictures are easy to see: saturated colors, clean outlines, every digit inside one patch.
  What a method does to fine detail that crosses patches does not show here.
- The vision tower had dense labels per patch and the image tokens were tied to words. Both are
  used in training only, but they are a stronger signal than a contrastive tower gets, so the
  content of an image token is more local and more readable than in a large model.
- Random eviction looks good: an object covers about a dozen patches, so some survive, and sets
  drawn independently per layer leave a patch alive somewhere. Compare with one set for all
  layers too.
- The first answer token is computed while the prompt is read. Evicting image tokens after that
  cannot change a one-token answer, so `color`, `shape_at`, `count` and `exist` cannot tell
  post-prefill methods apart; `where`, with two tokens, hardly can. Use `read`, `list` and
  `caption` for them, and the one-token kinds where compression comes before the question, in
  conversations, or inside the prefill.
- `read` rewards choosing few right tokens, `list` and `caption` reward covering the picture. A
  study with only one kind favors one kind of method.
- With hundreds of items the intervals above are a few points wide; many comparisons need a
  correction for multiplicity.
- It knows a closed vocabulary and one way to ask each question. Paraphrases may be refused or
  answered wrongly. Several images in one prompt run, but it was never trained on them.
"""


@dataclass(frozen=True)
class CardTexts:
    """What a card says beside its numbers, as formats.

    Attributes:
        header: The model and its parts, with ``millions``, ``words`` and ``megabytes``.
        words: How many words it knows.
        command: The command that trains it.
        learnt: What the stages teach, with ``patches`` and ``conversation``.
        limits: What should not be concluded from the model.
    """

    header: str
    words: int
    command: str
    learnt: str
    limits: str


TEXTS: Final = CardTexts(_HEADER, len(WORDS), "lightkv train-embedded", _LEARNT, _LIMITS)
"""Of the embedded LLaVA."""


def write_card(
    metrics: dict[str, Any], folder: Path, recipe: Recipe = SHIPPED, texts: CardTexts = TEXTS
) -> None:
    """Write the card of the checkpoint in ``folder``."""
    (folder / CARD).write_text(render_card(metrics, folder, recipe, texts), encoding="utf-8")


def render_card(
    metrics: dict[str, Any], folder: Path, recipe: Recipe = SHIPPED, texts: CardTexts = TEXTS
) -> str:
    """The text of the card.

    Args:
        metrics: As `lightkv.embedded.evaluate.evaluate` returns them, with ``training``.
        folder: Of the checkpoint.
        recipe: The recipe that the model was trained by.
        texts: Of the model.
    """
    training = metrics["training"]
    weights = folder / "model.safetensors"
    stages = [stage for stage in recipe.stages if isinstance(stage, LanguageStage)]
    parts = [
        texts.header.format(
            millions=training["parameters"] / 1e6,
            words=texts.words,
            megabytes=weights.stat().st_size / 1e6 if weights.exists() else 0.0,
        ),
        _KINDS,
        _results(metrics),
        _TRAINING.format(
            **{key: training[key] for key in ("seed", "threads", "device", "torch")},
            command=texts.command,
            stages="\n".join(
                f"| {s['name']} | {s['steps']} | {s['batch']} | {s['images']} | {s['minutes']} |"
                for s in training["stages"]
            ),
        ),
        texts.learnt.format(
            conversation=_range([stage.text.conversation for stage in stages]),
            patches=shown_patches(training["stages"][0]["final"]),
        ),
        texts.limits,
    ]
    return "\n".join(parts)


def _results(metrics: dict[str, Any]) -> str:
    kinds = metrics["kinds"].items()
    refusal, free = metrics["refusal"], metrics["free_form"]
    turns = metrics["second_turn"]
    return _RESULTS.format(
        count=metrics["count"],
        kinds="\n".join(
            f"| `{name}` | {shown_share(row['full'])} | {shown_share(row['blank'])} "
            f"| {shown_share(row['swapped'])} | {row['majority']:.3f} |"
            for name, row in kinds
        ),
        reading=share_rows(metrics["read_by_numbers"]),
        turns=share_rows({**turns["by_kind"], "all": turns["all"]}),
        absent=shown_share(refusal["absent"]),
        unknown=shown_share(refusal["unknown"]),
        free=shown_share(free["refused"]),
        free_count=free["refused"]["n"],
        answers="\n".join(
            f"- `{question}`: {answer or '(empty)'}" for question, answer in free["answers"].items()
        ),
    )


def _range(shares: list[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{high:.0%}" if low == high else f"{low:.0%} to {high:.0%}"


def shown_patches(final: dict[str, float]) -> str:
    """Share right of every patch label, in words."""
    from lightkv.embedded.objectives import PATCH_CLASSES

    names = [name for name in PATCH_CLASSES if name in final]
    return ", ".join(f"{name} {final[name]:.3f}" for name in names)


def share_rows(shares: dict[str, dict[str, float]]) -> str:
    """A table row for every share."""
    return "\n".join(f"| {name} | {shown_share(row)} |" for name, row in shares.items())


def shown_share(row: dict[str, float]) -> str:
    """A share with its interval and how many it is of."""
    return f"{row['share']:.3f} ({row['low']:.3f}-{row['high']:.3f}, n={row['n']:.0f})"
