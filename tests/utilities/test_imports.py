from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from fulmen.utilities.imports import package_available, require, unmet


def test_presence_is_found_out_without_importing():
    code = (
        "import sys; from fulmen.utilities.imports import package_available as there, unmet\n"
        "assert there('wave') and unmet('pytest') == ''\n"
        "assert 'wave' not in sys.modules and 'pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "there"), [("torch", True), ("torch.nn", True), ("torch.no", False), ("no.such", False)]
)
def test_package_is_there_or_not(name, there):
    assert package_available(name) is there


@pytest.mark.parametrize("requirement", ["torch", "torch>=2.0", "torch >=2, <99", "torch!=1.0.0", "json"])
def test_met_requirement_gives_no_reason(requirement):
    assert unmet(requirement) == ""
    require(requirement, "This test")


def test_missing_package_is_named_with_its_cure():
    with pytest.raises(
        ModuleNotFoundError, match=r"The telescope needs no-such-thing>=1.*pip install 'no-such-thing>=1'"
    ):
        require("no-such-thing>=1", "The telescope")


def test_old_version_is_named_with_the_wanted_one():
    assert unmet("torch>=99").startswith(f"torch {version('torch')} is installed, but torch>=99 is needed.")
    assert unmet("torch==2") != ""
