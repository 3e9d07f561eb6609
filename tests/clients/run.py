"""Run what real packages test or show of themselves on Lightning and, through the aliases, on this Fulmen.

    python -m tests.clients.run                       all packages of packages.toml
    python -m tests.clients.run --only NAME [NAME ...]
    python -m tests.clients.run --list

Each package has an environment of its own in ~/.cache/fulmen/clients (FULMEN_CLIENTS names another folder): PyTorch,
Lightning, the package, and what Fulmen requires. Fulmen itself is taken from this checkout. What is run is the
same both times: the tests in the package's source distribution, or a quick start in `quick_starts/`, where it ships
none or they need a network. It begins in a fresh folder.

The exit code is 1 where a test passes on Lightning and not on Fulmen, unless packages.toml gives its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
ENVIRONMENTS = Path(os.environ.get("FULMEN_CLIENTS", "~/.cache/fulmen/clients")).expanduser()
#: what each environment has, if a package does not ask for another version of it
TORCH, LIGHTNING = "torch==2.13.0", ("lightning==2.6.6", "pytorch-lightning==2.6.6")
TOOLS = ("pytest>=8", "pytest-timeout", "pytest-mock", "setuptools<81", "tensorboard", "torchmetrics")

#: by backend: what runs pytest
BACKENDS: Mapping[str, tuple[str, ...]] = {"Lightning": (), "Fulmen": ("-m", "fulmen.compat")}
#: of each test, for the plugin among the tools
LIMITS = ("--timeout=300",)
OUTCOMES = ("passed", "failed", "skipped")


class Unusable(Exception):
    """An environment cannot be made, or a run has no result."""


@dataclass(frozen=True)
class Package:
    """One entry of packages.toml.

    Attributes:
        name: as PyPI has it.
        version: the release that is run.
        requirements: what else its tests or its quick start need.
        torch: another requirement than ``TORCH``.
        tests: arguments of pytest, in the unpacked source distribution. Empty: the quick start ``run_NAME.py`` is run.
        folder: the folder within the source distribution that pytest is run in.
        prepare: a script of ``quick_starts/`` that is run in the folder first: it writes data that cannot be fetched.
        without: files and folders of the source distribution that must not hide what is installed.
        deselect: tests that are not run, on either side, and why.
        differs: tests that may pass on Lightning alone, and why. The name of a test is what the report prints.
    """

    name: str
    version: str
    requirements: tuple[str, ...] = ()
    torch: str = TORCH
    tests: tuple[str, ...] = ()
    folder: str = "."
    prepare: str | None = None
    without: tuple[str, ...] = ()
    deselect: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def python(self) -> Path:
        return self.place / "venv" / "bin" / "python"

    @property
    def quick_start(self) -> str:
        return f"run_{self.name.replace('-', '_')}.py"


def packages(text: str) -> list[Package]:
    """What ``packages.toml`` lists."""
    listed = []
    for name, entry in tomllib.loads(text).items():
        lists: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        listed.append(Package(name, **lists))
    return listed


def requirements_of(package: Package) -> list[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = f"{package.name}=={package.version}"
    return [package.torch, *LIGHTNING, own, *package.requirements, *project["dependencies"], *TOOLS]


def make_environment(package: Package) -> None:
    """Install what is not there yet; an environment that has what is not asked for any more is made anew."""
    requirements = requirements_of(package)
    stamp, wanted = package.place / "installed.json", {"python": sys.version, "requirements": requirements}
    there = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {"python": None, "requirements": []}
    if there == wanted:
        return
    pip = [str(package.python), "-m", "pip", "--disable-pip-version-check"]
    if there["python"] != sys.version or not {*there["requirements"]} <= {*requirements}:
        shutil.rmtree(package.place, ignore_errors=True)
        package.place.mkdir(parents=True)
        _do([sys.executable, "-m", "venv", str(package.place / "venv")])
        _do([*pip, "install", "-q", "--upgrade", "pip"])
        _do([*pip, "install", "-q", package.torch])  # first: what is built from source may ask for it
    _do([*pip, "install", "-q", *requirements])
    if package.tests and not (package.place / "source").is_dir():
        _fetch_source(package, pip)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")


def _fetch_source(package: Package, pip: Sequence[str]) -> None:
    archives, source = package.place / "archive", package.place / "source"
    own = f"{package.name}=={package.version}"
    _do([*pip, "download", "-q", "--no-deps", "--no-binary", package.name, "-d", str(archives), own])
    (archive,) = archives.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(package.place / "unpacked", filter="data")
    (folder,) = (package.place / "unpacked").iterdir()
    folder.rename(source)
    for name in package.without:
        place = source / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unusable(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-3000:]}")


def run(package: Package, backend: str, timeout: float) -> dict[str, tuple[str, str]]:
    """The outcome of each test and the first line of why it failed."""
    place = package.place / backend.lower()
    shutil.rmtree(place, ignore_errors=True)
    if package.tests:
        shutil.copytree(package.place / "source", place, symlinks=True)
    else:
        place.mkdir()
        shutil.copy(HERE / "quick_starts" / package.quick_start, place)  # away from the conftest.py of Fulmen's tests
    folder = place / package.folder
    environment = _environment(backend, place)
    if package.prepare is not None:
        script = str(HERE / "quick_starts" / package.prepare)
        subprocess.run([package.python, script], cwd=folder, env=environment, check=True)
    what = package.tests or (package.quick_start, "--rootdir=.")
    report = place / "report.xml"
    command = [str(package.python), *BACKENDS[backend], "-m", "pytest", *what]
    command += ["-q", "-o", "addopts=", "-p", "no:cacheprovider", *LIMITS, f"--junitxml={report}"]
    command += [part for test in package.deselect for part in ("--deselect", test)]
    log = package.place / f"{backend.lower()}.log"
    with log.open("w", encoding="utf-8") as output:
        try:
            subprocess.run(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise Unusable(f"{package.name} took more than {timeout:.0f} s on {backend}: see {log}") from None
    if not report.is_file():
        raise Unusable(f"{package.name} has no result on {backend}: see {log}")
    return dict(outcomes(report.read_text(encoding="utf-8")))


def _environment(backend: str, home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FULMEN_COMPAT")}
    own = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "RAY_DISABLE_METRICS_COLLECTION": "1",
    }
    if backend == "Fulmen":
        own["PYTHONPATH"] = str(CHECKOUT / "src")
    return {**inherited, **own}


def outcomes(report: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of each test in a JUnit report: its name, its outcome and why it failed."""
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        failure = next((part for tag in ("failure", "error") if (part := case.find(tag)) is not None), None)
        if failure is not None:
            yield name, ("failed", (failure.get("message") or "").strip().partition("\n")[0])
        else:
            yield name, ("skipped" if case.find("skipped") is not None else "passed", "")


