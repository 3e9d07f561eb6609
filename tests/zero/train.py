"""What is run under DeepSpeed, on one process or by two of torchrun: ``python train.py FOLDER CASE``; prints what was
found as JSON in the last line.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tests.loops.by_hand import Regressor, loader
from torch import Tensor

from fulmen import Callback, LightningModule, Trainer
from fulmen.strategies import DeepSpeedStrategy
from fulmen.strategies.deepspeed_conversion import convert_zero_checkpoint_to_fp32_state_dict
from fulmen.utilities.exceptions import SIGTERMException


class Model(Regressor):
    """Adam, a schedule, a logged value, and what a validation gives."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.loss(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.7)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class MadeLater(Model):
    """Its layers are made where parameters are spread at once."""

    def __init__(self) -> None:
        LightningModule.__init__(self)

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            torch.manual_seed(1)
            self.net = Regressor().net


class ByHand(Model):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]


class SavesInTheMiddle(Callback):
    """Writes a checkpoint after a batch."""

    def __init__(self, path: Path, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.save_checkpoint(self.path)


WORLD = int(os.environ.get("WORLD_SIZE", "1"))
FOLDER = Path(sys.argv[1])


def trainer_of(strategy: Any, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 2}
    quiet |= {"accelerator": "cpu", "devices": WORLD, "default_root_dir": FOLDER, "enable_checkpointing": False}
    return Trainer(strategy=strategy, **{**quiet, **arguments})


def weights_of(module: torch.nn.Module) -> Tensor:
    return torch.cat([one.detach().float().flatten() for one in module.parameters()])


def fresh(kind: type[Model] = Model) -> Model:
    torch.manual_seed(1)
    return kind()


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """The largest between two parameters."""
    return float((weights_of(one) - weights_of(other)).abs().max())


def trains(strategy: str, samples: int = 40, kind: type[Model] = Model, **arguments: Any) -> dict[str, Any]:
    """The same with ``strategy`` and with ddp."""
    by_ddp, module, first = fresh(kind), fresh(kind), fresh(kind)
    ddp = trainer_of("ddp", **arguments)
    ddp.fit(by_ddp, loader(samples), loader(12))
    trainer = trainer_of(strategy, **arguments)
    trainer.fit(module, loader(samples), loader(12))
    logged = [abs(float(trainer.callback_metrics[name] - ddp.callback_metrics[name])) for name in ("val",)]
    return {
        "strategy": isinstance(trainer.strategy, DeepSpeedStrategy),
        "from_ddp": difference(module, by_ddp),
        "learned": 1.0 if kind is MadeLater else difference(module, first),
        "logged": max(logged),
        "steps": [trainer.global_step, ddp.global_step],
        "predicted": [list(one.shape) for one in trainer.predict(module, loader(8)) or []],
    }


def resumes(strategy: str, in_batch: int, **arguments: Any) -> dict[str, Any]:
    """A run that is saved in the middle of its second epoch, and goes on in another Trainer."""
    path = FOLDER / f"{strategy}-{in_batch}.ckpt"
    whole, resumed = fresh(), Model()
    trainer_of(strategy, max_epochs=3, callbacks=[SavesInTheMiddle(path, in_batch)], **arguments).fit(
        whole, loader(40), loader(12)
    )
    trainer = trainer_of(strategy, max_epochs=3, **arguments)
    trainer.fit(resumed, loader(40), loader(12), ckpt_path=path)
    found = {"is_folder": path.is_dir(), "from_whole": difference(resumed, whole), "steps": trainer.global_step}
    if strategy != "deepspeed_stage_3":
        found["validated"] = trainer_of(strategy).validate(Model(), loader(12), ckpt_path=path, verbose=False)[0]["val"]
    return found


def converts(strategy: str) -> dict[str, Any]:
    """A checkpoint as one file, and the module that is made of it."""
    path, file = FOLDER / f"{strategy}-to-convert.ckpt", FOLDER / f"{strategy}-converted.ckpt"
    module = fresh()
    trainer_of(strategy, callbacks=[SavesInTheMiddle(path, 10 // WORLD * 2)]).fit(module, loader(40), loader(12))
    if int(os.environ.get("RANK", "0")):
        return {}
    written = convert_zero_checkpoint_to_fp32_state_dict(path, file)
    return {"from_trained": difference(Model.load_from_checkpoint(file), module), "epoch": written["epoch"]}


def half(strategy: str, precision: Any) -> dict[str, Any]:
    module = fresh()
    trainer = trainer_of(strategy, precision=precision, max_epochs=3)
    trainer.fit(module, loader(40), loader(12))
    return {"dtype": str(next(module.parameters()).dtype), "val": float(trainer.callback_metrics["val"])}


class AsksToEnd(Callback):
    """The process gets a signal within an accumulation window."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.progress.total_batches == 3 and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)


def asked_to_end() -> dict[str, Any]:
    directory = FOLDER / "asked"
    arguments: dict[str, Any] = {"accumulate_grad_batches": 2, "enable_checkpointing": True}
    arguments["default_root_dir"] = directory
    whole, resumed = fresh(), Model()
    trainer_of("deepspeed", accumulate_grad_batches=2).fit(whole, loader(40), loader(12))
    stopped = trainer_of("deepspeed", callbacks=[AsksToEnd()], **arguments)
    with suppress(SIGTERMException):
        stopped.fit(fresh(), loader(40), loader(12))
    progress = stopped.progress
    in_window = progress.window_is_open or not 3 < progress.total_batches < 2 * progress.num_batches
    trainer_of("deepspeed", **arguments).fit(resumed, loader(40), loader(12), ckpt_path="auto")
    return {"ended_in_window": in_window, "from_whole": difference(resumed, whole)}


CASES = {
    "stage 1": lambda: trains("deepspeed_stage_1", gradient_clip_val=0.3),
    "stage 2": lambda: trains("deepspeed", gradient_clip_val=0.3, accumulate_grad_batches=2),
    "stage 3": lambda: trains("deepspeed_stage_3", gradient_clip_val=0.3, accumulate_grad_batches=3),
    "uneven": lambda: trains("deepspeed_stage_2", samples=34),
    "made later": lambda: trains("deepspeed_stage_3", kind=MadeLater),
    "by hand": lambda: trains("deepspeed", kind=ByHand),
    "resume 1": lambda: resumes("deepspeed_stage_1", 7),
    "resume 2": lambda: resumes("deepspeed_stage_2", 8 if WORLD == 1 else 7, accumulate_grad_batches=2),
    "asked to end": asked_to_end,
    "resume 3": lambda: resumes("deepspeed_stage_3", 7),
    "convert 2": lambda: converts("deepspeed_stage_2"),
    "convert 3": lambda: converts("deepspeed_stage_3"),
    "bf16": lambda: half("deepspeed_stage_2", "bf16-mixed"),
    "32": lambda: half("deepspeed_stage_2", 32),
}

if __name__ == "__main__":
    found = {name: copy.deepcopy(CASES[name]()) for name in sys.argv[2:] or CASES}
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found))
