"""What a probe takes and refuses: pictures, questions, options, sizes and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from PIL import Image

from analysis.probing.probe import (
    CaptureSizeWarning,
    expected_bytes,
    load,
    probe,
    probe_inputs,
    save,
)
from analysis.probing.quantities.geometry import FeatureDivergence, LocalSimilarity, MergeError
from lightkv import VLM
from lightkv.errors import InputError, InvalidValueError, StoreError, UnknownNameError
from tests.probing.models import BATCH
from tests.tiny import prompt


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quantities": ["block_sums"]}, UnknownNameError, "did you mean block_sum.*known: .*keys"),
        ({"quantities": []}, InvalidValueError, "at least one quantity"),
        ({"quantities": ["kept", "kept"]}, InvalidValueError, "each quantity once"),
        (
            {"quantities": [FeatureDivergence(windows=(1,)), MergeError(windows=(2,))]},
            InvalidValueError,
            "windows of merge_error",
        ),
        ({"layers": [5]}, InvalidValueError, "from 0 to 4"),
        ({"layers": [-1]}, InvalidValueError, "hidden states only"),
        ({"layers": [1, 1]}, InvalidValueError, "each once"),
        ({"layers": []}, InvalidValueError, "at least one layer"),
        ({"heads": "median"}, InvalidValueError, "'mean', 'all', or a list"),
        ({"heads": [4]}, InvalidValueError, "from 0 to 3"),
        ({"heads": [-1]}, InvalidValueError, "from 0 to 3"),
        ({"heads": []}, InvalidValueError, "at least one head"),
        ({"heads": [1, 1]}, InvalidValueError, "each once"),
        ({"heads": [1.5]}, InvalidValueError, "whole number"),
        ({"quantities": ["hidden"], "heads": [1]}, InvalidValueError, "'mean' for hidden"),
        ({"quantities": ["hidden"], "heads": "all"}, InvalidValueError, "'mean' for hidden"),
        ({"batches": []}, InputError, "at least one question"),
        ({"batches": [prompt(1, 4), prompt(0, 5)]}, InputError, "question 1 has no image"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_input(tiny_vlm: VLM, change: Any, error: type[Exception], message: str) -> None:
    options = {"batches": [BATCH], "quantities": ["block_sum"], **change}
    with pytest.raises(error, match=message):
        probe_inputs(tiny_vlm, **options)


PICTURE = Image.new("RGB", (128, 128), "navy")


@pytest.mark.parametrize(
    ("images", "questions", "message"),
    [
        ([PICTURE], [], "no question"),
        ([PICTURE], ["what ?", "where ?"], "1 images for 2 questions"),
        ([PICTURE, None], ["what ?", "where ?"], "question 1 has no image"),
        ([[]], ["what ?"], "question 0 has no image"),
        ([PICTURE], [" "], "empty"),
    ],
)
def test_wrong_images_and_questions(
    embedded: VLM, images: Any, questions: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        probe(embedded, images, questions, "block_sum")


def test_questions_in_batches_about_one_image(embedded: VLM) -> None:
    questions = ["what color is the circle ?", "how many rings ?", "describe the image ."]
    wanted = ["block_sum", LocalSimilarity(distances=(1,))]
    data = probe(embedded, PICTURE, questions, wanted, batch_size=2)
    assert data.sizes["sample"] == 3 and data.question.values.tolist() == questions
    words = [text for text in data.key_text.values[0] if text]
    assert "circle" in [word.strip() for word in words]
    with pytest.raises(InvalidValueError, match="batch_size"):
        probe(embedded, PICTURE, questions, wanted, batch_size=0)


def test_a_large_capture_says_beforehand_what_it_takes(
    tiny_vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    import analysis.probing.probe as probing

    assert expected_bytes(tiny_vlm, "attention_map", 26, layers=2) == 2 * 26 * 26 * 4
    assert expected_bytes(tiny_vlm, "attention_map", 26, heads="all") == 5 * 4 * 26 * 26 * 4
    assert expected_bytes(tiny_vlm, "attention_map", 26, heads=[1, 3]) == 5 * 2 * 26 * 26 * 4
    assert expected_bytes(tiny_vlm, ["keys", "block_sum"], 10, layers=1, heads=[1]) == (
        expected_bytes(tiny_vlm, "keys", 10, layers=1)
        + expected_bytes(tiny_vlm, "block_sum", 10, layers=1)
    )
    assert expected_bytes(tiny_vlm, "keys", 10, layers=1) == 10 * 32 * 4
    monkeypatch.setattr(probing, "LARGE_CAPTURE", 2**15)
    with pytest.warns(CaptureSizeWarning, match="attention_map"):
        probe_inputs(tiny_vlm, [prompt(1, 60)], "attention_map")


def test_files_that_are_no_datasets(tmp_path: Path, everything: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="can't be read"):
        load(tmp_path / "missing.nc")
    (tmp_path / "text.nc").write_text("no dataset")
    with pytest.raises(StoreError, match="can't be read"):
        load(tmp_path / "text.nc")
    with pytest.raises(StoreError, match="can't be written"):
        save(everything, tmp_path / "no" / "folder.nc")
