"""A module and data in which everything is random and everything counts, and what tells whether they were touched."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningDataModule, LightningModule, Trainer, seed_everything
from fulmen.callbacks import LearningRateFinder
from fulmen.tuner import Tuner
from fulmen.utilities.seed import collect_rng_states


class Noisy(Dataset[Tensor]):
    """Points with noise from each of the generators; counts how often it was read."""

    def __init__(self, size: int = 24) -> None:
        self.points = torch.randn(size, 3, generator=torch.Generator().manual_seed(1))
        self.own = np.random.default_rng(2)
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, place: int) -> Tensor:
        self.read.append(place)
        return self.points[place] + random.random() + float(np.random.rand()) + float(self.own.random())


class Data(LightningDataModule):
    """The data, with a loader that shuffles by a generator of its own, or by the one of torch."""

    def __init__(self, batch_size: int = 4, own_generator: bool = True) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(3) if own_generator else None
        self.data = Noisy()

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.data, self.batch_size, shuffle=True, generator=self.generator)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Noisy(6), self.batch_size)


class Model(LightningModule):
    """Has a batch norm, dropout, generators of each kind, counters, and a scheduler that looks at the Trainer."""

    grows = True  #: gets another layer in its second step

    def __init__(self, lr: float = 0.1, fails_at: int = -1, error: BaseException | None = None) -> None:
        super().__init__()
        self.save_hyperparameters("lr")
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.net[0].bias.requires_grad_(False)
        self.net[3].eval()
        self.python, self.numpy, self.torch = random.Random(4), np.random.default_rng(5), torch.Generator()
        self.steps, self.seen, self.sums = 0, {"losses": []}, np.zeros(3)
        self.total = torch.zeros(1)
        self.fails_at, self.error = fails_at, error

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.steps == self.fails_at:
            assert self.error is not None
            raise self.error
        self.steps += 1
        self.sums += 1
        self.total.add_(1)
        noise = self.python.random() + self.numpy.random() + float(torch.rand(1, generator=self.torch))
        if self.steps == 2:
            self.net[0].bias.requires_grad_(True)
            self.net[3].train()
            if self.grows:
                self.late = nn.Linear(1, 1)
        loss = (self.net(batch) - batch.sum(dim=1, keepdim=True) - noise).square().mean()
        self.seen["losses"].append(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.net(batch).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.hparams.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * self.hparams.lr, total_steps=steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Squares(LightningModule):
    """One weight, no randomness: a curve can be worked out by hand."""

    def __init__(self, lr: float = 0.1, batch_size: int = 2) -> None:
        super().__init__()
        self.lr, self.batch_size = lr, batch_size
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.rates: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return (self.weight * batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=self.lr)


def points(size: int = 8, batch_size: int = 2) -> DataLoader[Tensor]:
    return DataLoader(torch.linspace(0.5, 1.5, size), batch_size)  # type: ignore[arg-type]


def curve_by_hand(rates: list[float], size: int = 8, batch_size: int = 2) -> list[float]:
    """The losses of :class:`Squares` on :func:`points`, trained with these rates."""
    batches, weight, losses = list(points(size, batch_size)), torch.tensor(3.0), []
    for step, rate in enumerate(rates):
        batch = batches[step % len(batches)]
        losses.append(float((weight * batch).square().mean()))
        weight = weight - rate * (2 * weight * batch.square()).mean()
    return losses


# -- was anything touched? ---------------------------------------------------------------------------------------------


def picture(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """Everything that can be seen of ``value``, as plain data that can be compared: a deep copy in other words."""
    if isinstance(value, Tensor):
        grad = None if value.grad is None else picture(value.grad)
        return ("tensor", value.dtype, value.requires_grad, value.detach().tolist(), grad, value.data_ptr())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.ndarray):
        return ("array", value.tolist())
    if id(value) in seen:
        return ("again", type(value).__name__)
    seen = (*seen, id(value))
    if isinstance(value, dict):
        return [(picture(key, seen), picture(one, seen)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return [picture(one, seen) for one in value]
    if type(value).__module__.startswith(("fulmen.strategies", "fulmen.trainer", "fulmen.plugins")):
        return type(value).__name__
    if hasattr(value, "__dict__") and not callable(value):
        return (type(value).__name__, picture(vars(value), seen))
    if isinstance(value, nn.Module):
        return (type(value).__name__, picture(vars(value), seen))
    if hasattr(value, "__slots__"):
        return [(name, picture(getattr(value, name, None), seen)) for name in value.__slots__]
    return repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__


def pictures(*values: Any) -> Any:
    """The same of several, and of the generators of the process."""
    return [*map(picture, values), repr({name: str(state) for name, state in collect_rng_states().items()})]


def result_of(
    trainer_of: Callable[..., Trainer],
    lr: float,
    search: str | None = None,
    own_generator: bool = True,
    **arguments: Any,
) -> Any:
    """Fit from the seed on, perhaps after a search; returns what the run has made of everything, and the rate."""
    seed_everything(1, verbose=False)
    finder = LearningRateFinder(**SEARCH, num_training_steps=15) if search == "callback" else None
    trainer = trainer_of(max_epochs=2, **arguments, callbacks=[finder] if finder else [])
    model, data = Model(lr), Data(own_generator=own_generator)
    if search == "tuner":
        Tuner(trainer).lr_find(model, datamodule=data, num_training=15, **SEARCH)
    trainer.fit(model, datamodule=data)
    made = {
        "weights": picture_of_weights(model),
        "optimizer": picture_of_weights(trainer.optimizers[0]),
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict()["_last_lr"],
        "attributes": (model.steps, model.sums.tolist(), float(model.total), len(model.seen["losses"])),
        "losses": [float(loss) for loss in model.seen["losses"]],
        "read": data.data.read,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "progress": (trainer.global_step, trainer.current_epoch),
        "random": repr({name: str(state) for name, state in collect_rng_states().items()}),
        "generators": [picture(one) for one in (model.python, model.numpy, model.torch, data.data.own)],
    }
    return made, model.hparams.lr


SEARCH = {"min_lr": 1e-4, "max_lr": 0.5}


def picture_of_weights(owner: Any) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist()
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return plain(owner.state_dict())
