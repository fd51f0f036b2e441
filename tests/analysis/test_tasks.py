"""Tasks by name, and files of questions with everything that can be wrong with them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from analysis.tasks import FolderTask, task, task_names
from lightkv.embedded.question_kinds import QUESTION_KINDS
from lightkv.embedded.questions import items
from lightkv.errors import InputError, InvalidValueError, LightKVError, UnknownNameError
from tests.analysis.asked import run
from tests.analysis.fake import FakeVLM

HEADER = {"task": "toy", "metric": "exact", "max_new_tokens": 5, "prompt": "{question} Be brief."}


def write(folder: Path, *lines: object) -> Path:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    file = folder / "toy.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text(text, encoding="utf-8")
    return file


def question(**changes: object) -> dict[str, object]:
    return {"image": "a.png", "question": "Which color?", "answers": ["red"]} | changes


def test_every_kind_is_a_task() -> None:
    others = {"embedded-qwen", "folder", "lmms"}
    assert {f"embedded/{kind}" for kind in QUESTION_KINDS} | others == set(task_names())


def test_embedded_items_are_the_held_out_ones_and_fit_the_token_limit() -> None:
    for kind in QUESTION_KINDS:
        embedded_task = task(f"embedded/{kind}")
        asked = embedded_task.items(20, seed=3)
        wanted = items(kind, 20, seed=3)
        assert [item.question for item in asked] == [item.question for item in wanted]
        assert [item.answers for item in asked] == [(item.answer,) for item in wanted]
        assert [item.index for item in asked] == list(range(20))
        # One word is one token, and the end of the answer takes another.
        assert max(len(item.answer.split()) for item in wanted) < embedded_task.max_new_tokens


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="embedded/color"):
        task("embedded/colour")


@pytest.mark.parametrize("samples", [0, -1, None])
def test_embedded_samples_are_checked(samples: int | None) -> None:
    with pytest.raises(InvalidValueError, match="samples"):
        task("embedded/color").items(samples, 0)


def test_an_embedded_task_takes_no_argument() -> None:
    with pytest.raises(InvalidValueError, match="argument"):
        task("embedded/color:5")


def test_folder_task_reads_questions(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER, question(id=7), question(image=["a.png", "a.png"]))
    folder = task(f"folder:{file}")
    assert (folder.name, folder.metric, folder.max_new_tokens) == ("folder/toy", "exact", 5)
    by_index = {item.index: item for item in folder.items(None, seed=0)}
    assert by_index[0].identity == "7"
    assert by_index[1].identity == "line 3"
    assert by_index[0].question == "Which color? Be brief."
    assert len(by_index[1].images) == 2


def test_a_file_of_nothing_but_questions(tmp_path: Path) -> None:
    plain = {"image": "a.png", "question": "Which color?", "answer": "red"}
    file = write(tmp_path, plain, question(answers=["red", "dark red"]))
    folder = task(f"folder:{file}")
    assert (folder.name, folder.metric, folder.max_new_tokens) == ("folder/toy", "exact", 32)
    by_index = {item.index: item for item in folder.items(None, seed=0)}
    assert [by_index[index].answers for index in (0, 1)] == [("red",), ("red", "dark red")]
    assert [by_index[index].identity for index in (0, 1)] == ["line 1", "line 2"]
    assert by_index[0].question == "Which color?"
    assert by_index[0].system is None


def test_what_a_file_says_of_a_question_comes_with_its_row(tmp_path: Path) -> None:
    facts = {"difficulty": "hard", "steps": 3, "share": 0.5, "known": True}
    file = write(tmp_path, question(facts=facts), question())
    vlm = FakeVLM(lambda request, compressor: "red")
    frame = run(vlm, tasks=[f"folder:{file}"], samples=None).set_index("item")
    for name, value in facts.items():
        said = frame[f"fact_{name}"]
        assert (said[0] == value).all() and said[1].isna().all()


def test_a_header_may_say_one_thing_only(tmp_path: Path) -> None:
    folder = task(f"folder:{write(tmp_path, {'metric': 'anls'}, question())}")
    assert (folder.name, folder.metric) == ("folder/toy", "anls")
    assert folder.items(None, 0)[0].identity == "line 2"


def test_folder_order_depends_on_the_seed_and_not_on_the_count(tmp_path: Path) -> None:
    folder = FolderTask.read(write(tmp_path, HEADER, *[question(id=str(n)) for n in range(20)]))
    ten = [item.identity for item in folder.items(10, seed=1)]
    assert ten == [item.identity for item in folder.items(20, seed=1)][:10]
    assert ten != [item.identity for item in folder.items(10, seed=2)]


def test_folder_fingerprint_follows_what_is_asked_and_the_truth_what_is_right(
    tmp_path: Path,
) -> None:
    def read(*lines: object) -> tuple[str, str]:
        folder = FolderTask.read(write(tmp_path, *lines))
        return folder.fingerprint, folder.truth

    plain = read(HEADER, question())
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "b.png")
    asked = [
        read(HEADER, question(question="Which?")),
        read(HEADER, question(image="b.png")),
        read(HEADER, question(image=["a.png", "a.png"])),
        read(HEADER, question(earlier="What?")),
        read(HEADER, question(facts={"hard": True})),
        read(HEADER, question(facts={"hard": False})),
        read(HEADER | {"prompt": "{question} Now."}, question()),
        read(HEADER | {"system": "Look."}, question()),
        read(HEADER, question(), question()),
        read(HEADER, question(image="none.png")),
    ]
    assert len({plain[0], *(fingerprint for fingerprint, _ in asked)}) == 1 + len(asked)
    for same in (
        read(HEADER | {"metric": "anls", "task": "other", "max_new_tokens": 9}, question()),
        read({}, question(question="Which color? Be brief.", id="other")),
        read(HEADER, question(facts={})),
    ):
        assert same == plain
    fingerprint, truth = read(HEADER, question(answers=["blue"]))
    assert (fingerprint, truth != plain[1]) == (plain[0], True)


def test_a_picture_with_other_content_is_another_question(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER, question())
    before = FolderTask.read(file).fingerprint
    Image.new("RGB", (4, 4), "green").save(tmp_path / "a.png")
    assert FolderTask.read(file).fingerprint != before
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "elsewhere" / "a.png")
    moved = FolderTask.read(file.rename(tmp_path / "elsewhere" / "toy.jsonl"))
    Image.new("RGB", (4, 4), "red").save(tmp_path / "elsewhere" / "a.png")
    assert FolderTask.read(moved.path).fingerprint == before


def test_questions_about_one_picture_are_told(tmp_path: Path) -> None:
    folder = FolderTask.read(write(tmp_path, question(), question(), question(image=["a.png"] * 2)))
    assert [item.picture for item in folder.questions] == ["a.png", "a.png", "a.png a.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER,), "at least one question"),
        ((), "at least one question"),
        (("", " "), "at least one question"),
        (("{broken", question()), "line 1: not JSON"),
        (("[1]", question()), "line 1: not a JSON object"),
        (({"task": "toy", "metric": "bleurt"}, question()), "line 1: unknown metric 'bleurt'"),
        (({"task": " "}, question()), "line 1: 'task' must be"),
        (({"metric": 3}, question()), "line 1: 'metric' must be"),
        ((HEADER | {"max_new_tokens": 0}, question()), "line 1: 'max_new_tokens'"),
        ((HEADER | {"prompt": "Hello"}, question()), "line 1: 'prompt'"),
        ((HEADER | {"metrics": "exact"}, question()), "line 1: unknown fields"),
        ((HEADER, question(), question(answers=[])), "line 3: 'answers'"),
        ((question(), question(answer="red")), "line 2: 'answer' or 'answers'"),
        (({"image": "a.png", "question": "Which?"},), "line 1: 'answer' or 'answers'"),
        (({"image": "a.png", "question": "Which?", "answer": ""},), "line 1: 'answer'"),
        ((question(task="toy"),), "line 1: unknown fields"),
        ((question(), HEADER), "line 2: unknown fields"),
        ((HEADER, question(), "", question(question=" ")), "line 4: 'question'"),
        ((HEADER, question(image=3)), "line 2: 'image'"),
        ((HEADER, question(facts=["hard"])), "line 2: 'facts' must be an object"),
        ((HEADER, question(facts={"hard": None})), "line 2: 'facts' must be an object"),
        ((HEADER, question(imgae="a.png")), "line 2: unknown fields"),
        ((HEADER | {"metric": "vqa_accuracy"}, question()), "line 2: vqa_accuracy needs"),
    ],
)
def test_folder_errors_name_file_and_line(
    tmp_path: Path, lines: tuple[object, ...], message: str
) -> None:
    file = write(tmp_path, *lines)
    with pytest.raises(InputError, match=message) as raised:
        FolderTask.read(file)
    assert str(file) in str(raised.value)


def test_folder_missing_binary_and_unnamed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        task(f"folder:{tmp_path / 'none.jsonl'}")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="can't be read"):
        task(f"folder:{binary}")
    with pytest.raises(LightKVError, match="folder:PATH"):
        task("folder")


def test_unreadable_images_are_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for image in ("missing.png", "text.png"):
        wrong = question(image=["a.png", image])
        for lines, line in (((HEADER, "", question(), wrong), 4), ((question(), wrong), 2)):
            folder = FolderTask.read(write(tmp_path, *lines))
            with pytest.raises(InputError, match=rf"toy\.jsonl, line {line}: .*{image}"):
                folder.items(None, 0)


def test_of_several_bad_images_the_first_line_is_named(tmp_path: Path) -> None:
    folder = FolderTask.read(write(tmp_path, *[question(image=f"{n}.png") for n in range(9)]))
    for seed in range(5):
        with pytest.raises(InputError, match=r"line 1: the image .* is not there"):
            folder.items(None, seed)


def test_too_many_samples(tmp_path: Path) -> None:
    folder = FolderTask.read(write(tmp_path, HEADER, question()))
    with pytest.raises(InvalidValueError, match="at most 1"):
        folder.items(2, 0)


def test_request_leaves_files_unopened(tmp_path: Path) -> None:
    folder = FolderTask.read(write(tmp_path, HEADER | {"system": "Look."}, question()))
    request = folder.items(None, 0)[0].request()
    assert (request.question, request.system) == ("Which color? Be brief.", "Look.")
    assert request.images == (tmp_path / "a.png",)
