"""How the processes of a Fabric are started, what they do together, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, Net

from fulmen import Fabric
from fulmen.__main__ import main
from fulmen.utilities.exceptions import MisconfigurationException

PREFIXES = ("MASTER_", "TORCHELASTIC_", "LT_")
NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def program(folder: Path, text: str, *command: str, code: int = 0, **variables: str) -> str:
    """Run a program in a process of its own; what it wrote."""
    script = folder / "program.py"
    script.write_text(f"import sys\nfrom fulmen import Fabric\n{text}")
    kept = {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith(PREFIXES)}
    words = [str(script) if word == "SCRIPT" else word for word in command] or [str(script)]
    done = subprocess.run(
        [sys.executable, *words],
        env={**kept, "OMP_NUM_THREADS": "1", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


SAY = """
rank, size, kind = fabric.global_rank, fabric.world_size, type(fabric.strategy).__name__
sys.stdout.write(f"I am {rank} of {size} {kind}, {fabric.strategy.precision.precision} {sys.argv[1:]}\\n")
"""


def test_a_program_becomes_two_processes(tmp_path: Path) -> None:
    output = program(tmp_path, "fabric = Fabric(accelerator='cpu', devices=2)\nfabric.launch()\n" + SAY)
    assert "I am 0 of 2 DDPStrategy" in output
    assert "I am 1 of 2 DDPStrategy" in output


def test_a_function_is_run_in_new_processes_and_gives_back_what_it_returned(tmp_path: Path) -> None:
    text = """
def train(fabric, start, step=1):
    return fabric.all_reduce(start + step * fabric.global_rank, reduce_op="sum").item()

print("result", Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(train, 10, step=5))
"""
    assert program(tmp_path, text).count("result 25") == 1


def test_the_method_run_of_a_subclass_is_launched(tmp_path: Path) -> None:
    text = """
class Mine(Fabric):
    def run(self, word):
        self.barrier()
        return word * self.world_size

print("result", Mine(accelerator="cpu", devices=2, strategy="ddp_fork").run("a"))
"""
    assert "result aa" in program(tmp_path, text)


@pytest.mark.parametrize("launch", ["fabric.launch()\n", pytest.param("", marks=pytest.mark.slow)])
def test_the_command_starts_a_script_and_chooses_for_its_fabric(tmp_path: Path, launch: str) -> None:
    text = "fabric = Fabric()\n" + launch + SAY
    options = ("--accelerator", "cpu", "--devices=2", "--precision", "bf16-mixed")
    output = program(tmp_path, text, "-m", "fulmen", "run", *options, "SCRIPT", "--lr", "1")
    assert "I am 0 of 2 DDPStrategy, bf16-mixed ['--lr', '1']" in output
    assert "I am 1 of 2 DDPStrategy, bf16-mixed ['--lr', '1']" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--accelerator", "none", "script.py"), "fulmen run: `accelerator='none'`: must be one of"),
        (("--devices", "x", "script.py"), "fulmen run: `devices='x'`"),
        (("nothing.py",), "fulmen run: there is no file 'nothing.py'"),
        (("--num-nodes", "2", __file__), "several machines need --main-address and --main-port"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_options(options: Any, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", *options])
    assert message in str(caught.value.code)


def test_a_value_of_the_program_and_another_of_the_command_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_PRECISION", "bf16-true")
    with pytest.raises(ValueError, match=r"='64-true'\)`, but the command line says `--precision=bf16-true"):
        Fabric(accelerator="cpu", precision="64-true")


@pytest.mark.parametrize(
    "launch", ["fabric.launch()\ntrain(fabric)", pytest.param("fabric.launch(train)", marks=pytest.mark.slow)]
)
def test_an_exception_in_one_process_ends_all_and_is_told_last(tmp_path: Path, launch: str) -> None:
    text = f"""
import time

def train(fabric):
    fabric.barrier()
    if fabric.global_rank == 1:
        raise ValueError("this one")
    time.sleep(50)

