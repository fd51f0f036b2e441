"""A text tower from a CLIP checkpoint tells how near each patch is to the question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionModel

from lightkv import VLM, Request
from lightkv.check.tiny import ZOO
from lightkv.contract.layout import Grid
from lightkv.contract.view import QuestionWords
from lightkv.embedded import items
from lightkv.errors import InputError, ModelError, UnsupportedError
from lightkv.families.text_tower import text_tower
from lightkv.pruning import CDPruner
from tests.closeness import assert_close
from tests.merging.views import row_layout

LONGEST = 12  # tokens that the text tower reads at once


@pytest.fixture(scope="module")
def checkpoint(embedded: VLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CLIP of the embedded model's vision tower and a text tower with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?:."
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    (folder / "vocab.json").write_text(json.dumps({one: n for n, one in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    make: Any = CLIPTokenizer
    make(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    text = CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=24,
    )
    vision = {**embedded.model.config.vision_config.to_dict(), "projection_dim": 24}
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=24)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    yield folder
    text_tower.cache_clear()


def relevance_of(vlm: VLM, inputs: dict[str, Any], words: QuestionWords) -> torch.Tensor:
    layout = vlm.layout(inputs)
    names = frozenset({"text_relevance"})
    relevance = vlm.family.vision_features(vlm.model, inputs, layout, names, words).text_relevance
    assert relevance is not None
    return relevance


def test_relevance_is_the_cosine_in_the_joint_space(embedded: VLM, checkpoint: Path) -> None:
    """Two rows, each with its own words; the second text is longer than the tower reads at once."""
    pair = items("read", 2)
    inputs = embedded.encode([Request((item.image,), item.question) for item in pair])
    texts = ("what ?", "what is the red number ?")
    relevance = relevance_of(embedded, inputs, QuestionWords(texts, str(checkpoint)))
    layout = embedded.layout(inputs)
    assert bool((relevance[~layout.vision] == 0).all())
    model: Any = CLIPModel.from_pretrained(checkpoint)
    tokenizer: Any = CLIPTokenizer.from_pretrained(checkpoint)
    with torch.no_grad():
        tower = embedded.model.model.vision_tower
        reading = embedded.model.config.vision_feature_layer
        states = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[reading]
        for row, text in enumerate(texts):
            patches = model.visual_projection(
                model.vision_model.post_layernorm(states[row, 1:].float())
            )
            ids = tokenizer(text).input_ids
            cosines = []
            for start in range(0, len(ids), LONGEST):
                segment = ids[start : start + LONGEST]
                real = [1] * len(segment) + [0] * (LONGEST - len(segment))
                padded = torch.tensor([segment + [0] * (LONGEST - len(segment))])
                pooled = model.text_model(padded, attention_mask=torch.tensor([real])).pooler_output
                said = model.text_projection(pooled)
                cosines.append(torch.cosine_similarity(patches, said))
            assert len(cosines) == (1, 2)[row]
            assert_close(relevance[row][layout.vision[row]], torch.stack(cosines).mean(0))


def test_cdpruner_runs_where_a_checkpoint_holds_both_towers(
    embedded: VLM, checkpoint: Path
) -> None:
    method = CDPruner(tokens=9, text_tower=str(checkpoint))
    pair = [Request((item.image,), item.question) for item in items("read", 2)]
    together = embedded.ask_many(pair, method, max_new_tokens=2)
    for request, answer in zip(pair, together, strict=True):
        (alone,) = embedded.ask_many([request], method, max_new_tokens=2)
        assert alone.kept == answer.kept
        assert int(answer.record.layout.vision.sum()) > 9
        text = int(answer.record.layout.text.sum())
        assert answer.record.prefill_lengths[0] == text + 9
    by_name = f"cdpruner:tokens=9;text_tower='{checkpoint}'"
    assert embedded.ask_many(pair, by_name, max_new_tokens=1)[0].kept == together[0].kept


def test_the_question_decides(embedded: VLM, checkpoint: Path) -> None:
    item = items("read", 1)[0]
    inputs = embedded.encode([Request((item.image,), item.question)])
    one, other = (
        relevance_of(embedded, inputs, QuestionWords((text,), str(checkpoint)))
        for text in ("what is red ?", "where is blue ?")
    )
    assert not torch.equal(one, other)
    with pytest.raises(InputError, match="text after the image"):
        CDPruner(tokens=4).check_layout(row_layout([Grid(1, 3, 3)], text=0))


def test_wrong_checkpoints_are_refused_in_words(
    embedded: VLM, checkpoint: Path, tmp_path: Path
) -> None:
    item = items("read", 1)[0]
    with pytest.raises(ModelError, match="both towers"):
        embedded.ask(item.image, item.question, CDPruner(tokens=4, text_tower=str(tmp_path)))
    config = CLIPConfig.from_pretrained(checkpoint)
    config.vision_config.hidden_size = 16
    CLIPModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(UnsupportedError, match="16 features"):
        embedded.ask(item.image, item.question, CDPruner(tokens=4, text_tower=str(tmp_path)))
    text_tower.cache_clear()
    CLIPVisionModel(config.vision_config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="lacks"):
        embedded.ask(item.image, item.question, CDPruner(tokens=4, text_tower=str(tmp_path)))


def test_a_model_without_words_or_class_token_is_refused(checkpoint: Path) -> None:
    method = CDPruner(tokens=4, text_tower=str(checkpoint))
    for name, reason in (("llava", "text tower"), ("llava_onevision", "text tower")):
        vlm = ZOO[name].build()
        row = ZOO[name].rows(vlm.model.config)[0]
        with pytest.raises(UnsupportedError, match=reason):
            vlm.generate(row, method, max_new_tokens=1)
