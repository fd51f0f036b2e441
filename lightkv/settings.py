"""Settings of ``model.generate`` as they take effect, and which of them are refused.

A setting may stand in a keyword, in a ``generation_config`` that is passed, or in the one that came
with the checkpoint.  All decisions that depend on a setting read it here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from lightkv.contract.types import check_type
from lightkv.errors import InputError, InvalidValueError, UnknownNameError, UnsupportedError

GREEDY: Final[Mapping[str, Any]] = {"do_sample": False, "num_beams": 1}
"""The most likely token at each step, whatever the checkpoint's own settings are."""

_HUB = "a strategy whose code is fetched from a hub: leave it out"

REFUSED: Final[Mapping[str, str]] = {
    "past_key_values": "a cache handed in: start from the whole prompt, or use a Session",
    "cache_implementation": "a cache other than the dynamic one: leave it out",
    "prefill_chunk_size": "chunked prefill: leave it out",
    "assistant_model": "assisted decoding: leave it out",
    "prompt_lookup_num_tokens": "assisted decoding: leave it out",
    "assistant_early_exit": "assisted decoding: leave it out",
    "use_mtp": "assisted decoding: leave it out",
    "guidance_scale": "a second pass of the model at every step: leave it out",
    "token_healing": "a second generation for the end of the prompt: leave it out",
    "custom_generate": "a generation loop of your own: leave it out",
    "penalty_alpha": _HUB,
    "num_beam_groups": _HUB,
    "constraints": _HUB,
    "force_words_ids": _HUB,
    "dola_layers": _HUB,
}
"""Settings under which compression would be silently wrong or crash half-way, and the advice."""

_HARMLESS: Final[Mapping[str, tuple[object, ...]]] = {
    # transformers itself takes it for the dynamic cache.
    "cache_implementation": ("hybrid",),
    "guidance_scale": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "token_healing": (False,),
    "use_mtp": (False,),
}

_TYPES: Final[Mapping[str, tuple[Any, int | None]]] = {
    "max_new_tokens": (int, 1),
    "min_new_tokens": (int, 0),
    "max_length": (int, 1),
    "min_length": (int, 0),
    "num_beams": (int, 1),
    "num_return_sequences": (int, 1),
    "top_k": (int, 0),
    "temperature": (float, None),
    "top_p": (float, None),
    "do_sample": (bool, None),
    "use_cache": (bool, None),
    "return_dict_in_generate": (bool, None),
    "output_logits": (bool, None),
    "output_scores": (bool, None),
}
"""Type and least value of the settings that people set."""


class Settings:
    """What holds during one call of ``model.generate``.

    Args:
        model: The model, with the ``generation_config`` of its checkpoint.
        keywords: Keywords of the call, perhaps a ``generation_config`` among them.

    Raises:
        InvalidValueError: If a setting is of a wrong type or out of range.
        UnknownNameError: If a keyword is not a setting of ``generate``.
    """

    def __init__(self, model: Any, keywords: Mapping[str, Any]) -> None:
        from transformers import GenerationConfig

        self._keywords = dict(keywords)
        passed = keywords.get("generation_config")
        check_type("generation_config", passed, GenerationConfig | None)
        self._configs = [one for one in (passed, model.generation_config) if one is not None]
        known = _known(model, self._configs)
        for name in keywords:
            if name not in known:
                raise UnknownNameError("setting of generate", name, known)
        for name, (kind, least) in _TYPES.items():
            value = self[name]
            check_type(name, value, kind | None)
            if least is not None and value is not None and value < least:
                raise InvalidValueError(name, value, f"at least {least}")

    def __getitem__(self, name: str) -> Any:
        """A setting's value; None if it is not set anywhere."""
        if name in self._keywords:
            return self._keywords[name]
        values = (getattr(config, name, None) for config in self._configs)
        return next((value for value in values if value is not None), None)

    @property
    def beams(self) -> int:
        """Beams per prompt."""
        return int(self["num_beams"] or 1)

    def new_tokens(self, prompt: int) -> int:
        """Most tokens that may follow a prompt of ``prompt`` tokens."""
        if self["max_new_tokens"] is not None:
            return int(self["max_new_tokens"])
        # If no limit is set, transformers stops after twenty.
        return 20 if self["max_length"] is None else int(self["max_length"]) - prompt

    def refuse(self) -> None:
        """Refuse what would be silently wrong with a cache that is cut.

        Raises:
            UnsupportedError: See above; the message names the setting.
        """
        for name, advice in REFUSED.items():
            value = self[name]
            if value is not None and value not in _HARMLESS.get(name, ()):
                raise UnsupportedError(f"{name}={_short(value)} is {advice}{self._where(name)}")
        if self["use_cache"] is False:
            raise UnsupportedError(
                "use_cache=False leaves no cache to compress: set it to True"
                + self._where("use_cache")
            )

    def _where(self, name: str) -> str:
        """Where a setting stands, unless it is a keyword."""
        if name in self._keywords:
            return ""
        passed = len(self._configs) > 1 and getattr(self._configs[0], name, None) is not None
        whose = "passed" if passed else "model's own"
        return f" (it stands in the {whose} generation_config)"


def refuse_doubles(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse a name that is both an input and a setting.

    Raises:
        InputError: See above.
    """
    shared = sorted({*inputs} & {*settings})
    if shared:
        raise InputError(f"{shared[0]} is passed twice: in the inputs and as a setting")


def _known(model: Any, configs: list[Any]) -> set[str]:
    """Names of all settings that ``model.generate`` takes."""
    functions = (model.generate, model.forward, model.prepare_inputs_for_generation)
    names = {name for one in functions for name in inspect.signature(one).parameters}
    names -= {"kwargs", "model_kwargs", "args", "inputs", "input_ids"}
    fields = {name for config in configs for name in vars(config) if not name.startswith("_")}
    return names | fields | {*REFUSED} | {"tokenizer"}


def _short(value: object) -> str:
    """A value in at most one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
