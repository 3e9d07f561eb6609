"""Every number of a loop by Fabric is that of the loop by hand."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, by_fabric, by_hand

from fulmen import Fabric


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["losses"] == other["losses"] and all(map(torch.equal, one["weights"], other["weights"]))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loop_on_one_process_is_bit_equal_to_plain_torch(precision: str, accumulate: int) -> None:
    found = by_fabric(Fabric(accelerator="cpu", precision=precision), accumulate=accumulate)
    assert same(found, by_hand(precision=precision, accumulate=accumulate))


def _losses_in_a_process(strategy: str, precision: str, accumulate: int) -> tuple[dict[str, Any], dict[str, Any]]:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy=strategy, precision=precision)
    fabric.launch()
    found = by_fabric(fabric, accumulate=accumulate)
    assert dist.is_initialized()
    return found, by_hand(strategy, precision, accumulate=accumulate, rank=int(os.environ["LOCAL_RANK"]), world=WORLD)


@pytest.mark.parametrize(
    ("strategy", "precision", "accumulate"),
    [
        ("ddp", "32-true", 1),
        ("ddp", "bf16-mixed", 2),
        ("ddp", "16-mixed", 1),
        ("fsdp", "32-true", 2),
        ("fsdp", "bf16-mixed", 1),
    ],
)
def test_a_loop_on_two_processes_is_bit_equal_to_that_by_hand(strategy: str, precision: str, accumulate: int) -> None:
    ranks = run(WORLD, _losses_in_a_process, strategy, precision, accumulate)
    for found, wanted in ranks:
        assert found["losses"] == wanted["losses"]
        assert all(map(torch.equal, found["weights"], wanted["weights"]))
    assert all(map(torch.equal, ranks[0][0]["weights"], ranks[1][0]["weights"]))
    assert ranks[0][0]["losses"] != ranks[1][0]["losses"]
