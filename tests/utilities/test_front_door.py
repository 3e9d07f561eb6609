from __future__ import annotations

import subprocess
import sys

import torch

import fulmen.utilities as utilities


def test_every_name_of_the_front_door_is_there():
    assert all(hasattr(utilities, name) for name in utilities.__all__)


def test_epsilons_are_those_of_torch():
    assert torch.finfo(torch.float16).eps == utilities.FLOAT16_EPSILON
    assert torch.finfo(torch.float32).eps == utilities.FLOAT32_EPSILON
    assert torch.finfo(torch.float64).eps == utilities.FLOAT64_EPSILON


def test_importing_all_utilities_loads_nothing_heavy_beyond_torch():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import fulmen.utilities, fulmen.utilities.model_summary, fulmen.utilities.cloud_io, fulmen.utilities.imports\n"
        "heavy = {'fsspec', 'rich', 'yaml', 'torch._dynamo', 'torch.fx', 'torch.utils.flop_counter'}\n"
        "assert not heavy & (set(sys.modules) - before), heavy & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
