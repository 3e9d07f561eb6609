"""When the aliases come, when they do not, and what they leave behind."""

from __future__ import annotations

import os
import site
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import fulmen
from fulmen import compat

SOURCE = Path(fulmen.__file__).parents[1]
Python = Callable[..., "subprocess.CompletedProcess[str]"]

_REAL = {
    "lightning/__init__.py": '"""Another package of this name."""\n__version__ = "1.2.3"\n',
    "lightning/pytorch/__init__.py": "Trainer = 'not of Fulmen'\n",
}


@pytest.fixture
def real_lightning(tmp_path: Path) -> Path:
    for name, text in _REAL.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def _paths(*paths: object) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, [*paths, SOURCE]))}


def test_the_import_of_compat_does_not_import_torch(python: Python) -> None:
    done = python("-c", "import sys, fulmen.compat; fulmen.compat.install(); sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_without_install_nothing_is_aliased(python: Python, real_lightning: Path) -> None:
    done = python("-c", "import fulmen, lightning; print(lightning.__version__)", environment=_paths(real_lightning))
    assert done.stdout == "1.2.3\n", done.stderr


def test_an_installed_lightning_is_hidden_when_asked_for_and_this_is_said_once(
    python: Python, real_lightning: Path
) -> None:
    program = (
        "import subprocess, sys, fulmen\n"
        "fulmen.compat.install(); fulmen.compat.install()\n"
        "import lightning.pytorch as pl; print(pl.__spec__.origin, flush=True)\n"
        "again = 'import lightning.pytorch as pl; print(pl.__spec__.origin)'\n"
        "subprocess.run([sys.executable, '-c', again])\n"
    )
    done = python("-c", program, environment=_paths(real_lightning))
    assert done.stdout == "fulmen.compat\nfulmen.compat\n", done.stderr
    assert done.stderr.count("Fulmen is imported instead of") == 1
    assert str(real_lightning) in done.stderr


def test_install_after_lightning_is_refused_with_what_to_do(python: Python, real_lightning: Path) -> None:
    done = python("-c", "import lightning, fulmen; fulmen.compat.install()", environment=_paths(real_lightning))
    assert done.returncode == 1
    assert "'lightning' has been imported already" in done.stderr
    assert "before the first import of Lightning" in done.stderr
    assert "python -m fulmen.compat" in done.stderr


def test_uninstall_gives_the_names_and_the_environment_back(python: Python, real_lightning: Path) -> None:
    program = (
        "import os, fulmen\n"
        "before = dict(os.environ)\n"
        "fulmen.compat.install()\n"
        "import lightning\n"
        "fulmen.compat.uninstall()\n"
        "import lightning\n"
        "print(lightning.__version__, before == dict(os.environ))\n"
    )
    done = python("-c", program, environment=_paths(real_lightning))
    assert done.stdout == "1.2.3 True\n", done.stderr


def test_children_are_left_alone_when_they_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FULMEN_COMPAT", raising=False)
    before = dict(os.environ)
    compat.install(children=False)
    try:
        assert dict(os.environ) == before
    finally:
        compat.uninstall()


def test_lightning_utilities_is_left_alone_where_it_is_installed(python: Python) -> None:
    program = "import fulmen; fulmen.compat.install(); import lightning_utilities as u; print(u.__file__)"
    assert "site-packages" in python("-c", program).stdout


def test_lightning_utilities_is_aliased_where_it_is_not_installed(python: Python, tmp_path: Path) -> None:
    """In an environment that has all packages of this one but that one."""
    packages = tmp_path / "packages"
    packages.mkdir()
    import torch

    for entry in Path(torch.__file__).parents[1].iterdir():
        if not entry.name.startswith("lightning"):
            (packages / entry.name).symlink_to(entry)
    program = (
        "import operator, fulmen; fulmen.compat.install()\n"
        "from lightning_utilities import apply_to_collection\n"
        "from lightning_utilities.core.imports import RequirementCache, compare_version, package_available\n"
        "from lightning_utilities.core.rank_zero import WarningCache, rank_prefixed_message, rank_zero_only\n"
        "from fulmen.utilities import rank_zero\n"
        "assert rank_zero_only is rank_zero.rank_zero_only\n"
        "assert RequirementCache('torch>=2.0') and RequirementCache('torch', 'torch.nn')\n"
        "assert not RequirementCache('torch>=99') and not RequirementCache(module='torch.nowhere')\n"
        "assert compare_version('torch', operator.ge, '2.0') and not compare_version('nowhere', operator.ge, '0')\n"
        "assert package_available('torch') and not package_available('nowhere')\n"
        "print(apply_to_collection([1, 'a'], int, lambda n: n + 1), rank_prefixed_message('hello', 1))\n"
        "import warnings; warnings.simplefilter('always'); cache = WarningCache()\n"
        "with warnings.catch_warnings(record=True) as said: cache.warn('twice'); cache.warn('twice')\n"
        "print(len(said))\n"
    )
    done = python("-S", "-c", program, environment=_paths(packages))
    assert done.stdout == "[2, 'a'] [rank: 1] hello\n1\n", done.stderr


def test_the_startup_folder_alone_is_a_switch(python: Python, tmp_path: Path) -> None:
    folder = python("-m", "fulmen.compat", "--startup").stdout.strip()
    (tmp_path / "program.py").write_text(
        "import sys, pytorch_lightning\nprint(pytorch_lightning.__version__, sys.path.count(sys.argv[1]))"
    )
    assert python("program.py", folder, environment=_paths(folder)).stdout == "2.6.6 0\n"
    off = python("program.py", folder, environment={**_paths(folder), "FULMEN_COMPAT": "0"})
    assert "No module named 'pytorch_lightning'" in off.stderr


def test_the_startup_folder_hides_no_other_sitecustomize(python: Python, tmp_path: Path) -> None:
    folder = python("-m", "fulmen.compat", "--startup").stdout.strip()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text("print('mine', __name__, flush=True)")
    done = python(
        "-c",
        "import lightning, sitecustomize; print(sitecustomize.__file__)",
        environment=_paths(folder, tmp_path / "mine"),
    )
    assert done.stdout == f"mine sitecustomize\n{tmp_path / 'mine' / 'sitecustomize.py'}\n", done.stderr


def test_the_startup_folder_is_harmless_to_a_python_without_fulmen(python: Python, tmp_path: Path) -> None:
    folder = python("-m", "fulmen.compat", "--startup").stdout.strip()
    program = (
        "import sys\n"
        f"sys.path[:] = [{folder!r}, *(path for path in sys.path if 'site-packages' not in path)]\n"
        "import sitecustomize; print('well')\n"
    )
    done = python("-I", "-S", "-c", program)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_the_plugin_of_pytest_installs_before_the_tests_are_imported(python: Python, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import pytorch_lightning as pl\n")
    (tmp_path / "test_it.py").write_text(
        "import lightning.pytorch as pl\n\ndef test_it():\n    assert pl.__spec__.origin == 'fulmen.compat'\n"
    )
    done = python("-m", "pytest", "-p", "fulmen.compat.pytest_plugin", "-p", "no:cacheprovider", "test_it.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fulmen.compat: Lightning's names are those of Fulmen" in done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that has Fulmen, and something that is called lightning."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "below.pth").write_text("\n".join([str(SOURCE), *site.getsitepackages()]))
    for name, text in _REAL.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    return folder


def _in(environment: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("FULMEN_COMPAT", "PYTHONPATH")}
    command = [environment / "bin" / "python", *arguments]
    return subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True, timeout=120)


ORIGIN = "import lightning.pytorch; print(lightning.pytorch.__spec__.origin, flush=True)"


def test_the_switch_of_an_environment_works_for_every_python_of_it_and_for_those_that_it_starts(
    environment: Path,
) -> None:
    added = _in(environment, "-m", "fulmen.compat", "--add-switch")
    assert "fulmen_compat.pth" in added.stdout, added.stderr
    child = f"import subprocess, sys\n{ORIGIN}\nsubprocess.run([sys.executable, '-c', {ORIGIN!r}])"
    on = _in(environment, "-c", child, FULMEN_COMPAT="1")
    assert on.stdout == "fulmen.compat\nfulmen.compat\n", on.stderr
    assert on.stderr.count("Fulmen is imported instead of") == 1
    for variables in ({}, {"FULMEN_COMPAT": "0"}):
        assert str(environment) in _in(environment, "-c", ORIGIN, **variables).stdout

    removed = _in(environment, "-m", "fulmen.compat", "--remove-switch")
    assert removed.stdout.startswith("removed")
    assert str(environment) in _in(environment, "-c", ORIGIN, FULMEN_COMPAT="1").stdout
    assert "no switch" in _in(environment, "-m", "fulmen.compat", "--remove-switch").stdout


def test_the_switch_is_harmless_where_fulmen_is_gone(environment: Path) -> None:
    _in(environment, "-m", "fulmen.compat", "--add-switch")
    below = next(environment.glob("lib/python*/site-packages/below.pth"))
    text = below.read_text()
    try:
        below.write_text("")
        done = _in(environment, "-c", ORIGIN, FULMEN_COMPAT="1")
        assert str(environment) in done.stdout
        assert done.stderr == ""
    finally:
        below.write_text(text)
        _in(environment, "-m", "fulmen.compat", "--remove-switch")
