"""A run that is stopped after some batch, and the run that goes on from its checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import Checkpoint

SAMPLES, BATCH = 14, 2


class Noisy(Dataset):
    """Numbers with noise from all three generators."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        noise = torch.rand(()) + random.random() + np.random.rand()
        return index, torch.full((4,), float(index)) * 0.1 + noise


class Model(LightningModule):
    """Dropout, and a list of what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.seen: list[Any] = []
        self.checked: list[Any] = []

    def loss(self, batch: Any) -> Tensor:
        return self.net(batch[1]).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batches = [one for one in _leaves(batch) if one is not None]
        self.seen.append([one[0].tolist() for one in batches])
        losses = [self.loss(one) for one in batches]
        return sum(losses[1:], losses[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.checked.append(batch[1].sum().item())
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        per_step = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return [optimizer], [
            {"scheduler": per_step, "interval": "step"},
            {"scheduler": plateau, "monitor": "val_loss", "interval": "step", "frequency": 4},
        ]


def _leaves(batch: Any) -> list[Any]:
    """The batches of a nest of loaders."""
    if batch is None or isinstance(batch[next(iter(batch))] if isinstance(batch, dict) else batch[0], Tensor):
        return [batch]
    return [leaf for part in (batch.values() if isinstance(batch, dict) else batch) for leaf in _leaves(part)]


class SaveAt(Callback):
    """Writes a checkpoint at the end of the step that trained the batch of this number, and can stop the run there."""

    def __init__(self, path: Any, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise KeyboardInterrupt


class SaveAfterEpoch(Checkpoint):
    """The same when an epoch is over, with its hooks."""

    def __init__(self, path: Any, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def loader(**options: Any) -> DataLoader:
    return DataLoader(Noisy(), batch_size=BATCH, **{"shuffle": True, **options})


def run(
    train: Any,
    path: Any = None,
    stop_at: int | None = None,
    resume: Any = None,
    seed: int = 1,
    datamodule: Any = None,
    model: Any = None,
    callbacks: Any = (),
    after_epoch: bool = False,
    **flags: Any,
) -> Any:
    """Fit a model.

    Args:
        model: what makes it when the generators are seeded; None: :class:`Model`.
        callbacks: what makes each.
        after_epoch: the batch is the last of its epoch; save when that is over.
        train: the loader, or what makes it when the generators are seeded.
        stop_at: stop after this batch of the run, and save to ``path``.
    """
    seed_everything(seed, verbose=False)
    train = train() if callable(train) else train
    model = (model or Model)()
    listeners = [make() for make in callbacks]
    trainer = Trainer(
        **{
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": after_epoch,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": listeners + ([(SaveAfterEpoch if after_epoch else SaveAt)(path, stop_at)] if stop_at else []),
            "accumulate_grad_batches": 3,
            "val_check_interval": 2,
            **flags,
        }
    )
    validation = DataLoader(Noisy(4), batch_size=2) if datamodule is None else None
    try:
        trainer.fit(model, train, validation, datamodule, ckpt_path=resume)
    except SystemExit:
        assert stop_at
    model.optimizer_state = [one.state_dict() for one in trainer.optimizers]  # type: ignore[assignment]
    model.listeners = listeners  # type: ignore[assignment]
    model.step = trainer.global_step  # type: ignore[assignment]
    model.schedulers = [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs]  # type: ignore[assignment]
    return model


def assert_same(resumed: Model, whole: Model) -> None:
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert resumed.checked == whole.checked[len(whole.checked) - len(resumed.checked) :]
    assert resumed.step == whole.step
    for name, value in whole.state_dict().items():
        own = resumed.state_dict()[name]
        assert torch.equal(own, value) if isinstance(value, Tensor) else own == value, name
    torch.testing.assert_close(resumed.optimizer_state, whole.optimizer_state, rtol=0, atol=0)
    assert str(resumed.schedulers) == str(whole.schedulers)
