"""Profiles name resources that the executor plugins read: a misspelt one passes in silence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import WORKFLOW

HERE = Path(__file__).parent


def asked(snakemake: str, profile: Path, rule: str) -> Any:
    """What the profile's plugin reads of it."""
    python = Path(snakemake).with_name("python")
    command = [str(python), str(HERE / "plugins.py"), str(profile), rule]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("rule", ["ask", "figures"])
def test_slurm_is_asked_for_a_gpu(snakemake: str, rule: str) -> None:
    told = asked(snakemake, WORKFLOW / "profiles/slurm/config.yaml", rule)
    assert told["unknown"] == []
    assert " --gpus=a100:1" in told["submitted"]
    assert " --cpus-per-gpu=8" in told["submitted"]
    assert " --mem 48000" in told["submitted"] and " -t 4h" in told["submitted"]


@pytest.mark.parametrize("rule", ["ask", "figures"])
def test_kubernetes_limits_the_gpu_and_mounts_the_stores(snakemake: str, rule: str) -> None:
    told = asked(snakemake, WORKFLOW / "profiles/kubernetes/config.yaml", rule)
    assert told["unknown"] == []
    made = told["submitted"]
    assert made["requests"]["nvidia.com/gpu"] == made["limits"]["nvidia.com/gpu"] == "1"
    assert made["limits"]["memory"] == "48000M"
    assert made["mounts"]["/sweep"] == "sweep"


@pytest.mark.parametrize(("profile", "name"), [("slurm", "gpu_model"), ("kubernetes", "gpu")])
def test_a_misspelt_resource_is_told(
    snakemake: str, tmp_path: Path, profile: str, name: str
) -> None:
    text = (WORKFLOW / "profiles" / profile / "config.yaml").read_text(encoding="utf-8")
    misspelt = tmp_path / "config.yaml"
    misspelt.write_text(text.replace(f"    {name}: ", f"    {name}l: "), encoding="utf-8")
    assert asked(snakemake, misspelt, "ask")["unknown"] == [f"{name}l"]


@pytest.mark.parametrize("profile", ["machine", "slurm", "kubernetes"])
@pytest.mark.parametrize("config", ["embedded", "benchmarks"])
def test_every_profile_plans_every_sweep(
    snakemake: str, tmp_path: Path, profile: str, config: str
) -> None:
    done = planned(snakemake, tmp_path, profile, config, "stores=/sweep/stores")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule ask:" in done.stdout and "rule tables:" in done.stdout


def test_answers_in_a_pod_of_its_own_would_be_lost(snakemake: str, tmp_path: Path) -> None:
    done = planned(snakemake, tmp_path, "kubernetes", "embedded")
    assert done.returncode != 0
    assert "stores: an absolute path on a volume" in done.stdout + done.stderr


def planned(
    snakemake: str, folder: Path, profile: str, config: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """A dry run."""
    command = [snakemake, "--snakefile", str(WORKFLOW / "Snakefile"), "--dry-run"]
    command += ["--profile", str(WORKFLOW / "profiles" / profile)]
    command += ["--configfile", str(WORKFLOW / "config" / f"{config}.yaml")]
    command += ["--config", *more] if more else []
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
