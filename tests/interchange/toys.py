"""A run that Fulmen and Lightning can both make, and what to see of it: no framework is imported here by name."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCHES, BATCH_SIZE = 5, 2
WIDTH = 3


@dataclass(slots=True)
class Run:
    """What to run.

    Attributes:
        model: the name of a class in :func:`models`.
        trainer: arguments of the Trainer.
        callbacks: names of classes in ``<framework>.callbacks`` with their arguments.
        save: where to write a checkpoint, by the moment: the name of a hook and which call of it, counted from 1;
            ``"boundary 3"`` is the end of the third step (only Fulmen has that), ``"after"`` when all is over.
        ckpt_path: what to go on from.
        looks: return the counters of the loops at every moment, too.
    """

    model: str = "Net"
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    save: dict[str, str] = field(default_factory=dict)
    ckpt_path: str | None = None
    looks: bool = False


def samples() -> TensorDataset:
    """The number of each sample, its values, and what to make of them."""
    x = torch.randn(BATCHES * BATCH_SIZE, WIDTH, generator=torch.Generator().manual_seed(5))
    return TensorDataset(torch.arange(len(x)), x, x.sum(dim=1, keepdim=True).sin())


def loader() -> DataLoader[Any]:
    return DataLoader(samples(), batch_size=BATCH_SIZE)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(net: nn.Module, batch: Any) -> Tensor:
    _, x, y = batch
    return nn.functional.mse_loss(net(x), y)


def adam_with_schedule(net: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.8)


def models(root: str) -> dict[str, type[Any]]:
    """The modules of the runs, derived from the ``LightningModule`` of the framework with this name."""
    framework = importlib.import_module(root)

    class Net(framework.LightningModule):
        def __init__(self, width: int = WIDTH, name: str = "net") -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return loss_of(self.net, batch)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", loss_of(self.net, batch))

        def configure_optimizers(self) -> Any:
            optimizer, schedule = adam_with_schedule(self.net)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    class Rivals(framework.LightningModule):
        """Two optimizers, stepped by hand."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = network()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = loss_of(self.net, batch)
            first, second = self.optimizers()
            first.zero_grad()
            second.zero_grad()
            self.manual_backward(loss)
            first.step()
            second.step()

        def configure_optimizers(self) -> Any:
            return list(rivals(self.net))

    return {"Net": Net, "Rivals": Rivals}


def rivals(net: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.Adam(net[0].parameters(), lr=0.01), torch.optim.SGD(net[2].parameters(), lr=0.1, momentum=0.9)


def run(root: str, what: Run, folder: str | Path) -> dict[str, Any]:
    """Make the run with the framework ``root``.

    Returns:
        ``began``: the state after the checkpoint was loaded (see :func:`state_of`); ``ended``: that at the end;
        ``batches``: of each batch that was trained the epoch, its position, the steps before it, and its samples;
        ``moments``: the counters of the loops at each moment.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    framework, kinds = importlib.import_module(root), importlib.import_module(f"{root}.callbacks")
    seen: dict[str, Any] = {"batches": [], "moments": {}}
    calls: Counter[str] = Counter()
    model = models(root)[what.model]()

    def moment(trainer: Any, hook: str) -> None:
        if trainer.sanity_checking:
            return
        calls[hook] += 1
        name = f"{hook} {calls[hook]}"
        if name in what.save:
            trainer.save_checkpoint(what.save[name])
        if what.looks and hook.endswith("end"):
            where = Path(folder) / "look.ckpt"
            trainer.save_checkpoint(where)
            loops = torch.load(where, weights_only=True)["loops"]
            seen["moments"][name] = {key: loops["fit_loop"][key] for key in sorted(loops["fit_loop"])}

    class Watches(kinds.Checkpoint):  # it is called when checkpoints are written, after all others
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            seen["began"] = state_of(trainer)

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen["batches"].append((trainer.current_epoch, batch_idx, trainer.global_step, batch[0].tolist()))
            moment(trainer, "on_train_batch_start")

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            moment(trainer, "on_train_epoch_start")

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            moment(trainer, "on_before_optimizer_step")

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            moment(trainer, "on_train_batch_end")
            path = what.save.get(f"boundary {len(seen['batches'])}")
            if path is not None:
                trainer.boundary.defer(lambda: trainer.save_checkpoint(path))

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            moment(trainer, "on_validation_end")

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            moment(trainer, "on_train_epoch_end")

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            moment(trainer, "on_train_end")

    callbacks = [getattr(kinds, name)(**arguments) for name, arguments in what.callbacks]
    arguments = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        **what.trainer,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = framework.Trainer(callbacks=[*callbacks, Watches()], **arguments)
        trainer.fit(model, loader(), loader(), ckpt_path=what.ckpt_path)
    if "after" in what.save:
        trainer.save_checkpoint(what.save["after"])
    seen["ended"] = state_of(trainer)
    return seen


def state_of(trainer: Any) -> dict[str, Any]:
    """Weights, optimizers, schedulers, callbacks and counters, as copies."""
    if hasattr(trainer, "progress"):
        stepped = trainer.progress.batches_that_stepped
    else:
        stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
    return copy.deepcopy(
        {
            "weights": trainer.lightning_module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "callbacks": {
                callback.state_key: state for callback in trainer.callbacks if (state := callback.state_dict())
            },
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "batches_that_stepped": stepped,
        }
    )
