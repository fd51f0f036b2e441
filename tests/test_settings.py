"""Settings take effect, and are refused, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from lightkv import VLM, Request
from lightkv.check.tiny import ZOO
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.embedded import items
from lightkv.errors import InputError, InvalidValueError, UnknownNameError, UnsupportedError
from lightkv.session import Session
from lightkv.settings import REFUSED, Settings
from tests.graph.methods import KeepSome
from tests.tiny import prompt, stack, tiny_llava

SETTINGS: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
PLACES = ("keyword", "passed", "model's own")

#: Values that would act, of every setting that is refused and may stand in a generation_config.
REFUSED_VALUES: dict[str, Any] = {
    "use_cache": False,
    "cache_implementation": "static",
    "prefill_chunk_size": 4,
    "prompt_lookup_num_tokens": 2,
    "assistant_early_exit": 2,
    "use_mtp": True,
    "guidance_scale": 1.5,
    "token_healing": True,
    "penalty_alpha": 0.6,
    "num_beam_groups": 2,
    "constraints": [1],
    "force_words_ids": [[5]],
    "dola_layers": "low",
}
ONLY_KEYWORDS = {"past_key_values", "assistant_model", "custom_generate"}


def placed(vlm: VLM, place: str, **settings: Any) -> dict[str, Any]:
    """Keywords of a call in which the settings stand in that place."""
    if place == "keyword":
        return settings
    config = GenerationConfig() if place == "passed" else vlm.model.generation_config
    for name, value in settings.items():
        setattr(config, name, value)
    return {"generation_config": config} if place == "passed" else {}


@pytest.fixture
def vlm() -> VLM:
    return tiny_llava()


@pytest.fixture(params=["llava", "gemma3", "llava_next_mistral"])
def zoo(request: pytest.FixtureRequest) -> tuple[VLM, Any]:
    model = ZOO[request.param].build()
    return model, ZOO[request.param].rows(model.model.config)[0]


def test_every_refused_setting_is_tried() -> None:
    assert {*REFUSED_VALUES} | ONLY_KEYWORDS == {*REFUSED, "use_cache"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_a_refused_setting_is_named_wherever_it_stands(vlm: VLM, name: str, place: str) -> None:
    arguments = placed(vlm, place, **{name: REFUSED_VALUES[name]})
    with pytest.raises(UnsupportedError, match=name) as error:
        vlm.generate(prompt(1, 5), KeepSome(), **SETTINGS, **arguments)
    assert place == "keyword" or f"the {place} generation_config" in str(error.value)


@pytest.mark.parametrize("name", sorted(ONLY_KEYWORDS))
def test_refused_keywords_are_named(vlm: VLM, name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        vlm.generate(prompt(1, 5), KeepSome(), **SETTINGS, **{name: object()})


class Watch:
    def layers(self, facts: ModelFacts) -> range:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def see(self, view: LayerView) -> None:
        pass


@pytest.mark.parametrize("place", PLACES)
def test_no_cache_is_refused_on_windowed_models_too(zoo: tuple[VLM, Any], place: str) -> None:
    """There a cache is handed in, and the whole sequence would be fed again on top of it."""
    vlm, row = zoo
    arguments = placed(vlm, place, use_cache=False)
    with pytest.raises(UnsupportedError, match="use_cache"):
        vlm.generate(row, KeepSome(), **SETTINGS, **arguments)
    with pytest.raises(UnsupportedError, match="use_cache"):
        vlm.generate(row, observers=(Watch(),), **SETTINGS, **arguments)
    assert vlm.generate(row, **SETTINGS, **arguments).output.shape[0] == 1


@pytest.mark.parametrize("place", PLACES)
def test_beams_of_several_prompts_are_refused_wherever_they_stand(vlm: VLM, place: str) -> None:
    arguments = placed(vlm, place, num_beams=2)
    batch = stack([prompt(1, 5), prompt(1, 7, seed=1)])
    with pytest.raises(UnsupportedError, match="num_beams=2 with 2 prompts"):
        vlm.generate(batch, KeepSome(), max_new_tokens=3, **arguments)
    assert (
        vlm.generate(prompt(1, 5), KeepSome(), max_new_tokens=3, **arguments).output.shape[0] == 1
    )


@pytest.mark.parametrize(
    "harmless",
    [
        {"cache_implementation": "hybrid"},
        {"guidance_scale": 1.0},
        {"token_healing": False},
        {"use_mtp": False},
    ],
    ids=str,
)
def test_values_without_effect_are_no_reason_to_refuse(vlm: VLM, harmless: Any) -> None:
    placed(vlm, "model's own", **harmless)
    vlm.generate(prompt(1, 5), KeepSome(), **SETTINGS)


def test_a_keyword_goes_before_the_passed_config_and_that_before_the_models(vlm: VLM) -> None:
    vlm.model.generation_config.num_beams = 4
    assert Settings(vlm.model, {}).beams == 4
    passed = GenerationConfig(num_beams=3)
    assert Settings(vlm.model, {"generation_config": passed}).beams == 3
    assert Settings(vlm.model, {"generation_config": passed, "num_beams": 1}).beams == 1
    assert Settings(vlm.model, {"generation_config": GenerationConfig()}).beams == 4


def test_the_number_of_new_tokens_is_what_transformers_would_do(vlm: VLM) -> None:
    row = prompt(1, 5)
    length = row["input_ids"].shape[1]
    for limits in ({"max_new_tokens": 3}, {"max_length": length + 4}, {}):
        output = vlm.model.generate(**row, do_sample=False, **limits)
        assert output.shape[1] == length + Settings(vlm.model, limits).new_tokens(length)
    with pytest.raises(InvalidValueError, match="max_length"):
        vlm.generate(row, KeepSome(), max_length=length)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_new_tokens": 2.5}, InvalidValueError),
        ({"max_new_tokens": True}, InvalidValueError),
        ({"max_new_tokens": 0}, InvalidValueError),
        ({"max_new_tokens": "3"}, InvalidValueError),
        ({"num_beams": 0}, InvalidValueError),
        ({"do_sample": "no"}, InvalidValueError),
        ({"use_cache": 0}, InvalidValueError),
        ({"temperature": "warm", "do_sample": True}, InvalidValueError),
        ({"generation_config": {"max_new_tokens": 3}}, InvalidValueError),
        ({"max_new_token": 3}, UnknownNameError),
        ({"retention": 0.2}, UnknownNameError),
        ({"pixel_values": torch.zeros(1)}, InputError),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [None, KeepSome()], ids=["plain", "compressed"])
def test_wrong_settings_are_typed(vlm: VLM, settings: Any, error: Any, method: Any) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        vlm.generate(prompt(1, 5), method, **settings)


def test_the_nearest_setting_is_offered(vlm: VLM) -> None:
    with pytest.raises(UnknownNameError, match="did you mean max_new_tokens"):
        vlm.generate(prompt(1, 5), max_new_token=3)


def long_prompt(vlm: VLM) -> Request:
    picture = items("read", 1)[0].image
    return Request((picture,), "red " * 5000)


def asks(vlm: VLM) -> Iterator[Callable[[Request], Any]]:
    yield lambda request: vlm.ask_many([request])
    yield lambda request: vlm.ask_many([request], KeepSome())
    yield lambda request: Session(vlm).ask([request])
    yield lambda request: vlm.observe([request], Watch())


def test_a_prompt_longer_than_the_model_was_trained_to_is_refused(embedded: VLM) -> None:
    for ask in asks(embedded):
        with pytest.raises(InputError, match=r"5,\d+ positions, the model was trained to 1,024"):
            ask(long_prompt(embedded))


def test_an_answer_that_has_no_place_is_refused(embedded: VLM) -> None:
    item = items("read", 1)[0]
    request = Request((item.image,), item.question)
    length = embedded.encode([request])["input_ids"].shape[1]
    fits = 1024 - length
    with pytest.raises(InvalidValueError, match=f"max_new_tokens is {fits + 1}; .* {fits}:"):
        embedded.ask_many([request], max_new_tokens=fits + 1)
    assert embedded.ask_many([request], max_new_tokens=fits)
    session = Session(embedded)
    answer = session.ask([request], max_new_tokens=5)[0].text
    later = Request((item.image,), "red " * 900, ((item.question, answer),))
    with pytest.raises(InputError, match="positions"):
        session.ask([later])


def test_stretched_rotary_embeddings_reach_further(vlm: VLM) -> None:
    config = vlm.model.config
    assert vlm.family.trained_length(config) == 512
    config.text_config.rope_parameters = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "rope_theta": 1e4,
    }
    assert vlm.family.trained_length(config) == 2048


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "gemma3"])
def test_positions_taken_are_those_of_the_model(name: str) -> None:
    vlm = ZOO[name].build()
    seen: list[int] = []
    hook = vlm.model.get_decoder().rotary_emb.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(int((*args, *kwargs.values())[1].max())),
        with_kwargs=True,
    )
    for row in ZOO[name].rows(vlm.model.config)[:2]:
        seen.clear()
        vlm.model.generate(**row, max_new_tokens=1)
        assert int(vlm.family.positions_taken(vlm.layout(row))) == seen[0] + 1
    hook.remove()


def test_asking_is_greedy_whatever_the_checkpoint_says(embedded: VLM) -> None:
    item = items("read", 1)[0]
    config = embedded.model.generation_config
    before = embedded.ask(item.image, item.question).tokens
    config.num_beams = 2
    try:
        assert embedded.ask(item.image, item.question).tokens == before
        requests = [Request((item.image,), item.question)] * 2
        assert embedded.ask_many(requests, KeepSome())
        assert Session(embedded).ask(requests)[0].tokens == before
    finally:
        config.num_beams = None
