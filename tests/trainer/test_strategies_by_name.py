"""Strategies of the user's: by class, and by a name that they were given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fulmen import Trainer
from fulmen.demos.boring_classes import BoringModel
from fulmen.strategies import SingleDeviceStrategy, StrategyRegistry
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available


class Counting(SingleDeviceStrategy):
    """One process, which counts the epochs that it was told of."""

    def __init__(self, label: str = "none") -> None:
        super().__init__("cpu")
        self.label, self.epochs = label, 0

    def start_epoch(self) -> None:
        super().start_epoch()
        self.epochs += 1


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    before = dict(StrategyRegistry)
    yield
    StrategyRegistry.clear()
    StrategyRegistry.update(before)


def test_strategy_of_a_registered_name_is_made_with_its_arguments_and_trains(trainer_of):
    StrategyRegistry.register("Counting", Counting, "counts epochs", label="mine")
    trainer = trainer_of(strategy="Counting", max_epochs=2)
    trainer.fit(BoringModel())

    assert type(trainer.strategy) is Counting
    assert (trainer.strategy.label, trainer.strategy.epochs) == ("mine", 2)


def test_strategy_of_the_users_as_an_object_trains(trainer_of):
    strategy = Counting()
    trainer_of(strategy=strategy, max_epochs=1).fit(BoringModel())

    assert strategy.epochs == 1


def test_decorated_class_is_found_by_its_name():
    @StrategyRegistry.register("deepspeed_of_mine")
    class Mine(Counting):
        pass

    assert type(Trainer(accelerator="cpu", strategy="deepspeed_of_mine", logger=False).strategy) is Mine


@pytest.mark.parametrize("name", ["ddp", "auto", "single_device"])
def test_name_that_is_taken_is_refused_unless_it_is_to_be_replaced(name):
    with pytest.raises(ValueError, match=f"'{name}' is there already.*override=True"):
        StrategyRegistry.register(name, Counting)

    StrategyRegistry.register("ddp", Counting, override=True)
    assert type(StrategyRegistry.get("ddp")) is Counting


def test_unknown_name_is_a_key_error_and_a_removed_one_is_unknown():
    StrategyRegistry.register("counting", Counting)
    StrategyRegistry.remove("counting")

    with pytest.raises(KeyError, match="no strategy 'counting'"):
        StrategyRegistry.get("counting")
    assert StrategyRegistry.get("counting", 3) == 3
    assert "counting" not in StrategyRegistry.available_strategies()


def test_name_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="must be a string"):
        StrategyRegistry.register(1, Counting)  # type: ignore[arg-type]


def test_strategy_that_is_not_there_says_so():
    with pytest.raises(MisconfigurationException, match=r"not there.*'xla'"):
        Trainer(accelerator="cpu", strategy="xla_fsdp")


@pytest.mark.skipif(package_available("torch_xla"), reason="it is about where torch_xla is not installed")
@pytest.mark.parametrize("name", ["xla", "xla_debug", "single_xla"])
def test_strategy_of_torch_xla_without_it_says_how_to_install_it(name):
    with pytest.raises(ModuleNotFoundError, match="pip install 'torch_xla'"):
        Trainer(accelerator="cpu", strategy=name)


def test_precision_that_the_strategy_contradicts_is_refused_by_both_names():
    from fulmen.plugins import DoublePrecision

    strategy = SingleDeviceStrategy(torch.device("cpu"), precision_plugin=DoublePrecision())
    with pytest.raises(MisconfigurationException, match=r"64-true.*bf16-true"):
        Trainer(accelerator="cpu", strategy=strategy, precision="bf16-true")
