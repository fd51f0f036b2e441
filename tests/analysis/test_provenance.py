"""Results depend on the code that can change them, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import provenance
from analysis.asking.jobs import _ASKING, _SCORING
from analysis.provenance import sources
from analysis.scoring.metrics import metric
from analysis.studies import study
from analysis.tasks import FolderTask, task
from figures.artefacts import artefacts
from figures.notebook import Notebook
from figures.reproduce import NOTEBOOK
from figures.runner import _modules
from lightkv import TGVKV, LightKV
from lightkv.pruning import FastV


def answers(*parts: object) -> set[str]:
    """Files of the modules that a method's answers depend on."""
    kinds = [type(one) for whole in parts for one in (whole, *provenance.parts_of(whole))]
    named = {base.__module__ for kind in kinds for base in kind.__mro__}
    return set(sources.closure({*named, *_ASKING}, _SCORING))


def unit(*artefact_ids: str) -> set[str]:
    modules = Notebook.named(NOTEBOOK).modules | _modules(artefact_ids)
    return set(sources.closure(modules))


RESULTS = {
    "lightkv": answers(LightKV((1,), (1,), (0.5,)), task("embedded/read")),
    "tgvkv": answers(TGVKV(retention=0.5), task("embedded/read")),
    "fastv on a file": answers(FastV()) | set(sources.closure({FolderTask.__module__}, _SCORING)),
    "a probing table": set(sources.closure({study("modality_gap").run.__module__, "lightkv.vlm"})),
    "a cost table": set(sources.closure({study("schedule_cost").run.__module__})),
    "a drawing of T-T1": unit("T-T1"),
    "an outcome": set(sources.closure({metric("exact").scores.__module__})),
    "the report": set(sources.closure({"figures.report"})),
}

CHANGES = {
    "lightkv.contract.attention": {"lightkv", "tgvkv", "fastv on a file", "a probing table"},
    "lightkv.contract.layout": {"lightkv", "tgvkv", "fastv on a file", "a probing table"},
    "lightkv.engine.graph": {"lightkv", "tgvkv", "fastv on a file", "a probing table"},
    "lightkv.families.llava": {"lightkv", "tgvkv", "fastv on a file", "a probing table"},
    "lightkv.protocols": {"lightkv", "tgvkv", "fastv on a file"},
    "lightkv.merging.matching": {"lightkv", "a probing table"},
    "lightkv.eviction.parts.rankings": {"tgvkv"},
    "lightkv.pruning.fastv": {"fastv on a file"},
    "lightkv.embedded.scenes": {"lightkv", "tgvkv", "a probing table"},
    "analysis.asking.answering": {"lightkv", "tgvkv", "fastv on a file"},
    "analysis.tasks.folder": {"fastv on a file", "a probing table"},
    "analysis.probing.probe": {"a probing table"},
    "lightkv.cost.token_counts": {"lightkv", "a probing table", "a cost table"},
    "lightkv.cost.workload": {"a cost table"},
    "analysis.scoring.metrics": {"an outcome", "a probing table"},
    "analysis.scoring.vqa": {"an outcome", "a probing table"},
    "analysis.scoring.kinds": {"a probing table"},
    "analysis.scoring.summaries": set(),
    "analysis.asking.scoring": set(),
    "analysis.asking.store": set(),
    "analysis.asking.evaluation": set(),
    "analysis.asking.evaluate_cli": set(),
    "analysis.timing.latency": set(),
    "analysis.cli": set(),
    "analysis.provenance.sources": set(),
    "lightkv.errors": set(),
    "lightkv.cli": set(),
    "lightkv.catalogue": set(),
    "lightkv.commands.ask": set(),
    "lightkv.check.checks": set(),
    "lightkv.golden.verify": set(),
    "lightkv.embedded.trainer": set(),
    "lightkv.embedded.card": set(),
    "figures.cli": set(),
    "figures.reproduce": set(),
    "figures.artefacts.pilot": {"a drawing of T-T1"},
    "figures.artefacts.latency": set(),
    "figures.report": {"the report"},
}
"""Module -> which results become another thing when its code changes."""

STORED = frozenset(RESULTS) - {"a drawing of T-T1", "the report"}
"""Results of a model or of the cost model; drawings depend on nearly all that computes."""


@pytest.mark.parametrize("module", CHANGES)
def test_which_change_makes_which_result_another_thing(module: str) -> None:
    assert sources.source_file(module) is not None
    compared = frozenset(RESULTS) if module.startswith("figures.") else STORED
    assert {name for name in compared if module in RESULTS[name]} == CHANGES[module]


