"""A job whose variables are wrong ends with an error that names the variable or the process."""

from __future__ import annotations

import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen import Trainer
from fulmen.demos.boring_classes import BoringModel
from fulmen.plugins.environments import KubeflowEnvironment
from fulmen.plugins.environments.lightning import find_free_network_port
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_only

FREE = "a free port"
USUAL = {"devices": 2, "accelerator": "cpu", "strategy": "ddp", "max_epochs": 1, "logger": False}
HERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": FREE}
LAUNCHED = {**HERE, "LOCAL_RANK": "0"}
TORCHRUN = {
    **HERE,
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_NODELIST": "localhost",
}
LSF = {
    "LSB_JOBID": "7",
    "LSB_DJOB_RANKFILE": "rankfile",
    "JSM_NAMESPACE_RANK": "0",
    "JSM_NAMESPACE_LOCAL_RANK": "0",
    "JSM_NAMESPACE_SIZE": "2",
}
CONTAINERS = {**HERE, "RANK": "0", "WORLD_SIZE": "2"}
PREFIXES = ("SLURM_", "LSB_", "JSM_", "OMPI_", "PMI_", "MV2_", "PALS_", "TORCHELASTIC_")
NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "STANDALONE_PORT")


def but(variables: dict[str, str], **changes: str | None) -> dict[str, str]:
    return {name: value for name, value in {**variables, **changes}.items() if value is not None}


