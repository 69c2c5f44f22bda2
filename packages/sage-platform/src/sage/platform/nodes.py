"""What this machine offers: processors, memory, GPUs, Python, compiler.

Inside a container the machine's own figures are wrong; the limits of the control groups (cgroup v1 and v2)
and the affinity of the process count.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CgroupLimits", "NodeFacts", "cxx_compiler", "local_node", "read_cgroup_limits"]

_COMPILERS = ("c++", "g++", "clang++")
_COMPILER_TIMEOUT_S = 5.0
# Control groups version 1 write "no limit" as the largest page-aligned integer.
_MEMORY_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts of one node, as placement needs them.

    Args:
        name: Host name.
        cpus: Processors that this process may use at once; a quota may make it a fraction.
        memory_bytes: Memory that this process may use.
        gpus: NVIDIA GPUs that are visible to this process.
        python: Version of Python, for example ``3.11.7``.
        platform: Operating system and processor, for example ``Linux-x86_64``.

    >>> NodeFacts("host", 4.0, 8 << 30, 0, "3.11.7", "Linux-x86_64").cpus
    4.0
    """

    name: str
    cpus: float
    memory_bytes: int
    gpus: int
    python: str
    platform: str


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """Limits of the control groups around this process; None where there is none.

    >>> CgroupLimits(cpus=None, memory_bytes=None).cpus is None
    True
    """

    cpus: float | None
    memory_bytes: int | None


def local_node(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> NodeFacts:
    """Return the facts of the node this process runs on.

    Args:
        root: Where ``proc``, ``sys`` and ``dev`` are found; another one in tests.
        environ: Instead of the environment of the process.

    >>> node = local_node()
    >>> node.cpus > 0 and node.memory_bytes > 0
    True
    """
    variables = os.environ if environ is None else environ
    limits = read_cgroup_limits(root)
    cpus = float(len(os.sched_getaffinity(0)))
    memory_bytes = _physical_memory_bytes(root)
    return NodeFacts(
        name=socket.gethostname(),
        cpus=cpus if limits.cpus is None else min(cpus, limits.cpus),
        memory_bytes=min(memory_bytes, limits.memory_bytes or memory_bytes),
        gpus=_visible_gpus(root, variables),
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.machine()}",
    )


def read_cgroup_limits(root: Path = Path("/")) -> CgroupLimits:
    """Return the tightest limits of this process's control group and all groups above it.

    >>> read_cgroup_limits(Path("/no/such/root"))
    CgroupLimits(cpus=None, memory_bytes=None)
    """
    cpus: list[float] = []
    memory: list[int] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            for folder in _ancestors(root / "sys/fs/cgroup", group):
                cpus += _cpus_v2(_read(folder / "cpu.max"))
                memory += _memory(_read(folder / "memory.max"))
        elif "cpu" in controllers.split(","):
            for folder in _ancestors(root / "sys/fs/cgroup/cpu", group):
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                cpus += _cpus_v2(f"{quota} {period}")
        elif "memory" in controllers.split(","):
            for folder in _ancestors(root / "sys/fs/cgroup/memory", group):
                memory += _memory(_read(folder / "memory.limit_in_bytes"))
    return CgroupLimits(min(cpus, default=None), min(memory, default=None))


def _ancestors(mount: Path, group: str) -> list[Path]:
    """Return the folders of a group and those above it; in a container only the mount may exist."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:end]) for end in range(len(parts), -1, -1)]


def _cpus_v2(text: str) -> list[float]:
    """Read ``<quota> <period>`` in microseconds; a quota of ``max`` or -1 is none."""
    match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text)
    if match is None or int(match[1]) == 0 or int(match[2]) == 0:
        return []
    return [int(match[1]) / int(match[2])]


def _memory(text: str) -> list[int]:
    size = int(text) if text.strip().isdecimal() else 0
    return [size] if 0 < size < _MEMORY_UNLIMITED else []


def _physical_memory_bytes(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    if match is not None:
        return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _visible_gpus(root: Path, environ: Mapping[str, str]) -> int:
    devices = root / "dev"
    names = [entry.name for entry in devices.iterdir()] if devices.is_dir() else []
    present = sum(1 for name in names if re.fullmatch(r"nvidia\d+", name))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    count = 0
    for name in visible.split(","):
        # CUDA stops at the first device that does not exist; -1 is a common way to say none.
        if not name.strip() or name.strip().startswith("-"):
            break
        count += 1
    return min(present, count)


def cxx_compiler(environ: Mapping[str, str] | None = None) -> str | None:
    """First line of the C++ compiler's ``--version``; None where there is none.

    Not a part of `NodeFacts`: asking a compiler starts a process, and each run of a pipeline asks for the
    facts.

    Args:
        environ: Instead of the environment of the process (``CXX``, ``PATH``).

    >>> cxx_compiler({"PATH": "/no/such/folder"}) is None
    True
    """
    environ = os.environ if environ is None else environ
    for name in (environ.get("CXX", ""), *_COMPILERS):
        path = shutil.which(name, path=environ.get("PATH")) if name else None
        if path is None:
            continue
        try:
            finished = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=_COMPILER_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            # Something of that name that does not answer is no compiler; the next name may be one.
            continue
        lines = finished.stdout.strip().splitlines()
        if lines:
            return lines[0]
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        # Which of these files exist depends on the kernel and the container.
        return ""
