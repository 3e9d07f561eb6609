"""Every number of a loop by Fabric is that of the loop by hand."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, Net, by_fabric, by_hand, samples, whole
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader

from fulmen import Fabric
from fulmen.strategies import ModelParallelStrategy


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["losses"] == other["losses"] and all(map(torch.equal, one["weights"], other["weights"]))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loop_on_one_process_is_bit_equal_to_plain_torch(precision: str, accumulate: int) -> None:
    found = by_fabric(Fabric(accelerator="cpu", precision=precision), accumulate=accumulate)
    assert same(found, by_hand(precision=precision, accumulate=accumulate))


def _as_it_is(module: Any, device_mesh: Any) -> Any:
    return module


def _losses_in_a_process(kind: str, precision: str, accumulate: int) -> tuple[dict[str, Any], dict[str, Any]]:
    strategy: Any = kind
    if kind == "model_parallel":
        strategy, kind = ModelParallelStrategy(WORLD, 1, parallelize_fn=_as_it_is), "fsdp"
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=strategy, precision=precision)
    fabric.launch()
    found = by_fabric(fabric, accumulate=accumulate)
    assert dist.is_initialized()
    return found, by_hand(kind, precision, accumulate=accumulate, rank=int(os.environ["LOCAL_RANK"]), world=WORLD)


@pytest.mark.parametrize(
    ("kind", "precision", "accumulate"),
    [
        ("ddp", "32-true", 1),
        ("ddp", "bf16-mixed", 2),
        ("ddp", "16-mixed", 1),
        ("fsdp", "32-true", 2),
        ("fsdp", "bf16-mixed", 1),
        ("model_parallel", "32-true", 1),
    ],
)
def test_a_loop_on_two_processes_is_bit_equal_to_that_by_hand(kind: str, precision: str, accumulate: int) -> None:
    ranks = run(WORLD, _losses_in_a_process, kind, precision, accumulate)
    for found, wanted in ranks:
        assert found["losses"] == wanted["losses"]
        assert all(map(torch.equal, found["weights"], wanted["weights"]))
    assert all(map(torch.equal, ranks[0][0]["weights"], ranks[1][0]["weights"]))
    assert ranks[0][0]["losses"] != ranks[1][0]["losses"]


def _tensor_parallel() -> list[float]:
    def spread(module: Any, device_mesh: Any) -> Any:
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        return parallelize_module(module, device_mesh["tensor_parallel"], plan)

    strategy = ModelParallelStrategy(1, WORLD, parallelize_fn=spread)
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=strategy)
    fabric.launch()
    return _steps_of_perceptron(fabric)


def _steps_of_perceptron(fabric: Fabric) -> list[float]:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), 0.1))
    losses = []
    for inputs, targets in fabric.setup_dataloaders(DataLoader(samples(), batch_size=4)):
        loss = nn.functional.mse_loss(model(inputs), targets)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_tensor_parallel_processes_take_the_same_batches_and_learn_as_one() -> None:
    one, other = run(WORLD, _tensor_parallel)
    assert one == other
    assert one == pytest.approx(_steps_of_perceptron(Fabric(accelerator="cpu")), rel=1e-5)


def _made_without_values() -> list[torch.Tensor]:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="fsdp")
    fabric.launch()
    with fabric.init_module(empty_init=True):
        net = Net()
    assert net.enter.weight.is_meta
    torch.manual_seed(1)
    return whole(fabric.setup(net))


def test_a_module_without_values_gets_those_of_one_process_as_it_is_sharded() -> None:
    torch.manual_seed(1)
    wanted = whole(Net())
    for found in run(WORLD, _made_without_values):
        assert all(map(torch.equal, found, wanted))


def _gradients(kind: str) -> list[list[float] | None]:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=kind)
    fabric.launch()
    model = fabric.setup(nn.Linear(2, 1, bias=False))
    found: list[list[float] | None] = []
    for held_back in (True, False):
        with fabric.no_backward_sync(model, enabled=held_back):
            fabric.backward(model(torch.ones(1, 2) * fabric.global_rank).sum())
        gradient: Any = model.weight.grad
        whole_one = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        found.append(None if gradient is None else whole_one.flatten().tolist())
    return found


def test_gradients_are_exchanged_in_the_last_backward_pass_of_a_window() -> None:
    assert run(WORLD, _gradients, "ddp") == [[[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]
    assert run(WORLD, _gradients, "fsdp") == [[None, [1.0, 1.0]]] * 2
