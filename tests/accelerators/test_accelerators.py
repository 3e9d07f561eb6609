"""Where a run happens: kinds of devices, their names, and the forms of ``devices``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fulmen import Trainer
from fulmen.accelerators import (
    Accelerator,
    AcceleratorRegistry,
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    XLAAccelerator,
    find_usable_cuda_devices,
)
from fulmen.accelerators.forms import numbers_of
from fulmen.demos.boring_classes import BoringModel
from fulmen.trainer.hardware import device_indices
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

only_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")


# -- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (1, [0]),
        (3, [0, 1, 2]),
        ("2", [0, 1]),
        (-1, [0, 1, 2, 3]),
        ("-1", [0, 1, 2, 3]),
        ([1], [1]),
        ([3, 0], [3, 0]),
        ((2,), [2]),
        ("1,", [1]),
        ("0,1", [0, 1]),
        (" 0, 2 ", [0, 2]),
    ],
)
def test_devices_in_all_forms_are_the_numbers_that_are_meant(devices, expected):
    assert numbers_of(devices, 4, "cuda") == expected


@pytest.mark.parametrize(
    ("devices", "error", "words"),
    [
        (0, MisconfigurationException, "nothing to run on"),
        ("0", MisconfigurationException, "nothing to run on"),
        ([], MisconfigurationException, "nothing to run on"),
        (-2, MisconfigurationException, "must be 'auto'"),
        ("all", MisconfigurationException, "must be 'auto'"),
        ("0,x", MisconfigurationException, "must be 'auto'"),
        ([1, 1], MisconfigurationException, "names a device twice"),
        ("0,0", MisconfigurationException, "names a device twice"),
        (5, MisconfigurationException, "this machine has 4 of 'cuda'"),
        ([4], MisconfigurationException, "this machine has 4 of 'cuda'"),
        ([-1], MisconfigurationException, "this machine has 4 of 'cuda'"),
        (1.5, TypeError, "must be 'auto'"),
        (True, TypeError, "must be 'auto'"),
        (None, TypeError, "must be 'auto'"),
        (["0"], TypeError, "must be 'auto'"),
    ],
)
def test_devices_that_are_none_are_an_error_that_names_the_value(devices, error, words):
    with pytest.raises(error, match=words) as raised:
        numbers_of(devices, 4, "cuda")
    assert f"`devices={devices!r}`" in str(raised.value)


@pytest.mark.parametrize(("devices", "expected"), [("auto", [0]), (1, [0]), (3, [0, 1, 2]), ("2", [0, 1])])
def test_devices_of_the_cpu_are_processes(devices, expected):
    kind = CPUAccelerator()
    assert device_indices(devices, kind) == expected
    assert {str(kind.device(index)) for index in expected} == {"cpu"}


@pytest.mark.parametrize(
    ("devices", "error"),
    [
        *((devices, MisconfigurationException) for devices in (0, [], "all")),
        *((devices, TypeError) for devices in (-1, "-1", [0], "0,1", 1.0)),
    ],
)
def test_devices_of_the_cpu_that_are_no_number_of_processes_are_an_error(devices, error):
    with pytest.raises(error, match="devices="):
        device_indices(devices, CPUAccelerator())


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_that_come_with_it_are_registered():
    assert set(AcceleratorRegistry.available_accelerators()) >= {"cpu", "cuda", "mps", "tpu", "xla"}
    assert isinstance(AcceleratorRegistry.get("cpu"), CPUAccelerator)
    assert (CUDAAccelerator.name(), MPSAccelerator.name()) == ("cuda", "mps")
    with pytest.raises(KeyError, match=r"no accelerator 'none'. Known are cpu, cuda"):
        AcceleratorRegistry.get("none")


@only_cpu
@pytest.mark.parametrize("name", ["cuda", "mps", "gpu"])
def test_accelerator_that_the_machine_does_not_have_is_an_error_that_lists_those_that_it_has(name):
    with pytest.raises(MisconfigurationException, match=r"this machine has none \(available: \['cpu'\]\)"):
        Trainer(accelerator=name)


@only_cpu
@pytest.mark.parametrize("name", ["xla", "tpu"])
def test_xla_without_torch_xla_is_an_error_with_the_line_that_installs_it(name):
    assert not XLAAccelerator.is_available()
    with pytest.raises(MisconfigurationException, match="pip install torch_xla"):
        Trainer(accelerator=name)


@only_cpu
def test_auto_without_an_accelerator_is_the_cpu():
    trainer = Trainer(accelerator="auto", logger=False, enable_checkpointing=False)
    assert isinstance(trainer.accelerator, CPUAccelerator)
    assert (trainer.num_devices, trainer.device_ids) == (1, [0])


class Phantom(Accelerator):
    """A kind of device of the user's, whose devices are the CPU."""

    calls: list[str] = []

    def __init__(self, label: str = "none") -> None:
        self.label = label

    @staticmethod
    def name() -> str:
        return "phantom"

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        Phantom.calls.append(f"parse_devices({devices})")
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("cpu", number) for number in range(devices)]

    def setup_device(self, device: torch.device) -> None:
        self.calls.append(f"setup_device({device})")

    def setup(self, trainer: Any) -> None:
        self.calls.append(f"setup({type(trainer).__name__})")

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {"spirits": 3}

    def teardown(self) -> None:
        self.calls.append("teardown")


