"""Configurations of sweeps: what they ask, and faults in words."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
import yaml

from figures.cli import main
from tests.workflow.conftest import WORKFLOW
from workflow.sweep import SCHEMA, Sweep, SweepError

LEAST: dict[str, Any] = {
    "models": {"tiny": "embedded"},
    "tasks": ["embedded/read", "lmms:pope"],
    "methods": ["vanilla", "tgvkv:retention=0.5;window=2"],
}


def sweep(**changes: Any) -> Sweep:
    return Sweep.read({**LEAST, **changes})


def words(command: str) -> list[str]:
    return shlex.split(command)


def values(command: str, option: str) -> list[str]:
    said = words(command)
    return [said[place + 1] for place, word in enumerate(said) if word == option]


def test_a_job_asks_one_part_of_one_task_with_all_methods() -> None:
    asked = sweep(shards=3, retentions=[0.2, 0.05]).ask("tiny", "lmms-pope", "2-of-3")
    assert words(asked)[:2] == ["lightkv", "evaluate"]
    expected = {
        "--model": ["embedded"],
        "--task": ["lmms:pope"],
        "--method": ["vanilla", "tgvkv:retention=0.5;window=2"],
        "--retention": ["0.2", "0.05"],
        "--protocol": ["question-first"],
        "--samples": ["100"],
        "--seed": ["0"],
        "--batch-size": ["16"],
        "--device": ["cpu"],
        "--attention": ["sdpa"],
        "--shard": ["2/3"],
        "--out": ["sweep/stores/parts/tiny/lmms-pope/2-of-3"],
        "--dtype": [],
        "--max-new-tokens": [],
    }
    assert {option: values(asked, option) for option in expected} == expected


def test_two_parts_are_parts() -> None:
    assert sweep().parts == ["1-of-1"]
    halves = sweep(shards=2)
    asked = [halves.ask("tiny", "lmms-pope", part) for part in halves.parts]
    assert [values(one, "--shard") for one in asked] == [["1/2"], ["2/2"]]


def test_everything_that_is_set_reaches_the_command() -> None:
    asked = sweep(
        samples=0,
        seed=3,
        batch_size=2,
        max_new_tokens=7,
        device="cuda",
        dtype="bfloat16",
        attention="eager",
        protocols=["second-turn", "question-agnostic"],
        stores="/sweep/stores",
        lightkv="env HF_HOME=/sweep/hub lightkv",
    ).ask("tiny", "embedded-read", "1-of-1")
    assert words(asked)[:4] == ["env", "HF_HOME=/sweep/hub", "lightkv", "evaluate"]
    expected = {
        "--samples": ["0"],
        "--seed": ["3"],
        "--batch-size": ["2"],
        "--max-new-tokens": ["7"],
        "--device": ["cuda"],
        "--dtype": ["bfloat16"],
        "--attention": ["eager"],
        "--protocol": ["second-turn", "question-agnostic"],
        "--out": ["/sweep/stores/parts/tiny/embedded-read/1-of-1"],
        "--shard": [],
    }
    assert {option: values(asked, option) for option in expected} == expected


def test_parts_take_turns_on_the_devices_of_a_machine_one_at_a_time() -> None:
    several = sweep(shards=3, device=["cuda:0", "cuda:1"])
    asked = [several.ask("tiny", "embedded-read", part) for part in several.parts]
    assert several.parts == ["1-of-3", "2-of-3", "3-of-3"]
    assert [values(one, "--device") for one in asked] == [["cuda:0"], ["cuda:1"], ["cuda:0"]]
    assert [values(one, "flock") for one in asked] == [
        ["sweep/stores/cuda-0.lock"],
        ["sweep/stores/cuda-1.lock"],
        ["sweep/stores/cuda-0.lock"],
    ]


def test_what_follows_the_jobs() -> None:
    made = sweep(artefacts=["X-1", "T-T5"], stores="s")
    assert words(made.merge(["s/a", "s/b c"], made.merged)) == [
        *("lightkv", "merge", "s/a", "s/b c", "--out", "s/merged")
    ]
    assert words(made.summarise("t.csv")) == [*("lightkv", "summary", "s/merged", "--out", "t.csv")]
    copied, drawn = made.draw("tiny", "report").split(" && ")
    assert words(copied) == ["lightkv", "merge", "s/merged", "--out", "s/figures/tiny"]
    assert words(drawn)[:4] == ["lightkv", "reproduce", "X-1", "T-T5"]
    assert values(drawn, "--results") == ["s/figures/tiny"]
    assert values(drawn, "--out") == ["report"]
    assert values(drawn, "--samples") == ["100"]
    several = sweep(artefacts=["X-1"], device=["cuda:1", "cuda:0"])
    assert values(several.draw("tiny", "report"), "--device") == ["cuda:1"]


def test_the_commands_are_those_of_the_command_line() -> None:
    made = sweep(artefacts=["X-1"], dtype="float32", max_new_tokens=3, shards=2)
    commands = [
        made.check(),
        made.ask("tiny", "embedded-read", "1-of-2"),
        made.merge(["a"], "b"),
        made.summarise("c"),
        *made.draw("tiny", "d").split(" && "),
    ]
    for command in commands:
        name, *rest = words(command)[1:]
        known = main.get_command(click.Context(main), name)
        assert known is not None
        known.make_context(name, rest)


@pytest.mark.parametrize("name", ["embedded", "benchmarks"])
def test_the_shipped_sweeps_can_be_used(name: str) -> None:
    from lightkv.catalogue import read
    from lightkv.contract.view import ModelFacts

    file = WORKFLOW / "config" / f"{name}.yaml"
    made = Sweep.read(yaml.safe_load(file.read_text(encoding="utf-8")))
    for method in made.settings["methods"]:
        assert method == "vanilla" or read(method, ModelFacts(32, 8, 8, 64))


def test_choices_are_those_of_the_command() -> None:
    from lightkv.loading import DTYPES
    from lightkv.protocols import PROTOCOLS

    rules = SCHEMA["properties"]
    assert set(rules["protocols"]["items"]["enum"]) == set(PROTOCOLS)
    assert set(rules["dtype"]["enum"]) == set(DTYPES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": {}}, "models: "),
        ({"models": {"a/b": "x"}}, "'a/b' does not match"),
        ({"tasks": []}, r"tasks: .* \(As for lightkv evaluate --task"),
        ({"tasks": ["embedded/read", "embedded/read"]}, "non-unique"),
        (
            {"tasks": ["folder:a/b", "folder:a-b"]},
            "'folder:a/b' and 'folder:a-b' would have the same",
        ),
        ({"methods": []}, "methods: "),
        ({"methods": ["vanilla", "vanilla"]}, "methods: .* non-unique"),
        ({"retentions": []}, "retentions: "),
        ({"retentions": [0.5, 0.5]}, "retentions: .* non-unique"),
        ({"protocols": ["second-turn"] * 2}, "protocols: .* non-unique"),
        ({"artefacts": ["X-1", "X-1"]}, "artefacts: .* non-unique"),
        ({"retentions": [0]}, r"retentions\[0\]: 0 is less than or equal to the minimum of 0"),
        ({"retentions": [1.5]}, r"retentions\[0\]: 1.5 is greater than the maximum of 1"),
        ({"protocols": ["first"]}, r"protocols\[0\]: 'first' is not one of \['question-first'"),
        ({"samples": -1}, "samples: -1 is less than the minimum of 0"),
        ({"samples": True}, "samples: True is not of type 'integer'"),
        ({"seed": -1}, "seed: "),
        ({"batch_size": 0}, "batch_size: 0 is less than the minimum of 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: "),
        ({"shards": 0}, "shards: 0 is less than the minimum of 1"),
        ({"device": ["cpu"]}, r"device: \['cpu'\] is neither a device nor a list of cuda:N"),
        ({"device": ["cuda:0"] * 2}, r"\['cuda:0', 'cuda:0'\] is neither a device nor a list"),
        ({"dtype": "int8"}, "dtype: 'int8' is not one of"),
        ({"artefacts": ["T5"]}, r"artefacts\[0\]: 'T5' does not match"),
        ({"artefacts": ["X-1"], "samples": 0}, "artefacts need a number of samples"),
        ({"sample": 3}, r"there is no setting 'sample' \(did you mean samples\?\); there are"),
    ],
)
def test_faults_are_told_in_words(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SweepError, match=told):
        sweep(**changes)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SweepError, match=r"(?s)samples.*shards|shards.*samples"):
        sweep(samples=-1, shards=0)
    with pytest.raises(SweepError, match="'models' is a required property"):
        Sweep.read({"tasks": ["a"], "methods": ["vanilla"]})
    with pytest.raises(SweepError, match="--configfile"):
        Sweep.read({})
