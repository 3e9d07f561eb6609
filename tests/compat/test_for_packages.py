"""What well-known packages need of Lightning beside its public surface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.compat import old

Fit = Callable[..., Trainer]


class Net(LightningModule):
    def __init__(self, loss: Any = None, scaler: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.loss, self.scaler = loss, scaler
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).pow(2).sum()
        self.log("loss", loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Scaler:
    """No tensor, no module, and not to be called."""

    def __init__(self, center: float) -> None:
        self.center = center


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    def run(model: LightningModule, *callbacks: Any, **options: Any) -> Trainer:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=tmp_path,
            max_epochs=2,
            callbacks=[*callbacks],
            logger=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(model, DataLoader(torch.ones(4, 1), batch_size=2))
        return trainer

    return run


@pytest.fixture
def translated() -> Any:
    old.enable()
    yield
    old.disable()


@pytest.mark.parametrize("cls", [EarlyStopping, ModelCheckpoint])
def test_constructor_of_a_class_behind_a_callback_is_called(cls: type) -> None:
    class Resolver:
        def __init__(self) -> None:
            self.resolved = True

    both = type("Both", (cls, Resolver), {})
    assert both(monitor="loss").resolved


def test_derived_early_stopping_finds_min_delta_with_the_sign_of_its_mode() -> None:
    assert EarlyStopping("loss", min_delta=0.5, mode="min").min_delta == -0.5
    assert EarlyStopping("loss", min_delta=0.5, mode="max").min_delta == 0.5


def test_callbacks_read_the_best_file_while_their_states_are_gathered_for_it(fit: Fit, tmp_path: Path) -> None:
    class Notes(Callback):
        seen: list[str] = []

        def state_dict(self) -> dict[str, Any]:
            self.seen.append(Path(keeps.best_model_path).stem)
            return {"best": self.seen[-1]}

    keeps = ModelCheckpoint(tmp_path, "{epoch}", "loss", save_top_k=2)
    fit(Net(), Notes(), keeps)
    assert Notes.seen == ["epoch=0", "epoch=1"]


def test_objects_among_hyperparameters_come_back_where_code_of_lightning_trusts_the_file(
    fit: Fit, tmp_path: Path, translated: None
) -> None:
    trainer = fit(Net(torch.nn.L1Loss(), Scaler(2.0)))
    with pytest.warns(UserWarning, match="is pickled into checkpoints"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="Scaler"):
        Net.load_from_checkpoint(tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="weights_only=False"):
        again = Net.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert isinstance(again.loss, torch.nn.L1Loss)
    assert again.scaler.center == 2.0


def test_hyperparameter_that_cannot_be_pickled_is_left_out_with_a_warning(
    fit: Fit, tmp_path: Path, translated: None
) -> None:
    trainer = fit(Net(scaler=Scaler(lambda: 1)))
    with pytest.warns(UserWarning, match="scaler"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert Net.load_from_checkpoint(tmp_path / "a.ckpt", scaler=None).scaler is None


@pytest.mark.filterwarnings("ignore:.*on_epoch_end. is never called")
def test_method_of_a_program_that_only_has_the_name_of_a_former_hook_is_not_called(fit: Fit, translated: None) -> None:
    class Own(Net):
        def on_train_epoch_end(self) -> None:
            self.on_epoch_end([1, 2])

        def on_epoch_end(self, outputs: list[int]) -> None:
            self.outputs = outputs

    model = Own()
    fit(model)
    assert model.outputs == [1, 2]


def test_training_has_gradients_where_a_generator_has_left_them_off(fit: Fit) -> None:
    def predictions() -> Any:
        with torch.no_grad():
            yield 1

    left = predictions()
    next(left)
    assert not torch.is_grad_enabled()
    assert fit(Net()).global_step == 4
    left.close()
    assert torch.is_grad_enabled()


def test_strategy_is_known_by_the_name_it_was_asked_for() -> None:
    named = Trainer(accelerator="cpu", strategy="ddp", logger=False)
    assert named._accelerator_connector._strategy_flag == "ddp"
    chosen = Trainer(accelerator="cpu", devices=1, logger=False)._accelerator_connector._strategy_flag
    assert chosen.strategy_name == "single_device"


def test_arguments_of_a_constructor_are_read_from_its_frame() -> None:
    import inspect

    from fulmen.compat.for_packages import get_init_args

    class Base:
        def __init__(self, a: int, *more: int, b: int = 2, **others: int) -> None:
            super().__init__()
            self.seen = get_init_args(inspect.currentframe())  # type: ignore[arg-type]

    assert Base(1, 7, c=3).seen == {"a": 1, "b": 2, "c": 3}