def test_every_artefact_is_redrawn_after_its_own_code_changed() -> None:
    for one in artefacts():
        depends = unit(one.id)
        assert one.draw.__module__ in depends
        assert study(one.study).run.__module__ in depends


def test_what_answers_depend_on_imports_nothing_by_a_computed_name() -> None:
    """Such imports would not be followed. The registry makes names known, answers don't need it."""
    for names in (RESULTS["lightkv"], RESULTS["tgvkv"], RESULTS["fastv on a file"]):
        for name, file in sources.closure(names).items():
            if name == "lightkv.contract.registry":
                continue
            text = file.read_text(encoding="utf-8")
            for call in ("import_module", "__import__", "pkgutil", "entry_points", "runpy"):
                assert call not in text, f"{name} calls {call}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three modules and a package that loads names late."""
    room = tmp_path / "room"
    (room / "inner").mkdir(parents=True)
    (room / "__init__.py").write_text('_WHERE = {"late": "room.lazy"}\n')
    (room / "lazy.py").write_text("late = 1\n")
    (room / "unused.py").write_text("x = 1\n")
    (room / "inner" / "__init__.py").write_text("")
    (room / "inner" / "numbers.toml").write_text("x = 1\n")
    (room / "inner" / "deep.py").write_text("def deep():\n    from room import late\n")
    (room / "top.py").write_text(
        '"""Docs."""\nfrom typing import TYPE_CHECKING\nfrom .inner import deep\n'
        "if TYPE_CHECKING:\n    from room import unused\n"
        'def f(x: int) -> int:\n    """Docs."""\n    return x + 1  # more\n'
    )
    monkeypatch.setattr(sources, "OURS", ("room",))
    monkeypatch.setattr(sources, "_folder", lambda _: room)
    return room


def digest(*modules: str) -> str:
    for function in (sources.revision, sources.source_file, sources._tree, sources._normalised):
        function.cache_clear()
    sources._lazy_names.cache_clear()
    return sources.revision(frozenset(modules))


def test_imports_are_followed_also_relative_late_and_inside_functions(project: Path) -> None:
    digest()
    assert set(sources.closure(["room.top"])) == {"room.top", "room.inner.deep", "room.lazy"}
    # A package as such: what it may load late, and the data beside it.
    assert set(sources.closure(["room"])) == {"room", "room.lazy"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("top.py", "x + 1", "x + 2", True),
        ("top.py", "return x", "return  x", False),
        ("top.py", "# more", "# less", False),
        ("top.py", '    """Docs."""\n', "", False),
        ("top.py", '"""Docs."""\nfrom', '"""Other\n\nwords."""\nfrom', False),
        ("top.py", "from room import unused", "from room import lazy", False),
        ("inner/deep.py", "import late", "import late as later", True),
        ("lazy.py", "late = 1", "late = 2", True),
        ("unused.py", "x = 1", "x = 2", False),
    ],
)
def test_comments_docstrings_and_type_imports_do_not_count(
    project: Path, file: str, old: str, new: str, changes: bool
) -> None:
    before = digest("room.top")
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    assert (digest("room.top") != before) is changes


def test_data_beside_a_package_counts(project: Path) -> None:
    before = digest("room.inner")
    (project / "inner" / "numbers.toml").write_text("x = 2\n")
    assert digest("room.inner") != before


def test_a_renamed_module_is_another_one(project: Path) -> None:
    before = digest("room.unused")
    (project / "unused.py").rename(project / "used.py")
    assert digest("room.used") not in (before, digest("room.unused"))


def test_the_digest_of_everything_holds_templates_and_data() -> None:
    templates = {"report.html.jinja", "report.css"}
    read = {path.name for path in sources._data("figures.report", Path("report.py"))}
    assert templates <= read
    assert sources.everything() == sources.everything.__wrapped__()


def test_the_digest_of_everything_follows_each_file(project: Path) -> None:
    def whole() -> str:
        return sources.everything.__wrapped__()

    (project / "page.html.jinja").write_text("a")
    seen = {whole()}
    (project / "page.html.jinja").write_text("b")
    seen.add(whole())
    (project / "page.html.jinja").rename(project / "page.jinja")
    seen.add(whole())
    assert len(seen) == 3


def test_versions_name_what_computes_answers() -> None:
    names = {"lightkv", "torch", "transformers", "nnsight"}
    assert set(provenance.answering_versions()) == names
    assert names < set(provenance.versions())


def test_revisions_are_those_of_this_checkout() -> None:
    one, other = frozenset(["lightkv.vlm"]), frozenset(["lightkv.merging.matching"])
    assert len({sources.revision(one), sources.revision(other), sources.revision(one | other)}) == 3
    assert set(provenance.provenance()) == {"versions", "hardware", "code", "time"}