# variables; arguments of the Trainer that are not devices=2; words of the error
BROKEN: dict[str, tuple[dict[str, str], dict[str, Any], list[str]]] = {
    "LOCAL_RANK is no number": (but(LAUNCHED, LOCAL_RANK="x"), {}, ["LOCAL_RANK='x'", "whole number"]),
    "LOCAL_RANK is too high": (but(LAUNCHED, LOCAL_RANK="2"), {}, ["LOCAL_RANK=2", "devices=2", "unset LOCAL_RANK"]),
    "NODE_RANK is too high": (
        but(HERE, NODE_RANK="2"),
        {"num_nodes": 2},
        ["NODE_RANK=2", "num_nodes=2"],
    ),
    "NODE_RANK is below zero": (but(HERE, NODE_RANK="-1"), {}, ["NODE_RANK='-1'", "from 0"]),
    "GROUP_RANK is left over": (but(HERE, GROUP_RANK="1"), {}, ["GROUP_RANK=1", "unset GROUP_RANK"]),
    "no MASTER_ADDR on two machines": (
        but(HERE, MASTER_ADDR=None),
        {"num_nodes": 2},
        ["num_nodes=2", "MASTER_ADDR must", "NODE_RANK"],
    ),
    "no MASTER_PORT on two machines": (but(HERE, MASTER_PORT=None), {"num_nodes": 2}, ["MASTER_PORT must"]),
    "MASTER_PORT is no number": (but(HERE, MASTER_PORT="http"), {}, ["MASTER_PORT='http'"]),
    "MASTER_PORT is too high": (but(HERE, MASTER_PORT="70000"), {}, ["MASTER_PORT=70000", "65535"]),
    "WORLD_SIZE contradicts": (but(LAUNCHED, WORLD_SIZE="4"), {}, ["WORLD_SIZE=4", "devices=2", "unset WORLD_SIZE"]),
    "the time to wait is no number": (
        but(LAUNCHED, FULMEN_RENDEZVOUS_TIMEOUT="soon"),
        {},
        ["FULMEN_RENDEZVOUS_TIMEOUT='soon'"],
    ),
    "torchrun without RANK": (but(TORCHRUN, RANK=None), {}, ["RANK is not set", "torchrun"]),
    "torchrun without LOCAL_RANK": (but(TORCHRUN, LOCAL_RANK=None), {}, ["LOCAL_RANK is not set"]),
    "torchrun with a RANK too high": (but(TORCHRUN, RANK="2"), {}, ["RANK=2", "WORLD_SIZE is 2"]),
    "torchrun with another number": (
        TORCHRUN,
        {"devices": 4},
        ["2 processes (WORLD_SIZE)", "devices=4", "Trainer(devices=2, num_nodes=1)", "--nproc-per-node=4"],
    ),
    "torchrun for one device": (
        TORCHRUN,
        {"devices": 1, "strategy": "auto"},
        ["2 processes (WORLD_SIZE)", "devices=1", "Trainer(devices=2, num_nodes=1)"],
    ),
    "torchrun without MASTER_PORT": (but(TORCHRUN, MASTER_PORT=None), {}, ["MASTER_PORT is not set"]),
    "torchrun with words": (but(TORCHRUN, WORLD_SIZE="two"), {}, ["WORLD_SIZE='two'"]),
    "SLURM without srun": (but(SLURM, SLURM_STEP_ID=None), {}, ["SLURM_NTASKS=2", "srun python"]),
    "SLURM with another number of tasks": (
        but(SLURM, SLURM_NTASKS="4"),
        {},
        ["4 tasks (SLURM_NTASKS)", "devices=2", "--ntasks-per-node=2"],
    ),
    "SLURM with more machines": (but(SLURM, SLURM_NNODES="2"), {}, ["2 machines (SLURM_NNODES)", "num_nodes=1"]),
    "SLURM with another number for each machine": (
        but(SLURM, SLURM_NTASKS="4", SLURM_NNODES="2", SLURM_NTASKS_PER_NODE="3"),
        {"num_nodes": 2},
        ["SLURM_NTASKS_PER_NODE", "devices=2"],
    ),
    "SLURM without SLURM_LOCALID": (but(SLURM, SLURM_LOCALID=None), {}, ["SLURM_LOCALID is not set"]),
    "SLURM with SLURM_PROCID too high": (but(SLURM, SLURM_PROCID="2"), {}, ["SLURM_PROCID=2", "SLURM_NTASKS is 2"]),
    "LSF without its file": (but(LSF, LSB_DJOB_RANKFILE="nowhere"), {}, ["LSB_DJOB_RANKFILE='nowhere'", "No such"]),
    "LSF with a file of other machines": (LSF, {}, ["LSB_DJOB_RANKFILE=rankfile", "elsewhere", "jsrun"]),
    "LSF without JSM_NAMESPACE_RANK": (
        but(LSF, JSM_NAMESPACE_RANK=None, LSB_DJOB_RANKFILE="rankfile_here"),
        {},
        ["JSM_NAMESPACE_RANK is not set"],
    ),
    "containers without MASTER_ADDR": (
        but(CONTAINERS, MASTER_ADDR=None),
        {"devices": 1, "num_nodes": 2, "plugins": [KubeflowEnvironment()]},
        ["MASTER_ADDR is not set"],
    ),
    "containers with several processes": (
        CONTAINERS,
        {"devices": 2, "plugins": [KubeflowEnvironment()]},
        ["WORLD_SIZE=2 containers", "Trainer(devices=1, num_nodes=2)"],
    ),
    "containers with a RANK too high": (
        but(CONTAINERS, RANK="5"),
        {"devices": 1, "num_nodes": 2, "plugins": [KubeflowEnvironment()]},
        ["RANK=5", "WORLD_SIZE is 2"],
    ),
    "the port is taken": (but(LAUNCHED, MASTER_PORT="taken"), {}, ["the port {taken} (MASTER_PORT)", "in use"]),
    "rank 1 is absent": (LAUNCHED, {}, ["rank 1 of 2 did not come", "MASTER_PORT", "1 seconds", "rank 0 is here"]),
    "rank 0 is absent": (but(LAUNCHED, LOCAL_RANK="1"), {}, ["rank 1 of 2 cannot reach rank 0", "MASTER_ADDR"]),
    "the second of two machines is absent": (
        but(HERE, LOCAL_RANK="0", NODE_RANK="0"),
        {"num_nodes": 2, "devices": 1},
        ["rank 1 of 2 did not come"],
    ),
    "MASTER_ADDR is another machine": (
        but(LAUNCHED, MASTER_ADDR="no-such-host.invalid"),
        {},
        ["no-such-host.invalid", "MASTER_ADDR", "this machine"],
    ),
    "MPI without mpi4py": ({"OMPI_COMM_WORLD_SIZE": "2"}, {}, ["OMPI_COMM_WORLD_SIZE=2", "pip install mpi4py"]),
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No variables of the job that the tests run in, and none left over."""
    for name in list(os.environ):
        if name in NAMES or name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("FULMEN_RENDEZVOUS_TIMEOUT", "1")
    monkeypatch.chdir(tmp_path)
    Path("rankfile").write_text("login\nelsewhere1\nelsewhere2\n")
    Path("rankfile_here").write_text(f"login\n{socket.gethostname()}\n")
    monkeypatch.setattr(rank_zero_only, "rank", 0)


def _train(**arguments: Any) -> None:
    Trainer(**arguments).fit(BoringModel())


@pytest.mark.parametrize("name", BROKEN)
def test_broken_environment_is_named(name: str, clean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, arguments, words = BROKEN[name]
    if "mpi4py" in name and find_spec("mpi4py") is not None:
        pytest.skip("mpi4py is installed")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        for variable, value in variables.items():
            monkeypatch.setenv(variable, {FREE: str(find_free_network_port()), "taken": taken}.get(value, value))
        began = time.monotonic()
        with pytest.raises((MisconfigurationException, TimeoutError)) as caught:
            _train(**{**USUAL, **arguments})
    message = str(caught.value)
    for word in words:
        assert word.replace("{taken}", taken) in message
    assert time.monotonic() - began < 20
    assert not torch.distributed.is_initialized()


def test_trainer_takes_all_processes_that_torchrun_has_started_unless_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(accelerator="cpu", logger=False)
    assert (trainer.world_size, type(trainer.strategy).__name__) == (2, "DDPStrategy")