def counts(results: Mapping[str, tuple[str, str]]) -> str:
    """``12 passed, 1 failed, 0 skipped``."""
    found = [outcome for outcome, _ in results.values()]
    return ", ".join(f"{found.count(outcome)} {outcome}" for outcome in OUTCOMES)


def worse(lightning: Mapping[str, tuple[str, str]], fulmen: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The tests that pass on Lightning and not on Fulmen, with what Fulmen's run says."""
    passed = [name for name, (outcome, _) in lightning.items() if outcome == "passed"]
    there = {name: fulmen.get(name, ("not run", "")) for name in passed}
    return {name: f"{outcome}: {why}" for name, (outcome, why) in there.items() if outcome != "passed"}


def compare(package: Package, timeout: float) -> bool:
    """Run both, print both counts, and say whether Fulmen does what Lightning does."""
    began = time.monotonic()
    make_environment(package)
    installed = time.monotonic()
    results = {backend: run(package, backend, timeout) for backend in BACKENDS}
    found = worse(results["Lightning"], results["Fulmen"])
    known = {name: package.differs[name] for name in found if name in package.differs}
    print(f"{package.name} {package.version}")
    for backend, result in results.items():
        print(f"  {backend:<10}{counts(result)}")
    print(f"  {'took':<10}{time.monotonic() - installed:.0f} s (installed in {installed - began:.0f} s)")
    for name, why in found.items():
        print(f"  {'known' if name in known else 'WORSE':<10}{name}\n{'':<12}{why[:400]}")
    for name in sorted({*package.differs} - {*known}):
        print(f"  {'mended':<10}{name}: take it out of packages.toml")
    nothing = not any(outcome == "passed" for outcome, _ in results["Lightning"].values())
    if nothing:
        print("  nothing passes on Lightning: this says nothing")
    sys.stdout.flush()
    return {*found} == {*known} and not nothing


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    listed = {package.name: package for package in packages((HERE / "packages.toml").read_text(encoding="utf-8"))}
    parser = argparse.ArgumentParser(prog="python -m tests.clients.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=listed, help="these packages alone")
    parser.add_argument("--list", action="store_true", help="print the packages and what is run of each")
    parser.add_argument("--install", action="store_true", help="make the environments, and run nothing")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for one run of one package")
    options = parser.parse_args(arguments)
    chosen = [listed[name] for name in options.only or listed]
    if options.list:
        for package in chosen:
            what = " ".join(package.tests) or f"quick_starts/{package.quick_start}"
            print(f"{package.name}=={package.version}: {what}")
        return 0
    return max([_outcome(package, options) for package in chosen], default=0)


def _outcome(package: Package, options: Any) -> int:
    try:
        if options.install:
            make_environment(package)
            return 0
        return int(not compare(package, options.timeout))
    except Unusable as error:
        print(f"{package.name} {package.version}\n  {error}", flush=True)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
