from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from fulmen.loggers.csv_logs import CSVLogger
from fulmen.utilities.throughput import (
    Throughput,
    ThroughputMonitor,
    compute_dtype,
    get_available_flops,
    measure_flops,
    peak_flops,
)


def test_flops_are_those_of_the_matrix_products_and_gradients_stay():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.zeros(4, 5)
    forward = 2 * 4 * (5 * 7 + 7 * 3)  # a multiplication and an addition for each weight and row
    assert measure_flops(model, lambda: model(x)) == forward
    # backward: both weights' gradients, and the gradient of the hidden layer
    assert measure_flops(model, lambda: model(x), torch.sum) == 2 * forward + 2 * 4 * 7 * 3
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flops_of_a_model_without_storage():
    with torch.device("meta"):
        model = nn.Linear(10_000, 10_000)
        assert measure_flops(model, lambda: model(torch.zeros(2, 10_000))) == 4 * 10**8


def run(throughput: Throughput, updates: int) -> dict[str, float]:
    for i in range(1, updates + 1):
        throughput.update(time=0.5 * i, batches=i, samples=4 * i, lengths=40 * i, flops=10)
    return throughput.compute()


def test_totals_come_at_once_and_rates_when_the_window_is_full():
    totals = {"time": 1.0, "batches": 2, "samples": 8, "lengths": 80}
    assert run(Throughput(window_size=3), 2) == totals
    assert run(Throughput(available_flops=100, window_size=3), 5) == {
        "time": 2.5,
        "batches": 5,
        "samples": 20,
        "lengths": 200,
        "device/batches_per_sec": 2.0,
        "device/samples_per_sec": 8.0,
        "device/items_per_sec": 80.0,
        "device/flops_per_sec": 20.0,
        "device/mfu": 0.2,
    }


def test_rates_are_those_of_the_window_alone():
    throughput = Throughput(window_size=2)
    throughput.update(time=100, batches=1, samples=1)
    throughput.update(time=101, batches=2, samples=3)
    assert throughput.compute() == {
        "time": 101,
        "batches": 2,
        "samples": 3,
        "device/batches_per_sec": 1.0,
        "device/samples_per_sec": 2.0,
    }
    throughput.reset()
    assert throughput.compute() == {}


def test_several_devices_have_common_rates_too():
    metrics = run(Throughput(world_size=3, window_size=2, separator="|"), 2)
    assert metrics["device|samples_per_sec"] == 8.0
    assert metrics["samples_per_sec"] == 24.0
    assert metrics["flops_per_sec"] == 60.0


@pytest.mark.parametrize("totals", [{"time": 1.0}, {"batches": 2}, {"samples": 7}, {"lengths": 79}])
def test_totals_that_shrink_are_refused(totals):
    throughput = Throughput()
    run(throughput, 2)
    with pytest.raises(ValueError, match=next(iter(totals))):
        throughput.update(**{"time": 9.0, "batches": 9, "samples": 99, "lengths": 999} | totals)


@pytest.mark.parametrize("arguments", [{"world_size": 0}, {"window_size": 1}])
def test_impossible_throughput_is_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Throughput(**arguments)


@pytest.mark.parametrize(
    ("name", "dtype", "tf32", "flops"),
    [
        ("NVIDIA A100-SXM4-40GB", torch.bfloat16, False, 312e12),
        ("NVIDIA A100-SXM4-40GB", torch.float32, False, 19.5e12),
        ("NVIDIA A100-SXM4-40GB", "float32", True, 156e12),
        ("NVIDIA H100 PCIe", torch.float16, False, 756e12),
        ("NVIDIA H100 80GB HBM3", torch.float16, False, 989e12),
        ("Tesla V100-SXM2-16GB", torch.float16, False, 125e12),
        ("Tesla V100-SXM2-16GB", torch.bfloat16, False, None),  # has none
        ("Tesla V100-SXM2-16GB", torch.float32, True, 15.7e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.float16, False, None),
        ("Chip of Tomorrow", torch.float16, False, None),
    ],
)
def test_peak_is_that_of_chip_and_type_or_unknown(name, dtype, tf32, flops):
    assert peak_flops(name, dtype, tf32) == flops


def test_peak_of_a_processor_is_unknown():
    assert get_available_flops(torch.device("cpu"), torch.float32) is None


def test_throughput_of_a_fabric_goes_to_its_loggers(tmp_path):
    fabric_of = pytest.importorskip("fulmen.fabric").Fabric
    logger = CSVLogger(tmp_path)
    fabric = fabric_of(accelerator="cpu", devices=1, loggers=logger)
    throughput = ThroughputMonitor(fabric, window_size=2, available_flops=100)
    for i in range(1, 4):
        throughput.update(time=0.5 * i, batches=i, samples=4 * i, flops=10)
        metrics = throughput.compute_and_log()
    assert metrics["device/samples_per_sec"] == 8.0
    assert metrics["device/mfu"] == 0.2
    throughput.compute_and_log(step=10)
    assert throughput.step == 10
    logger.save()
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["batches"], row["device/samples_per_sec"]) for row in rows] == [
        ("0", "1", ""),
        ("1", "2", "8.0"),
        ("2", "3", "8.0"),
        ("10", "3", "8.0"),
    ]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("16-true", torch.float16),
        ("64-true", torch.float64),
        ("transformer-engine", None),
    ],
)
def test_type_that_a_precision_computes_in(precision, dtype):
    assert compute_dtype(precision) == dtype