@pytest.fixture
def registry():
    """The registry, which is afterwards what it was."""
    before = dict(AcceleratorRegistry)
    Phantom.calls.clear()
    yield AcceleratorRegistry
    AcceleratorRegistry.clear()
    AcceleratorRegistry.update(before)


@pytest.mark.parametrize("way", ["object", "name", "own name", "decorator"])
def test_accelerator_of_the_users_trains(trainer_of, registry, way):
    accelerator: Any = Phantom()
    if way == "name":
        registry.register("spook", Phantom, description="for tests", label="registered")
        accelerator = "spook"
    elif way == "own name":
        Phantom.register_accelerators(registry)
        accelerator = "phantom"
    elif way == "decorator":
        registry.register("spook")(Phantom)
        accelerator = "spook"

    trainer = trainer_of(accelerator=accelerator, max_steps=1)
    trainer.fit(BoringModel())

    assert isinstance(trainer.accelerator, Phantom)
    assert trainer.accelerator.label == ("registered" if way == "name" else "none")
    assert Phantom.calls == ["parse_devices(1)", "setup_device(cpu:0)", "setup(Trainer)", "teardown"]
    assert trainer.strategy.root_device == torch.device("cpu", 0)
    assert trainer.accelerator.get_device_stats(trainer.strategy.root_device) == {"spirits": 3}


def test_devices_of_an_accelerator_of_the_users_are_those_that_it_gives():
    kind = Phantom()
    assert device_indices(3, kind) == [0, 1, 2]
    assert [str(kind.device(index)) for index in range(3)] == ["cpu:0", "cpu:1", "cpu:2"]


def test_name_that_is_taken_is_an_error_unless_it_is_meant(registry):
    with pytest.raises(MisconfigurationException, match="'cpu' is there already"):
        registry.register("cpu", Phantom)
    with pytest.raises(MisconfigurationException, match="'auto' is there already"):
        registry.register("auto", Phantom)
    registry.register("cpu", Phantom, override=True)
    assert isinstance(registry.get("cpu"), Phantom)
    registry.remove("cpu")
    assert "cpu" not in registry.available_accelerators()
    with pytest.raises(TypeError, match="must be a string"):
        registry.register(Phantom)


# -- what they tell ---------------------------------------------------------------------------------------------------


def test_cpu_tells_how_busy_the_machine_is_if_psutil_is_there():
    pytest.importorskip("psutil")
    figures = CPUAccelerator().get_device_stats(torch.device("cpu"))
    assert figures.keys() == {"cpu_percent", "cpu_vm_percent", "cpu_swap_percent"}
    assert 0 < figures["cpu_vm_percent"] <= 100


@pytest.mark.skipif(package_available("psutil"), reason="psutil is installed")
def test_cpu_without_psutil_says_what_to_install():
    with pytest.raises(ModuleNotFoundError, match="pip install 'psutil'"):
        CPUAccelerator().get_device_stats(torch.device("cpu"))


@only_cpu
def test_usable_cuda_devices_where_there_are_none():
    assert find_usable_cuda_devices(0) == []
    for number in (-1, 2):
        with pytest.raises(ValueError, match="this machine has 0"):
            find_usable_cuda_devices(number)


def test_cpu_accelerator_refuses_another_device():
    with pytest.raises(ValueError, match="cannot use the device cuda"):
        CPUAccelerator().setup_device(torch.device("cuda"))
