"""Benchmarks in the formats of the published ones, made of the embedded model's pictures.

Each is the harness's own task file with another data set and without words that the embedded model
does not know.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightkv.embedded.questions import Item, items

WANTED = "benchmarks of lmms-eval need its light set: make test-lmms"
COUNT = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("lmms_eval") is None:
        for item in items:
            if "tests/lmms/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=WANTED))


def pope(number: int, item: Item) -> dict[str, Any]:
    return {
        "id": str(number),
        "question_id": str(number),
        "question": item.question,
        "answer": item.answer,
        "image_source": f"COCO_{number // 2}",
        "category": "random",
    }


def mme(number: int, item: Item) -> dict[str, Any]:
    return {
        "question_id": f"{number // 2}.png",
        "question": item.question,
        "answer": item.answer.capitalize(),
        "category": "existence" if number < COUNT // 2 else "text_translation",
    }


def chartqa(number: int, item: Item) -> dict[str, Any]:
    kind = "human_test" if number % 2 else "augmented_test"
    return {"type": kind, "question": item.question, "answer": item.answer}


def docvqa(number: int, item: Item) -> dict[str, Any]:
    return {
        "questionId": str(number),
        "question": item.question,
        "docId": number // 2,
        "answers": [item.answer, item.answer + " x"],
    }


def vizwiz(number: int, item: Item) -> dict[str, Any]:
    return {
        "question_id": f"VizWiz_{number}",
        "question": item.question,
        "answers": [item.answer] * 3 + ["other"] * 7,
        "category": "other",
    }


def coco(number: int, item: Item) -> dict[str, Any]:
    words = item.answer.split()
    return {
        "question_id": f"COCO_val2017_{number:012d}.jpg",
        "id": number,
        "question": "",
        "answer": [item.answer, " ".join(words[: len(words) // 2])],
    }


def textcaps(number: int, item: Item) -> dict[str, Any]:
    words = item.answer.split()
    captions = [item.answer, " ".join(words[len(words) // 2 :])]
    return {"image_id": f"{number:016x}", "question": "", "caption_str": captions}


BENCHMARKS: dict[str, tuple[str, str, str, Callable[[int, Item], dict[str, Any]]]] = {
    "tiny_pope": ("pope/pope.yaml", "test", "exist", pope),
    "tiny_mme": ("mme/mme.yaml", "test", "exist", mme),
    "tiny_chartqa": ("chartqa/chartqa.yaml", "test", "count", chartqa),
    "tiny_docvqa": ("docvqa/docvqa_val.yaml", "validation", "read", docvqa),
    "tiny_vizwiz": ("vizwiz_vqa/vizwiz_vqa_val.yaml", "val", "color", vizwiz),
    "tiny_coco": ("coco_cap/coco2017_cap_val.yaml", "val", "caption", coco),
    "tiny_textcaps": ("textcaps/textcaps_val.yaml", "val", "caption", textcaps),
}
"""Name -> the harness's file, split, kind of our questions, and how a question is a row there."""


def write_benchmark(folder: Path, name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """A task file and its data."""
    import yaml
    from datasets import Dataset, Image

    shipped, split, _, _ = BENCHMARKS[name]
    spec = importlib.util.find_spec("lmms_eval")
    assert spec is not None and spec.origin is not None
    data = folder / f"{name}.parquet"
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(str(data))
    content = {
        "include": str(Path(spec.origin).parent / "tasks" / shipped),
        "task": name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(data)}},
        "test_split": split,
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}},
        **more,
    }
    if name in ("tiny_coco", "tiny_textcaps"):
        content |= {"doc_to_text": "describe the image ."}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def rows_of(name: str) -> list[dict[str, Any]]:
    """Questions in the benchmark's format; two in a row are about one picture."""
    import io

    _, _, kind, row = BENCHMARKS[name]
    rows = []
    for number, item in enumerate(items(kind, COUNT)):
        buffer = io.BytesIO()
        item.image.save(buffer, format="PNG")
        rows.append(row(number, item) | {"image": {"bytes": buffer.getvalue(), "path": None}})
    return rows


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in BENCHMARKS:
        write_benchmark(folder, name, rows_of(name))
    yield folder
