"""Names of the inside of Lightning that programs import, each doing what they import it for."""

from __future__ import annotations

import importlib
import signal
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fulmen.callbacks import EarlyStopping
from fulmen.plugins.environments import LightningEnvironment
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.registry import Registry

pytestmark = pytest.mark.usefixtures("aliases")


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_choice_of_an_accelerator_is_told_without_a_trainer() -> None:
    choice = imported("lightning.pytorch.trainer.connectors.accelerator_connector._AcceleratorConnector")
    found = choice(accelerator="cpu", devices="auto")
    assert (found._accelerator_flag, found._devices_flag, found.is_distributed) == ("cpu", 1, False)
    several = choice(accelerator="cpu", devices=2, strategy="ddp")
    assert (several._devices_flag, several.is_distributed) == (2, True)
    assert several._parallel_devices == [torch.device("cpu")] * 2
    with pytest.raises(AttributeError, match=r"docs/internals\.md"):
        _ = found._lazy_init_strategy


def test_what_a_hook_may_log_is_told_by_the_name_of_the_hook() -> None:
    functions = imported("lightning.pytorch.trainer.connectors.logger_connector.fx_validator._FxValidator").functions
    assert functions["configure_optimizers"] is None
    assert functions["training_step"]["default_on_step"] is True
    assert functions["on_train_epoch_end"]["allowed_on_step"] == (False,)


def test_the_signals_that_have_a_name_are_listed() -> None:
    names = imported("lightning.pytorch.trainer.connectors.signal_connector._SignalConnector")._valid_signals()
    assert signal.SIGTERM in names
    assert all(isinstance(one, signal.Signals) for one in names)


def test_devices_are_read_in_each_of_their_forms() -> None:
    parser = "lightning.fabric.utilities.device_parser."
    numbers = imported(f"{parser}_normalize_parse_gpu_string_input")
    assert [numbers("0, 3"), numbers("2"), numbers("-1"), numbers([1])] == [[0, 3], 2, -1, [1]]
    imported(f"{parser}_check_data_type")("0,1")
    with pytest.raises(TypeError, match="list of numbers"):
        imported(f"{parser}_check_data_type")([0, "1"])
    with pytest.raises(MisconfigurationException, match="twice"):
        imported(f"{parser}_check_unique")([0, 0])


def test_a_group_of_one_process_is_joined_and_reduces_to_the_value_itself() -> None:
    module = "lightning.fabric.utilities.distributed."
    environment = LightningEnvironment()
    backend = imported(f"{module}_get_default_process_group_backend_for_device")(torch.device("cpu"))
    reduce = imported(f"{module}_sync_ddp_if_available")
    assert reduce(torch.tensor(3.0)) == 3
    imported(f"{module}_init_dist_connection")(environment, backend, 0, 1)
    try:
        assert (dist.get_backend(), dist.get_world_size()) == ("gloo", 1)
        assert reduce(torch.tensor(3.0), reduce_op="mean") == 3
    finally:
        dist.destroy_process_group()


def test_each_class_of_a_module_enters_itself_into_a_registry() -> None:
    class Parent:
        pass

    class Child(Parent):
        @classmethod
        def register(cls, registry: Registry) -> None:
            registry.enter(cls.__name__.lower(), cls, "", False, {})

    module = types.ModuleType("module")
    module.Parent, module.Child, module.Other = Parent, Child, EarlyStopping  # type: ignore[attr-defined]
    registry = Registry()
    imported("lightning.fabric.utilities.registry._register_classes")(registry, "register", module, Parent)
    assert [*registry] == ["child"]


def test_layers_on_the_meta_device_get_memory_and_first_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    imported("lightning.fabric.utilities.init._materialize_meta_tensors")(model, torch.device("cpu"))
    assert torch.equal(model[1].running_var, torch.ones(2))
    assert model(torch.ones(3, 2)).isfinite().all()


def test_a_checkpoint_is_read_lazily_and_moved_into_objects(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 1).state_dict(), "step": 3}, tmp_path / "file.ckpt")
    state = imported("lightning.fabric.utilities.load._lazy_load")(tmp_path / "file.ckpt")
    into: dict[str, Any] = {"model": nn.Linear(2, 1)}
    weight = state["model"]["weight"].clone()
    imported("lightning.fabric.utilities.load._move_state_into")(state, into)
    assert torch.equal(into["model"].weight, weight)
    assert (into["step"], state) == (3, {})


def test_a_warning_that_must_not_come_fails_and_others_do_not() -> None:
    from fulmen.compat.lightning_utilities import no_warning_call

    with no_warning_call(UserWarning, match="loss"):
        warnings.warn("of the data", stacklevel=1)
        warnings.warn("of the loss", DeprecationWarning, stacklevel=1)
    with pytest.raises(AssertionError, match="of the loss"), no_warning_call(match="loss"):
        warnings.warn("of the loss", stacklevel=1)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from lightning.pytorch.loops.fit_loop import _FitLoop", "print\\(trainer.plan\\)"),
        ("from pytorch_lightning.loops import Loop", "print\\(trainer.plan\\)"),
        ("from lightning.fabric.utilities.testing import _runif_reasons", "pytest.mark.skipif"),
    ],
)
def test_a_name_of_the_inside_that_will_not_come_says_what_to_write(statement: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(statement)
