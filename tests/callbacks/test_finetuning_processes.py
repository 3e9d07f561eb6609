"""Frozen parts that are thawed while several processes train: all of them learn from the data of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.distributed.regression import quiet, samples
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import BackboneFinetuning
from fulmen.utilities.exceptions import MisconfigurationException

EPOCHS, BATCH, COUNT = 3, 4, 24  # three steps of two processes in an epoch


class Net(LightningModule):
    def __init__(self, leaves_out: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()
        self.head = nn.Linear(4, 1).double()
        self.leaves_out = leaves_out  # the backbone's last layer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        inputs = self.backbone[0](inputs)[:, :4] if self.leaves_out else self.backbone(inputs)
        return (self.head(inputs) - targets).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([one for one in self.parameters() if one.requires_grad], lr=0.05)


class StopAfter(Callback):
    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **more: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def loader(size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(COUNT)), batch_size=size)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    found = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return {name: one.full_tensor() if hasattr(one, "full_tensor") else one for name, one in found.items()}  # type: ignore[operator]


def fit(strategy: str, stop: StopAfter | None = None, path: Any = None) -> dict[str, Tensor]:
    module = Net()
    callbacks = [BackboneFinetuning(1), *([] if stop is None else [stop])]
    trainer = Trainer(**quiet(devices=2, strategy=strategy, max_epochs=EPOCHS), callbacks=callbacks)
    trainer.fit(module, loader(BATCH), ckpt_path=path)
    return weights_of(module)


def whole_and_resumed(strategy: str, folder: Path) -> dict[str, Any]:
    found = {"whole": fit(strategy)}
    for batches in (3, 4, 8):
        path = folder / f"{strategy}-{batches}.ckpt"
        fit(strategy, StopAfter(path, batches))
        found[f"resumed after {batches}"] = fit(strategy, path=path)
    return found


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_backbone_is_thawed_on_two_processes_as_on_one(strategy: str, tmp_path: Path) -> None:
    alone = Net()
    trainer = Trainer(**quiet(max_epochs=EPOCHS), callbacks=[BackboneFinetuning(1)])
    trainer.fit(alone, loader(2 * BATCH))
    for found in run(2, whole_and_resumed, strategy, tmp_path):
        for name, weights in found.items():
            for parameter, value in weights_of(alone).items():
                difference = lambda text, name=name, parameter=parameter: f"{name}, {parameter}: {text}"  # noqa: E731
                torch.testing.assert_close(weights[parameter], value, rtol=1e-9, atol=1e-12, msg=difference)


class ThawsByHand(Callback):
    """What users write without BaseFinetuning."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.backbone.requires_grad_(False)  # type: ignore[operator]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            pl_module.backbone.requires_grad_(True)  # type: ignore[operator]


class WithAll(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def by_hand(folder: Path) -> list[dict[str, Tensor]]:
    found, path = [], folder / "8.ckpt"
    for stop, ckpt_path in ((None, None), (StopAfter(path, 8), None), (None, path)):
        module = WithAll()
        callbacks = [ThawsByHand(), *([] if stop is None else [stop])]
        trainer = Trainer(**quiet(devices=2, strategy="ddp", max_epochs=EPOCHS), callbacks=callbacks)
        trainer.fit(module, loader(BATCH), ckpt_path=ckpt_path)
        found.append(weights_of(module))
    return found


def test_what_a_hook_thawed_in_an_earlier_epoch_is_exchanged_when_the_run_goes_on_in_mid_epoch(tmp_path: Path) -> None:
    for whole, _, resumed in run(2, by_hand, tmp_path):
        torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def left_out() -> str:
    trainer = Trainer(**quiet(devices=2, strategy="ddp", max_epochs=EPOCHS), callbacks=[BackboneFinetuning(1)])
    with pytest.raises(MisconfigurationException) as caught:
        trainer.fit(Net(leaves_out=True), loader(BATCH))
    return f"epoch {trainer.current_epoch}: {caught.value}"


def test_thawed_part_that_the_loss_does_not_need_is_named_with_what_to_write() -> None:
    for message in run(2, left_out):
        assert message.startswith("epoch 1: the loss of rank")
        assert "does not depend on 'backbone.2.weight', 'backbone.2.bias'" in message
        assert "ddp_find_unused_parameters_true" in message
