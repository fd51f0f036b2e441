"""Tokenizer, image processor and chat template of the embedded model, all stock classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH, SQUARE

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast


def chat_template(image: str, video: str = "") -> str:
    """A chat template: pictures and videos before the text of their message.

    A system sentence is supplied if none is given.

    Args:
        image: What stands for a picture, if it stands there.
        video: What stands for a video, if the model sees videos.
    """
    marks = {"image": image, "video": video}
    seen = "".join(
        f"{{%- for part in content if part['type'] == '{kind}' %}} {mark}{{% endfor -%}}"
        for kind, mark in marks.items()
        if mark
    )
    return (
        "{%- macro text_of(content) -%}"
        "{%- if content is string -%}{{ ' ' + content }}"
        "{%- else -%}"
        f"{seen}"
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


def build_tokenizer(
    known: Sequence[str] = words.WORDS, special: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, punctuation and digits split, the rest ``<unk>``.

    Args:
        known: The words in the order of their ids.
        special: Marks beside those of a language model, by the attribute that names them;
            ``image_token`` alone if None.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(known)}, unk_token=words.UNKNOWN)
    )
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
        extra_special_tokens=dict(special or {"image_token": words.IMAGE}),
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """The stock LLaVA processor; 128 x 128 pictures become 256 image tokens."""
    from transformers import LlavaProcessor
    from transformers.models.clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"height": SQUARE.width, "width": SQUARE.width},
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
        chat_template=chat_template(words.IMAGE),
    )
