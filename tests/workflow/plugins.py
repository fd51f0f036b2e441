"""What executor plugins read of a job's resources; run by Snakemake's own Python.

    python tests/workflow/plugins.py PROFILE RULE

Prints JSON: names of resources that the profile sets and the plugin does not know, and what the
plugin would submit.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

NAMES = (
    r"resources(?:_dict)?(?:\.get\(\s*|\[)[\"'](\w+)[\"']",
    r"[\"'](\w+)[\"'] in (?:job\.)?resources",
    r"job\.resources\.(\w+)",
)
PACKAGES = {
    "slurm": ("snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep"),
    "kubernetes": ("snakemake_executor_plugin_kubernetes",),
}


class Resources(dict[str, Any]):
    """Of a job, as plugins read them: by key and by attribute."""

    __getattr__ = dict.__getitem__


def known(executor: str) -> set[str]:
    """Names that occur in the code of a plugin."""
    names: set[str] = set()
    for package in PACKAGES[executor]:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        for file in Path(spec.origin).parent.glob("*.py"):
            for pattern in NAMES:
                names.update(re.findall(pattern, file.read_text(encoding="utf-8")))
    return names


def slurm(resources: Resources) -> str:
    """The command that submits a job."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    job: Any = SimpleNamespace(resources=resources, threads=1)
    settings = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    return str(get_submit_command(job, dict.fromkeys(settings, "x"))) + set_gres_string(job)


def kubernetes(resources: Resources, volumes: list[str]) -> dict[str, Any]:
    """The pod of a job: what its container asks for, and what it mounts."""
    from snakemake_executor_plugin_kubernetes import Executor, parse_persistent_volumes

    submitted: list[Any] = []
    api = SimpleNamespace(create_namespaced_job=lambda _, body: submitted.append(body))
    executor: Any = SimpleNamespace(
        batchapi=api,
        container_image="image",
        format_job_exec=lambda _: "true",
        k8s_cpu_scalar=1.0,
        k8s_service_account_name=None,
        logger=logging.getLogger(),
        namespace="default",
        persistent_volumes=parse_persistent_volumes(volumes),
        privileged=False,
        report_job_submission=lambda _: None,
        run_namespace="x",
        secret_envvars={},
        _kubernetes_retry=lambda submit: submit(),
    )
    job: Any = SimpleNamespace(resources=resources, jobid=1, attempt=1, is_containerized=False)
    Executor.run_job(executor, job)
    (container,) = submitted[0].spec.template.spec.containers
    return {
        "requests": container.resources.requests,
        "limits": container.resources.limits,
        "mounts": {one.mount_path: one.name for one in container.volume_mounts},
    }


def main() -> None:
    """See the module."""
    profile = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    resources = Resources(profile["default-resources"] | profile["set-resources"][sys.argv[2]])
    executor = profile["executor"]
    everywhere = {name for rule in profile["set-resources"].values() for name in rule}
    unknown = sorted((everywhere | set(profile["default-resources"])) - known(executor))
    unquoted = {k: v.strip("'") if isinstance(v, str) else v for k, v in resources.items()}
    if executor == "slurm":
        made: Any = slurm(Resources(unquoted))
    else:
        made = kubernetes(Resources(unquoted), [profile["kubernetes-persistent-volumes"]])
    sys.stdout.write(json.dumps({"unknown": unknown, "submitted": made}))


if __name__ == "__main__":
    main()
