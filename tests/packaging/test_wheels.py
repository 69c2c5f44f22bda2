"""Each distribution builds and installs alone: it brings its own layer and those below, and nothing above.

The wheels are built once for all tests, each from its own source archive and not from the checkout.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Distribution -> the import packages that it carries; lowest layer first.
DISTRIBUTIONS = {
    "sage-common": ("sage.common",),
    "sage-platform": ("sage.platform",),
    "sage-kernel": ("sage.kernel", "sage.libs"),
    "sage-middleware": ("sage.middleware",),
    "sage-cli": ("sage.cli",),
}
LAYERS = list(DISTRIBUTIONS)

# The first test pays for building the five wheels, C++ included.
pytestmark = pytest.mark.timeout(420)

# Imports every import package of the house and says how it went: null, or the name of what is missing.
PROBE = """
import importlib, json, sys
answers = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        answers[name] = None
    except ModuleNotFoundError as error:
        answers[name] = error.name
print(json.dumps(answers))
"""


def run(command: Sequence[str | Path], *, cwd: Path, timeout_s: float) -> str:
    """Run a command without the caller's import path; its output, or a failure that shows all it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@pytest.fixture(scope="session")
def sdists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution -> its source archive."""
    folder = tmp_path_factory.mktemp("sdists")
    built = {}
    for name in DISTRIBUTIONS:
        before = set(folder.iterdir())
        # Without isolation: the build backends of the development environment, nothing is downloaded.
        command = [
            sys.executable,
            "-m",
            "build",
            "--sdist",
            "--no-isolation",
            "--outdir",
            folder,
            ROOT / "packages" / name,
        ]
        run(command, cwd=folder, timeout_s=60)
        (built[name],) = set(folder.iterdir()) - before
    return built


@pytest.fixture(scope="session")
def wheelhouse(sdists: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the five wheels, each built from its own source archive and not from the checkout."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder]
    run([sys.executable, "-m", "pip", "wheel", *options, *sdists.values()], cwd=folder, timeout_s=400)
    return folder


def wheel_of(wheelhouse: Path, distribution: str) -> Path:
    """The one wheel of a distribution."""
    (wheel,) = wheelhouse.glob(f"{distribution.replace('-', '_')}-*.whl")
    return wheel


def metadata_of(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.mark.parametrize("distribution", LAYERS)
def test_a_wheel_holds_its_layer_and_nothing_else(wheelhouse: Path, distribution: str) -> None:
    with zipfile.ZipFile(wheel_of(wheelhouse, distribution)) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        licences = {Path(name).name for name in archive.namelist() if ".dist-info/licenses/" in name}
    owned = tuple(package.replace(".", "/") + "/" for package in DISTRIBUTIONS[distribution])
    assert [name for name in names if not name.startswith(owned)] == []
    assert "sage/__init__.py" not in names
    for folder in owned:
        assert f"{folder}__init__.py" in names
        assert f"{folder}py.typed" in names
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []
    assert licences == {"LICENSE", "NOTICE"}


@pytest.mark.parametrize("distribution", LAYERS)
def test_the_metadata_agree(wheelhouse: Path, distribution: str) -> None:
    metadata = metadata_of(wheel_of(wheelhouse, distribution))
    assert metadata["Version"] == "0.1.0"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert str(metadata.get_payload()).startswith(f"# {distribution}\n")
    siblings = {entry.split("=")[0] for entry in metadata.get_all("Requires-Dist", []) if entry.startswith("sage-")}
    own = LAYERS.index(distribution)
    assert siblings <= set(LAYERS[:own]), "depends on a layer above"
    assert set(LAYERS[max(own - 1, 0) : own]) <= siblings, "does not ask for the layer below"


@pytest.mark.parametrize("distribution", LAYERS)
def test_the_entry_points_are_those_of_the_checkout(wheelhouse: Path, distribution: str) -> None:
    project = tomllib.loads((ROOT / "packages" / distribution / "pyproject.toml").read_text())["project"]
    declared = dict(project.get("entry-points", {}))
    if "scripts" in project:
        declared["console_scripts"] = project["scripts"]
    expected = {
        "sage-kernel": {"sage.operators"},
        "sage-middleware": {"sage.operators"},
        "sage-cli": {"console_scripts"},
    }
    assert set(declared) == expected.get(distribution, set())
    wheel = wheel_of(wheelhouse, distribution)
    with zipfile.ZipFile(wheel) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")]
        modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in archive.namelist()}
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names are case-sensitive
    parser.read_string("\n".join(texts))
    assert {group: dict(parser[group]) for group in parser.sections()} == declared
    named = {value.partition(":")[0] for group in parser.sections() for value in parser[group].values()}
    assert named <= modules, f"{wheel.name} does not carry what its entry points name"


@pytest.mark.parametrize("distribution", LAYERS)
def test_a_source_archive_is_complete(sdists: dict[str, Path], distribution: str) -> None:
    with tarfile.open(sdists[distribution]) as archive:
        members = archive.getmembers()
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    names = {member.name.split("/", 1)[1] for member in members if "/" in member.name}
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml"} <= names
    assert any(name.startswith("tests/test_") for name in names)


@pytest.mark.parametrize("distribution", LAYERS)
@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_licence_is_that_of_the_repository(distribution: str, name: str) -> None:
    # Copies, because a symbolic link that leaves the package is dangling in its source archive.
    assert (ROOT / "packages" / distribution / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("distribution", LAYERS)
def test_a_layer_installs_alone(wheelhouse: Path, tmp_path: Path, distribution: str) -> None:
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], cwd=tmp_path, timeout_s=60)
    python = tmp_path / "venv" / "bin" / "python"
    # Wherever a sibling is asked for, this wheel is meant and not what an index has under that name.
    siblings = tmp_path / "siblings.txt"
    siblings.write_text("".join(f"{name} @ {wheel_of(wheelhouse, name).as_uri()}\n" for name in LAYERS))
    pins = ["--constraint", siblings, "--constraint", ROOT / "constraints.txt", "--prefer-binary"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", *pins]
    run([*command, wheel_of(wheelhouse, distribution)], cwd=tmp_path, timeout_s=160)

    reach = LAYERS[: LAYERS.index(distribution) + 1]
    house = [package for packages in DISTRIBUTIONS.values() for package in packages]
    expected = {
        package: None if name in reach else package for name, packages in DISTRIBUTIONS.items() for package in packages
    }
    assert json.loads(run([python, "-I", "-c", PROBE, *house], cwd=tmp_path, timeout_s=60)) == expected

    if distribution == "sage-cli":
        assert "0.1.0" in run([tmp_path / "venv" / "bin" / "sage", "version"], cwd=tmp_path, timeout_s=30)
