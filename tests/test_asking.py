"""Asking in few words: methods as text, folders as typed, system sentences, quiet loading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightkv
from lightkv import TGVKV, VLM, LightKV, Request
from lightkv.embedded import CHECKPOINT, items
from lightkv.errors import InputError, ModelError
from lightkv.inputs import chat, processed
from lightkv.loading import located, system_of
from lightkv.merging.schedule import scaled
from lightkv.protocols import ask_under
from lightkv.session import Session
from tests.tiny import tiny_llava

ITEM = items("read", 1)[0]
REQUEST = Request((ITEM.image,), ITEM.question)
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ message['content'][0]['text'] + ' ' }}{% else %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class Template:
    """A processor that has a chat template and nothing else."""

    def __init__(self, template: str) -> None:
        self.template = template

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            from jinja2 import TemplateError

            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment()
        environment.globals["raise_exception"] = refuse
        return environment.from_string(self.template).render(messages=messages, **options)


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("tgvkv:retention=0.2", lambda vlm: TGVKV(retention=0.2)),
        (
            "lightkv | tgvkv:retention=0.5",
            lambda vlm: LightKV.of(scaled(vlm.facts.layers)) | TGVKV(retention=0.5),
        ),
    ],
)
def test_a_method_as_text_is_the_method(embedded: VLM, text: str, built: Any) -> None:
    method = built(embedded)
    ways: dict[str, Any] = {
        "ask": lambda m: embedded.ask(ITEM.image, ITEM.question, m),
        "ask_many": lambda m: embedded.ask_many([REQUEST], m)[0],
        "session": lambda m: Session(embedded, m).ask([REQUEST])[0],
        "protocol": lambda m: ask_under("question-first", embedded, [REQUEST], m)[0],
        "attached": lambda m: embedded.compressed_by(m).ask(ITEM.image, ITEM.question),
    }
    for way, ask in ways.items():
        by_text, by_object = ask(text), ask(method)
        assert by_text.tokens == by_object.tokens, way
        assert by_text.kept == by_object.kept, way
        assert by_text.record.method == str(method), way
        assert by_text.record.achieved_retention < 0.6


def test_folders_are_found_from_where_they_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").symlink_to(CHECKPOINT)
    monkeypatch.chdir(tmp_path)
    for typed in ("model", "./model", Path("model"), "../" + tmp_path.name + "/model"):
        assert located(typed) == str(CHECKPOINT.resolve())
    assert located("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    assert located("gpt2") == "gpt2"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("~/model") == str(CHECKPOINT.resolve())


@pytest.mark.parametrize("typed", ["./none", "/none", "~/none", "a/b/c", "none/", Path("none")])
def test_a_path_that_leads_nowhere_is_no_hub_id(
    typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"there is no folder .*none|a/b/c") as error:
        lightkv.load(typed)
    assert "hub" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_loading_shows_no_bars(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    lightkv.load()
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled() == before


def test_loading_shows_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    vlm = lightkv.load()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"lightkv: {vlm.summary}\n"
    assert vlm.summary.startswith("embedded, LlavaForConditionalGeneration, 8 layers, ")
    assert vlm.summary.endswith("M weights, float32 on cpu")


def test_a_package_that_can_not_be_imported_is_no_damaged_checkpoint(tmp_path: Path) -> None:
    """A torchvision built for another torch: every model fails to import."""
    package, info = tmp_path / "torchvision", tmp_path / "torchvision-0.28.0.dist-info"
    package.mkdir()
    info.mkdir()
    reason = "operator torchvision::nms does not exist"
    (package / "__init__.py").write_text(f"raise RuntimeError({reason!r})")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    code = "import lightkv\ntry: lightkv.load()\nexcept lightkv.errors.ModelError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reason in done.stdout, done.stderr
    assert "the checkpoint is not to blame" in done.stdout
    assert "damaged" not in done.stdout


def test_the_system_sentence_of_llava_is_sent_where_its_template_lacks_it() -> None:
    sentence = system_of("llava-hf/llava-1.5-7b-hf", Template(VICUNA))
    assert sentence is not None and sentence.startswith("A chat between a curious user and")
    written = chat(Template(VICUNA), "llava", Request((ITEM.image,), "what ?", system=sentence))
    assert written == f"{sentence} USER: <image> what ? ASSISTANT:"
    with_sentence = f"{{{{ '{sentence}' }}}}".replace("user's", "user\\'s") + VICUNA
    assert system_of("llava-hf/llava-1.5-7b-hf", Template(with_sentence)) is None
    deaf = VICUNA.replace("{{ message['content'][0]['text'] + ' ' }}", "")
    assert system_of("llava-hf/llava-1.5-7b-hf", Template(deaf)) is None
    assert system_of("Qwen/Qwen2.5-VL-7B-Instruct", Template(VICUNA)) is None
    assert system_of("./llava", Template(VICUNA)) is None


def test_loading_llava_by_its_hub_id_sends_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightkv.loading.located", lambda name: str(CHECKPOINT))
    published = lightkv.load("llava-hf/llava-1.5-7b-hf")
    assert published.system is not None and published.system.startswith("A chat between a curious")
    assert lightkv.load("llava-hf/llava-1.5-7b-hf", system="be brief").system == "be brief"
    assert lightkv.load("someone/a-model").system is None


def test_the_models_system_sentence_is_in_every_prompt_that_names_none(embedded: VLM) -> None:
    tokenizer = embedded.processor.tokenizer

    def prompts(vlm: VLM, *requests: Request) -> list[str]:
        return tokenizer.batch_decode(vlm.encode(list(requests))["input_ids"])

    before = prompts(embedded, REQUEST)[0]
    spoken = lightkv.load(system="say the color")
    assert spoken.system == "say the color" and embedded.system is None
    named = Request(REQUEST.images, REQUEST.question, system="say the number")
    first, second = prompts(spoken, REQUEST, named)
    assert "say the color" in first and "say the color" not in before
    assert "say the number" in second and "say the color" not in second
    assert spoken.fingerprint != embedded.fingerprint


def test_a_model_without_processor_or_template_says_so() -> None:
    vlm = tiny_llava()
    with pytest.raises(ModelError, match=r"tiny-llava has no processor.*vlm\.generate"):
        vlm.ask_many([Request((), "what ?")])


def test_what_a_chat_template_refuses_is_an_input_error() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"template of model refuses .* roles must alternate"):
        chat(Template(template), "model", REQUEST)


class Missing(Template):
    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        raise ValueError("no chat_template is set")


class Picky(Template):
    """Refuses pictures that are too narrow, as processors of native resolution do."""

    image_token = "<pad_of_image>"
    tokenizer = type("Tokenizer", (), {"convert_ids_to_tokens": lambda self, token: "<image>"})()

    def __init__(self) -> None:
        super().__init__(VICUNA)
        self.boi_token = "<start_of_image>"

    def __call__(self, **inputs: Any) -> Any:
        raise ValueError("absolute aspect ratio must be smaller than 200")


def test_what_a_processor_can_not_use_is_an_input_error() -> None:
    with pytest.raises(ModelError, match="no chat_template is set"):
        chat(Missing(""), "model", REQUEST)
    with pytest.raises(InputError, match=r"model can't use this: absolute aspect ratio"):
        processed(Picky(), "model", [REQUEST], [3])


@pytest.mark.parametrize("mark", ["<image>", "<start_of_image>"])
def test_every_mark_of_a_picture_is_refused(mark: str) -> None:
    asked = Request((ITEM.image,), f"what is {mark} ?")
    with pytest.raises(InputError, match=f"request 0 contains '{mark}'"):
        processed(Picky(), "model", [asked], [3])
