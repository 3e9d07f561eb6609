"""Several machines: here several programs, each with the variables of a machine of its own, or with its own network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.distributed.test_launch import MODULE, environment

from fulmen.plugins.environments.lightning import find_free_network_port

PROGRAM = """
from common import *
from fulmen.plugins.environments import KubeflowEnvironment
module = Module()
containers = sys.argv[1] == "containers"
fit = trainer(devices=int(sys.argv[2]), num_nodes=2, plugins=[KubeflowEnvironment()] if containers else None)
fit.fit(module, loader())
leave(".", fit, module, node=fit.node_rank, local=fit.local_rank)
"""


def run_on_machines(
    folder: Path, commands: list[list[str]], variables: list[dict[str, str]], world: int, timeout: float = 90
) -> list[dict[str, Any]]:
    """Run one command on each machine; what the processes left, by rank."""
    (folder / "common.py").write_text(MODULE)
    (folder / "train.py").write_text(PROGRAM)
    started = [
        subprocess.Popen(command, cwd=folder, env=environment(**one), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command, one in zip(commands, variables, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()  # which its own processes notice
            process.wait()
    assert [process.returncode for process in started] == [0] * len(started), "\n---\n".join(outputs)
    states = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world)]
    for state in states:
        assert state["world"] == world
        assert state["weights"] == states[0]["weights"]
    return states


@pytest.mark.slow
def test_machines_meet_by_their_variables(tmp_path: Path) -> None:
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    variables = [{**common, "NODE_RANK": str(node)} for node in range(2)]
    states = run_on_machines(tmp_path, [[sys.executable, "train.py", "machines", "2"]] * 2, variables, 4)
    assert [(state["rank"], state["node"], state["local"]) for state in states] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 0),
        (3, 1, 1),
    ]
    assert states[0]["steps"] == 4  # two epochs of 8 batches, four at a time


@pytest.mark.slow
def test_machines_meet_by_torchrun(tmp_path: Path) -> None:
    place = f"127.0.0.1:{find_free_network_port()}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    agents = [*torchrun, "--rdzv-backend=c10d", f"--rdzv-endpoint={place}", "train.py", "machines", "1"]
    states = run_on_machines(tmp_path, [agents, agents], [{}, {}], 2)
    assert sorted(state["node"] for state in states) == [0, 1]
    assert [state["local"] for state in states] == [0, 0]


@pytest.mark.slow
def test_containers_meet_by_their_variables(tmp_path: Path) -> None:
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(find_free_network_port()), "WORLD_SIZE": "2"}
    variables = [{**common, "RANK": str(rank)} for rank in range(2)]
    states = run_on_machines(tmp_path, [[sys.executable, "train.py", "containers", "1"]] * 2, variables, 2)
    assert [(state["rank"], state["node"], state["local"]) for state in states] == [(0, 0, 0), (1, 1, 0)]


@pytest.fixture
def networks() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them, with the addresses 10.213.77.1 and .2."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the program `ip` and root")
    code = uuid.uuid4().hex[:6]
    names, cards = [f"fulmen{code}{end}" for end in "ab"], [f"f{code}{end}" for end in "ab"]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add {cards[0]} netns {names[0]} type veth peer name {cards[1]} netns {names[1]}")
    for number, (name, card) in enumerate(zip(names, cards, strict=True), 1):
        commands += [
            f"ip -n {name} address add 10.213.77.{number}/24 dev {card}",
            f"ip -n {name} link set {card} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: `{command}`: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_machines_with_networks_of_their_own_meet_at_an_address(networks: list[str], tmp_path: Path) -> None:
    common = {"MASTER_ADDR": "10.213.77.1", "MASTER_PORT": "29511"}
    variables = [{**common, "NODE_RANK": str(node)} for node in range(2)]
    commands = [["ip", "netns", "exec", name, sys.executable, "train.py", "machines", "1"] for name in networks]
    states = run_on_machines(tmp_path, commands, variables, 2)
    assert [(state["rank"], state["node"]) for state in states] == [(0, 0), (1, 1)]
    assert states[0]["steps"] == 8
