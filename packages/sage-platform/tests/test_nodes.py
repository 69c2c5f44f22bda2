"""Facts of a node: control groups of both versions, GPUs and compilers in a made-up file system."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from sage.platform.nodes import CgroupLimits, cxx_compiler, local_node, read_cgroup_limits


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine() -> None:
    node = local_node()
    assert 0 < node.cpus <= len(os.sched_getaffinity(0))
    assert 1 << 24 < node.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 1.2
    assert node.python == platform.python_version()
    assert node.platform.startswith("Linux-")
    with pytest.raises(AttributeError):
        node.cpus = 1.0  # type: ignore[misc]


def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    os.sched_setaffinity(0, one)
    try:
        assert local_node(Path("/no/such/root"), {}).cpus == 1.0
    finally:
        os.sched_setaffinity(0, allowed)


def test_version_2_takes_the_tightest_group(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app/worker\n",
            "sys/fs/cgroup/app/worker/cpu.max": "max 100000\n",
            "sys/fs/cgroup/app/worker/memory.max": "2147483648\n",
            "sys/fs/cgroup/app/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/app/memory.max": "max\n",
        },
    )
    assert read_cgroup_limits(root) == CgroupLimits(1.5, 2 << 30)


def test_version_2_inside_a_container_sees_only_the_mount(tmp_path: Path) -> None:
    root = _write(tmp_path, {"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert read_cgroup_limits(root) == CgroupLimits(0.5, None)


def test_version_1(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
        },
    )
    assert read_cgroup_limits(root) == CgroupLimits(2.0, 1 << 30)


@pytest.mark.parametrize("text", ["", "nonsense", "a b c", "0 0", "-1 100000", "100000 0"])
def test_files_that_say_nothing_are_no_limit(tmp_path: Path, text: str) -> None:
    root = _write(
        tmp_path,
        {"proc/self/cgroup": "0::/\nbroken", "sys/fs/cgroup/cpu.max": text, "sys/fs/cgroup/memory.max": text},
    )
    assert read_cgroup_limits(root) == CgroupLimits(None, None)


def test_memory_is_the_smaller_of_machine_and_group(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal:        1000 kB\nMemFree: 5 kB\n", "proc/self/cgroup": "0::/\n"}
    assert local_node(_write(tmp_path, files), {}).memory_bytes == 1_024_000
    _write(tmp_path, {"sys/fs/cgroup/memory.max": "4096\n"})
    assert local_node(tmp_path, {}).memory_bytes == 4096


@pytest.mark.parametrize(("visible", "gpus"), [(None, 2), ("", 0), ("-1", 0), ("0", 1), ("0,1,2", 2), ("1,-1,0", 1)])
def test_gpus_are_those_that_cuda_would_show(tmp_path: Path, visible: str | None, gpus: int) -> None:
    root = _write(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert local_node(root, environ).gpus == gpus


def test_compilers_that_do_not_answer_are_passed_over(tmp_path: Path) -> None:
    for name, script in [("c++", "exit 3"), ("g++", "echo; echo"), ("clang++", "echo clang 14; echo more")]:
        path = _write(tmp_path, {name: f"#!/bin/sh\n{script}\n"}) / name
        path.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert cxx_compiler(environ) == "clang 14"
    (tmp_path / "mine").write_text("#!/bin/sh\necho my own\n")
    (tmp_path / "mine").chmod(0o755)
    assert cxx_compiler({**environ, "CXX": "mine"}) == "my own"
    assert cxx_compiler({"PATH": str(tmp_path / "empty")}) is None
