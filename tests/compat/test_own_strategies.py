"""Strategies of programs and packages, with the methods and the signatures that Lightning's have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback, LightningModule, Trainer
from fulmen.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from fulmen.utilities.exceptions import MisconfigurationException


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter, self.leave = nn.Linear(3, 4), nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.leave(torch.tanh(self.enter(inputs))), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Validated(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.training_step(batch, batch_idx))


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(
        TensorDataset(torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)), batch_size=2
    )


def trainer_with(strategy: Any, folder: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    quiet |= {"enable_checkpointing": False, "default_root_dir": folder, "accelerator": "cpu"}
    return Trainer(strategy=strategy, **{**quiet, **arguments})


class Notes(SingleDeviceStrategy):
    """Every method that Lightning's strategies have and programs write, with Lightning's arguments."""

    def __init__(self) -> None:
        super().__init__(device=torch.device("cpu"))
        self.called: list[str] = []

    def setup(self, trainer: Trainer) -> None:
        super().setup(trainer)
        self.called.append(f"setup {len(self.optimizers)}")

    def lightning_module_state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        self.called.append("lightning_module_state_dict")
        return {name: value + 0 for name, value in self.lightning_module.state_dict().items()}  # type: ignore[union-attr]

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        self.called.append(f"load_model_state_dict {strict}")
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)  # type: ignore[union-attr]

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        self.called.append("optimizer_state")
        return super().optimizer_state(optimizer)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.called.append(f"save_checkpoint {storage_options}")
        super().save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.called.append("training_step")
        return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        self.called.append("validation_step")
        return super().validation_step(*args, **kwargs)


def test_a_strategy_with_lightnings_signatures_is_called_where_lightning_calls_it(tmp_path: Path) -> None:
    strategy, path = Notes(), tmp_path / "saved.ckpt"
    trainer = trainer_with(strategy, tmp_path, num_sanity_val_steps=0, limit_train_batches=2, limit_val_batches=1)
    trainer.fit(Validated(), data(), data())
    assert strategy.called == ["setup 1", "training_step", "training_step", "validation_step"]

    strategy.called.clear()
    trainer.save_checkpoint(path, storage_options=None)
    assert strategy.called == ["lightning_module_state_dict", "optimizer_state", "save_checkpoint None"]

    strategy.called.clear()
    again = Notes()
    trainer_with(again, tmp_path, max_epochs=2, num_sanity_val_steps=0).fit(Net(), data(), ckpt_path=path)
    assert again.called[:2] == ["load_model_state_dict True", "setup 1"]


def test_a_run_with_such_a_strategy_is_bit_equal_to_one_with_ours_also_when_it_goes_on(tmp_path: Path) -> None:
    ours, theirs, resumed = Net(), Net(), Net()
    trainer_with("auto", tmp_path, max_epochs=3).fit(ours, data())
    trainer = trainer_with(Notes(), tmp_path, max_epochs=2)
    trainer.fit(theirs, data())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    trainer_with(Notes(), tmp_path, max_epochs=3).fit(resumed, data(), ckpt_path=tmp_path / "saved.ckpt")
    assert all(torch.equal(*pair) for pair in zip(ours.parameters(), resumed.parameters()))


def test_lightnings_calls_of_a_strategy_of_ours_work_during_and_after_a_run(tmp_path: Path) -> None:
    trainer = trainer_with("auto", tmp_path)
    with pytest.raises(RuntimeError, match="knows no module yet"):
        trainer.strategy.lightning_module_state_dict()
    module = Net()
    trainer.fit(module, data())
    strategy = trainer.strategy
    assert strategy.lightning_module is module
    assert strategy.lightning_module_state_dict().keys() == module.state_dict().keys()
    zeros = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    strategy.load_model_state_dict({"state_dict": zeros}, strict=True)
    assert not any(parameter.any() for parameter in module.parameters())
    assert strategy.optimizer_state(trainer.optimizers[0])["param_groups"][0]["lr"] == 0.05


def test_a_strategy_with_a_method_that_is_not_called_is_told_so_when_it_is_defined() -> None:
    with pytest.warns(UserWarning, match=r"Own\.configure_ddp` is not called.*setup_training"):
        type("Own", (DDPStrategy,), {"configure_ddp": lambda self: None})


def test_a_strategy_that_tells_samplers_of_other_shares_is_refused_with_what_to_write(tmp_path: Path) -> None:
    class Shares(SingleDeviceStrategy):
        distributed_sampler_kwargs = {"num_replicas": 2, "rank": 1}  # type: ignore[assignment]

    with pytest.raises(MisconfigurationException, match="data_parallel_size"):
        trainer_with(Shares(torch.device("cpu")), tmp_path).fit(Net(), data())


class Gathers(FSDPStrategy):
    """As strategies for Lightning's FSDP write it: the model's own state, without the names around it."""

    def lightning_module_state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        assert self.model is not None
        prefix = "_forward_module."
        return {name.removeprefix(prefix): value for name, value in self.model.state_dict().items()}

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.world_size, "rank": self.global_rank}


class SavesAtTheEnd(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def trains_and_saves(folder: Path, with_own: bool) -> None:
    strategy: Any = Gathers() if with_own else FSDPStrategy()
    module = Net()
    trainer = trainer_with(strategy, folder, devices=2, callbacks=[SavesAtTheEnd(folder / f"{with_own}-within.ckpt")])
    trainer.fit(module, data())
    trainer.save_checkpoint(folder / f"{with_own}-after.ckpt")


def both(folder: Path) -> None:
    trains_and_saves(folder, True)
    trains_and_saves(folder, False)


def test_a_sharded_strategy_that_gathers_by_itself_writes_the_checkpoint_that_ours_writes(tmp_path: Path) -> None:
    run(2, both, tmp_path)
    for moment in ("within", "after"):
        own, ours = (
            torch.load(tmp_path / f"{name}-{moment}.ckpt", weights_only=True)["state_dict"] for name in (True, False)
        )
        assert own.keys() == ours.keys() == Net().state_dict().keys()
        assert all(torch.equal(own[name], ours[name]) for name in ours)
