"""What the card of the encoder-free model says beside its numbers."""

from __future__ import annotations

from typing import Final

from lightkv.embedded.card import CardTexts
from lightkv.embedded.fuyu.vocabulary import KNOWN
from lightkv.embedded.publish import front_matter

_HEADER: Final = (
    front_matter("fuyu")
    + """\
# The encoder-free embedded model of lightkv

A stock `FuyuForCausalLM` with {millions:.2f} million parameters, trained from random weights on
the pictures and questions of the square embedded model. It has no vision encoder: one linear map
takes a patch into the decoder, whose layers do all the seeing, each patch after those above it and
to its left. It is not a useful assistant.

```python
import lightkv
from lightkv.embedded import items

vlm = lightkv.load("embedded-fuyu")
item = items("read", 1)[0]
print(vlm.ask(item.image, item.question).text, "|", item.answer)
```

Weights, tokenizer and image processor load through the auto classes of transformers. The stock
processor expects the marks of one released checkpoint and has no chat template;
`lightkv.embedded.fuyu.processing` has one that writes the same inputs, and importing it makes
`AutoProcessor.from_pretrained` work for this folder.

## Parts

| part | what |
|---|---|
| picture | 128 x 128 pixels, patches of 8: 16 rows of 16 vision tokens and a line break |
| decoder | Persimmon, 10 layers, width 128, 4 heads of 32, feed-forward 512, tied embeddings |
| rotary positions | on one axis, half of every head |
| tokenizer | {words} words, one token each; lower case, digits split, the rest `<unk>` |
| prompt | `(<image> ... <line>) ... <s> system : look at the image . user : QUESTION assistant :` |
| weights | float32, {megabytes:.1f} MB |

The picture stands before everything else, as in every Fuyu; a prompt holds one.
"""
)

_LEARNT: Final = """\
The first stage teaches the first four decoder layers to name, for every patch, the color, kind,
digit, place of the digit and grid row and column of what it shows; a patch sees only those before
it, so the upper edge of a shape can't tell its kind. Share right on object patches at its end:
{patches}.

The language stages train everything on many questions per picture, {conversation} of the batches
as conversations. An additional loss lets every vision token name after the fourth layer, through
the tied word embeddings, what its patch shows. The pictures start with few objects. Most steps use
a subset of the vision tokens (all object patches and random background, at their true positions);
the last part uses all 256. Matrices are trained with Muon, everything else with AdamW. Lengths,
rates and mixes are the square model's.
"""

_LIMITS: Final = """\
## Limits

- One model, one training seed. Differences between methods found on it are statements about it.
- Vision tokens were tied to words after the fourth layer. Methods that merge or prune before that
  layer meet tokens which hold little more than pixels.
- Evicting vision tokens after the prompt is read cannot change an answer of one token.
- It knows a closed vocabulary and one way to ask each question, and reads one picture.
"""

TEXTS: Final = CardTexts(
    _HEADER, len(KNOWN), "lightkv train-embedded --model fuyu", _LEARNT, _LIMITS
)
