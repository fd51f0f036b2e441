"""The revision follows the code that answers, and nothing else."""

from pathlib import Path

import pytest

from analysis import provenance


def test_versions_name_what_computes_answers() -> None:
    assert set(provenance.versions()) == {"lightkv", "torch", "transformers", "nnsight"}


def test_revisions_are_stable_and_differ() -> None:
    assert provenance.code_revision() == provenance.code_revision.__wrapped__()
    assert provenance.study_revision() == provenance.study_revision.__wrapped__()
    assert provenance.code_revision() != provenance.study_revision()


def test_a_changed_renamed_or_new_source_changes_the_digest(tmp_path: Path) -> None:
    def digest() -> str:
        return provenance._digest(provenance._sources("room", tmp_path))

    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "a.py"
    file.write_text("x = 1")
    seen = {digest()}
    file.write_text("x = 2")
    seen.add(digest())
    file = file.rename(tmp_path / "inner" / "b.py")
    seen.add(digest())
    (tmp_path / "numbers.toml").write_text("x = 1")
    seen.add(digest())
    assert len(seen) == 4
    (tmp_path / "weights.bin").write_text("no source")
    assert digest() in seen


@pytest.mark.parametrize("name", ["lightkv/vlm.py", "lightkv/cost/presets/llava-1.5-7b.toml"])
def test_nested_sources_count(name: str) -> None:
    from importlib import resources

    found = provenance._sources("lightkv", resources.files("lightkv"))
    assert name in [path for path, _ in found]
