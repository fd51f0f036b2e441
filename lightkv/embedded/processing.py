"""Tokenizer, image processor and chat template of the embedded model, all stock classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lightkv.embedded import vocabulary as words
from lightkv.embedded.scenes import PATCH, SIZE

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

CHAT_TEMPLATE: Final = (
    "{%- macro text_of(content) -%}"
    "{%- if content is string -%}{{ ' ' + content }}"
    "{%- else -%}"
    "{%- for part in content if part['type'] == 'image' %} <image>{% endfor -%}"
    "{%- for part in content if part['type'] == 'text' %} {{ part['text'] }}{% endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}"
    "{{ '<s>' }}"
    "{%- if not messages or messages[0]['role'] != 'system' -%}"
    "{{ ' system : " + words.DEFAULT_SYSTEM + "' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ ' ' + message['role'] + ' :' }}{{ text_of(message['content']) }}"
    "{%- if message['role'] == 'assistant' -%}{{ ' </s>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ ' assistant :' }}{%- endif -%}"
)
"""Images stand before the text of their message; a system sentence is supplied if none is given."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, punctuation and digits split, the rest ``<unk>``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(dict(words.TOKEN), unk_token=words.UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("colour"), "color"),
            normalizers.Replace(Regex("centre"), "center"),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=words.BOS,
        eos_token=words.EOS,
        pad_token=words.PAD,
        unk_token=words.UNKNOWN,
        extra_special_tokens={"image_token": words.IMAGE},
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """The stock LLaVA processor; 128 x 128 pictures become 256 image tokens."""
    from transformers import LlavaProcessor
    from transformers.models.clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=words.IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
