"""What every test gets: a clean start, and a trainer that writes nothing unless it is told to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen import Trainer

_QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(autouse=True)
def _no_traces_in_torch() -> Iterator[None]:
    """Settings of the whole process are put back, so that no test depends on the one before it."""
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    warn_only, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    environment = {name: value for name, value in os.environ.items() if _is_of_a_run(name)}
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    for name in [name for name in os.environ if _is_of_a_run(name)]:
        del os.environ[name]
    os.environ.update(environment)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_of_a_run(name: str) -> bool:
    return name.startswith(("PL_", "MASTER_")) or name.endswith("RANK") or name == "WORLD_SIZE"


@pytest.fixture
def trainer_of(tmp_path: Path) -> Callable[..., Trainer]:
    """Make a Trainer that shows nothing and writes nothing; arguments as the Trainer's."""

    def make(**arguments: Any) -> Trainer:
        return Trainer(**{"accelerator": "cpu", "default_root_dir": tmp_path, **_QUIET, **arguments})

    return make