fabric = Fabric(accelerator="cpu", devices=2)
{launch}
"""
    lines = program(tmp_path, text, code=1).strip().splitlines()
    assert lines[-1].endswith("ValueError: this one")
    assert any("rank 0 ends because rank 1 failed: ValueError: this one" in line for line in lines)


def test_the_environment_gives_what_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LT_ACCELERATOR", "cpu")
    monkeypatch.setenv("LT_PRECISION", "bf16-true")
    assert Fabric().strategy.precision_plugin.precision == "bf16-true"
    assert Fabric(precision="64-true").strategy.precision_plugin.precision == "64-true"


def test_what_needs_all_processes_is_refused_before_they_are_there() -> None:
    fabric = Fabric(accelerator="cpu", devices=2)
    for call in (lambda: fabric.setup(Net()), fabric.barrier, lambda: fabric.all_reduce(1)):
        with pytest.raises(RuntimeError, match=r"Call `fabric\.launch\(\)` first"):
            call()


def test_a_second_launch_without_a_function_is_refused() -> None:
    fabric = Fabric(accelerator="cpu")
    fabric.launch()
    with pytest.raises(RuntimeError, match="was called a second time"):
        fabric.launch()
    assert fabric.launch(lambda fabric, number: number + 1, 2) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), r"fabric\.launch\(3\)`: write a function"),
        ((lambda: None,), "gets the Fabric as its first argument"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Fabric(accelerator="cpu").launch(*arguments)


def test_a_strategy_that_spawns_needs_a_function() -> None:
    with pytest.raises(TypeError, match="starts new processes, which need a function to run"):
        Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch()


def test_a_strategy_for_one_device_refuses_two() -> None:
    with pytest.raises(MisconfigurationException, match="runs on one device"):
        Fabric(accelerator="cpu", devices=2, strategy="single_device")


# -- together ----------------------------------------------------------------------------------------------------------


def _together() -> dict[str, Any]:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp")
    fabric.launch()
    rank = fabric.global_rank
    tensor = torch.tensor([float(rank)], requires_grad=True)
    gathered = fabric.all_gather({"a": tensor}, sync_grads=True)["a"]
    (gathered.flatten() * torch.tensor([2.0, 3.0])).sum().backward()
    order = Path("order.txt")
    with fabric.rank_zero_first(), order.open("a") as file:
        file.write(str(rank))
    fabric.barrier()
    try:
        with fabric.rank_zero_first():
            if rank == 0:
                raise ValueError
    except ValueError:
        pass
    fabric.print("printed once")
    return {
        "ranks": (fabric.global_rank, fabric.local_rank, fabric.node_rank, fabric.world_size, fabric.is_global_zero),
        "broadcast": fabric.broadcast({"of": rank}, src=1),
        "gathered": fabric.all_gather([rank, torch.ones(2) * rank]),
        "gradient": tensor.grad,
        "mean": fabric.all_reduce(rank),
        "reduced": [fabric.all_reduce({"x": torch.tensor(rank + 1)}, reduce_op=op)["x"] for op in ("sum", "max")],
        "order": order.read_text(),
    }


def test_processes_talk_to_each_other(tmp_path: Path) -> None:
    for rank, found in enumerate(run(WORLD, _together, cwd=tmp_path)):
        assert found["ranks"] == (rank, rank, 0, 2, rank == 0)
        assert found["broadcast"] == {"of": 1}
        assert [one.tolist() for one in found["gathered"]] == [[0, 1], [[0.0, 0.0], [1.0, 1.0]]]
        assert found["gradient"].tolist() == [[4.0], [6.0]][rank]
        assert float(found["mean"]) == 0.5
        assert [int(one) for one in found["reduced"]] == [3, 2]
        assert found["order"] == "01"


def test_one_process_keeps_what_it_has() -> None:
    fabric = Fabric(accelerator="cpu")
    assert fabric.all_gather({"a": torch.ones(2)})["a"].tolist() == [1, 1]
    assert fabric.all_reduce(torch.ones(2)).tolist() == [1, 1]
    assert fabric.broadcast("x") == "x"
    fabric.barrier()
    with fabric.rank_zero_first():
        assert fabric.is_global_zero
    assert fabric.to_device({"a": torch.ones(1)})["a"].device == fabric.device
