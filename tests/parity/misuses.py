"""What users do wrong, each written once; only the type of the exception is compared, the sentences are our own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from .recorder import Framework, Stream, loader

#: name -> what is done wrong, given a :class:`Misuse`
MISUSES: dict[str, Callable[[Misuse], Any]] = {}


class Misuse:
    """The parts that a misuse is built of: ordinary trainers and modules that nothing is wrong with."""

    def __init__(self, framework: Framework, folder: Path) -> None:
        self.framework = framework
        self.folder = folder

    def make_trainer(self, **arguments: Any) -> Any:
        standing = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": str(self.folder),
            "max_epochs": 1,
        }
        return self.framework.Trainer(**{**standing, **arguments})

    def module(self, without: tuple[str, ...] = (), **written: Any) -> Any:
        """A sound module, with methods left out or written otherwise."""

        class Module(self.framework.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)

        def step(module: Any, batch: Any, batch_idx: int) -> Any:
            return module.layer(batch).sum()

        methods = {
            "training_step": step,
            "validation_step": step,
            "test_step": step,
            "predict_step": step,
            "configure_optimizers": lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
            **{f"{stage}_dataloader": lambda module: loader(4) for stage in ("train", "val", "test", "predict")},
            **written,
        }
        return type("Module", (Module,), {name: code for name, code in methods.items() if name not in without})()

    def fit(self, module: Any = None, **arguments: Any) -> None:
        self.make_trainer(**arguments).fit(module or self.module())

    def logging(self, *args: Any, **kwargs: Any) -> None:
        """Log something in the training step."""

        def training_step(module: Any, batch: Any, batch_idx: int) -> Any:
            module.log(*args, **kwargs)
            return module.layer(batch).sum()

        self.fit(self.module(training_step=training_step))


def _trainer(name: str, **arguments: Any) -> None:
    MISUSES[f"Trainer: {name}"] = lambda misuse: misuse.make_trainer(**arguments)


def _fit(name: str, without: tuple[str, ...] = (), arguments: dict[str, Any] | None = None, **written: Any) -> None:
    MISUSES[f"fit: {name}"] = lambda misuse: misuse.fit(misuse.module(without, **written), **(arguments or {}))


def misuse(name: str) -> Callable[[Callable[[Misuse], Any]], Callable[[Misuse], Any]]:
    """Enter a function into the table as ``name``."""

    def enter(function: Callable[[Misuse], Any]) -> Callable[[Misuse], Any]:
        MISUSES[name] = function
        return function

    return enter


# ------------------------------------------------------------------------------------------------ arguments

_trainer("unknown argument", nonsense=1)
_trainer("accelerator='nonsense'", accelerator="nonsense")
_trainer("accelerator=None", accelerator=None)
_trainer("accelerator='gpu' without one", accelerator="gpu")
_trainer("accelerator='cuda' without one", accelerator="cuda")
_trainer("devices=0", devices=0)
_trainer("devices='0'", devices="0")
_trainer("devices=[] on the CPU", devices=[])
_trainer("devices=[0] on the CPU", devices=[0])
_trainer("devices=-1 on the CPU", devices=-1)
_trainer("devices=1.5", devices=1.5)
_trainer("strategy='nonsense'", strategy="nonsense")
_trainer("strategy=1", strategy=1)
_trainer("strategy='fsdp' without CUDA", strategy="fsdp")
_trainer("num_nodes=0", num_nodes=0)
_trainer("precision='nonsense'", precision="nonsense")
_trainer("precision=8", precision=8)
_trainer("fast_dev_run=-1", fast_dev_run=-1)
_trainer("max_epochs=-2", max_epochs=-2)
_trainer("max_steps=-2", max_steps=-2)
_trainer("max_steps=None", max_steps=None)
_trainer("max_time='nonsense'", max_time="nonsense")
_trainer("max_time={'nonsense': 1}", max_time={"nonsense": 1})
_trainer("limit_train_batches=1.5", limit_train_batches=1.5)
_trainer("limit_val_batches=-1", limit_val_batches=-1)
_trainer("limit_predict_batches='half'", limit_predict_batches="half")
_trainer("overfit_batches=-1", overfit_batches=-1)
_trainer("val_check_interval=1.5", val_check_interval=1.5)
_trainer("val_check_interval='nonsense'", val_check_interval="nonsense")
_trainer("check_val_every_n_epoch=1.5", check_val_every_n_epoch=1.5)
_trainer("check_val_every_n_epoch=None, val_check_interval=0.5", check_val_every_n_epoch=None, val_check_interval=0.5)
_trainer("gradient_clip_val='much'", gradient_clip_val="much")
_trainer("gradient_clip_algorithm='nonsense'", gradient_clip_algorithm="nonsense")
_trainer("profiler='nonsense'", profiler="nonsense")
_trainer("plugins='nonsense'", plugins="nonsense")
_trainer("plugins=object()", plugins=object())
_trainer("reload_dataloaders_every_n_epochs=-1", reload_dataloaders_every_n_epochs=-1)
_trainer("reload_dataloaders_every_n_epochs='one'", reload_dataloaders_every_n_epochs="one")
_trainer("barebones=True, fast_dev_run=True", barebones=True, fast_dev_run=True)
_trainer("barebones=True, enable_progress_bar=True", barebones=True, enable_progress_bar=True)


@misuse("Trainer: barebones=True, logger=True")
def _(m: Misuse) -> None:
    m.framework.Trainer(barebones=True, logger=True, accelerator="cpu")


@misuse("Trainer: enable_checkpointing=False with a ModelCheckpoint")
def _(m: Misuse) -> None:
    m.make_trainer(callbacks=[m.framework.ModelCheckpoint()])


@misuse("Trainer: two callbacks with one state_key")
def _(m: Misuse) -> None:
    m.make_trainer(enable_checkpointing=True, callbacks=[m.framework.ModelCheckpoint(), m.framework.ModelCheckpoint()])


# ------------------------------------------------------------------------------------------------ modules

_fit("no training_step", ("training_step",))
_fit("no configure_optimizers", ("configure_optimizers",))
_fit("no train_dataloader", ("train_dataloader",))
_fit("training_epoch_end of 1.x", training_epoch_end=lambda module, outputs: None)
_fit("validation_epoch_end of 1.x", validation_epoch_end=lambda module, outputs: None)
_fit("train_dataloader returns None", train_dataloader=lambda module: None)
_fit("train_dataloader returns 1", train_dataloader=lambda module: 1)
_fit("a fraction that leaves no batch", arguments={"limit_train_batches": 0.1})
_fit("val_check_interval=9 of 4 batches", arguments={"val_check_interval": 9})
_fit(
    "limit_train_batches=0.5 without length",
    arguments={"limit_train_batches": 0.5},
    train_dataloader=lambda module: DataLoader(Stream(4)),
)
_fit(
    "val_check_interval=0.5 without length",
    arguments={"val_check_interval": 0.5},
    train_dataloader=lambda module: DataLoader(Stream(4)),
)
_fit("manual optimization with clipping", arguments={"gradient_clip_val": 1.0}, automatic_optimization=False)
_fit("manual optimization with accumulation", arguments={"accumulate_grad_batches": 2}, automatic_optimization=False)
_fit(
    "two optimizers",
    configure_optimizers=lambda module: [torch.optim.SGD(module.parameters(), lr=0.1) for _ in range(2)],
)
_fit("configure_optimizers returns 1", configure_optimizers=lambda module: 1)
_fit("training_step returns text", training_step=lambda module, batch, batch_idx: "text")
_fit("training_step returns a dict without loss", training_step=lambda module, batch, batch_idx: {"a": 1})
_fit("training_step returns a loss without graph", training_step=lambda module, batch, batch_idx: torch.tensor(1.0))
_fit(
    "training_step returns a loss of two numbers",
    training_step=lambda module, batch, batch_idx: module.layer(batch[[0, 0]]),
)
_fit("dataloader_idx needed with one loader", validation_step=lambda module, batch, batch_idx, dataloader_idx: None)
_fit("no dataloader_idx with two loaders", val_dataloader=lambda module: [loader(1), loader(1)])


def _schedule(name: str, make: Callable[[Any, Any], Any]) -> None:
    def configure_optimizers(module: Any) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        return {"optimizer": optimizer, "lr_scheduler": make(optimizer, module)}

    _fit(f"scheduler: {name}", configure_optimizers=configure_optimizers)


_schedule("plateau without monitor", lambda optimizer, _: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
_schedule("dict without scheduler", lambda optimizer, _: {"interval": "step"})
_schedule(
    "interval='fortnight'",
    lambda optimizer, _: {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), "interval": "fortnight"},
)
_schedule(
    "of another optimizer",
    lambda _, module: torch.optim.lr_scheduler.StepLR(torch.optim.SGD(module.parameters(), lr=1.0), 1),
)
_schedule("an object that is none", lambda optimizer, _: object())


@misuse("fit: model is None")
def _(m: Misuse) -> None:
    m.make_trainer().fit(None)


@misuse("fit: model is an nn.Module")
def _(m: Misuse) -> None:
    m.make_trainer().fit(torch.nn.Linear(2, 1))


@misuse("fit: loaders and a datamodule")
def _(m: Misuse) -> None:
    m.make_trainer().fit(m.module(), loader(1), datamodule=m.framework.LightningDataModule())


@misuse("fit: ckpt_path that is not there")
def _(m: Misuse) -> None:
    m.make_trainer().fit(m.module(), ckpt_path=str(m.folder / "absent.ckpt"))


@misuse("fit: ckpt_path='best' without a checkpoint callback")
def _(m: Misuse) -> None:
    m.make_trainer().fit(m.module(), ckpt_path="best")


@misuse("fit: resumed from weights only")
def _(m: Misuse) -> None:
    trainer = m.make_trainer()
    trainer.fit(m.module())
    trainer.save_checkpoint(m.folder / "weights.ckpt", weights_only=True)
    m.make_trainer(max_epochs=2).fit(m.module(), ckpt_path=str(m.folder / "weights.ckpt"))


@misuse("fit: weights of another shape")
def _(m: Misuse) -> None:
    trainer = m.make_trainer()
    trainer.fit(m.module())
    trainer.save_checkpoint(m.folder / "other.ckpt")
    module = m.module()
    module.layer = torch.nn.Linear(2, 2)
    m.make_trainer(max_epochs=2).fit(module, ckpt_path=str(m.folder / "other.ckpt"))


@misuse("validate: no validation_step")
def _(m: Misuse) -> None:
    m.make_trainer().validate(m.module(("validation_step",)), verbose=False)


@misuse("validate: no val_dataloader")
def _(m: Misuse) -> None:
    m.make_trainer().validate(m.module(("val_dataloader",)), verbose=False)


@misuse("validate: no model, never fitted")
def _(m: Misuse) -> None:
    m.make_trainer().validate()


@misuse("test: no test_step")
def _(m: Misuse) -> None:
    m.make_trainer().test(m.module(("test_step",)), verbose=False)


@misuse("test: ckpt_path='best' never saved")
def _(m: Misuse) -> None:
    trainer = m.make_trainer(enable_checkpointing=True)
    trainer.test(m.module(), ckpt_path="best")


@misuse("predict: predict_step is None")
def _(m: Misuse) -> None:
    m.make_trainer().predict(m.module(predict_step=None))


@misuse("predict: no predict_dataloader")
def _(m: Misuse) -> None:
    m.make_trainer().predict(m.module(("predict_dataloader",)))


@misuse("save_checkpoint: before a run")
def _(m: Misuse) -> None:
    m.make_trainer().save_checkpoint(m.folder / "none.ckpt")


@misuse("module.trainer: without one")
def _(m: Misuse) -> None:
    _ = m.module().trainer


@misuse("manual_backward: in automatic optimization")
def _(m: Misuse) -> None:
    m.fit(m.module(training_step=lambda module, batch, batch_idx: module.manual_backward(module.layer(batch).sum())))


@misuse("clip_gradients: against the trainer's value")
def _(m: Misuse) -> None:
    def clip(module: Any, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
        module.clip_gradients(optimizer, gradient_clip_val=2.0)

    m.fit(m.module(configure_gradient_clipping=clip), gradient_clip_val=1.0)


# ------------------------------------------------------------------------------------------------ log and callbacks


def _log(name: str, *args: Any, **kwargs: Any) -> None:
    MISUSES[f"log: {name}"] = lambda misuse: misuse.logging(*args, **kwargs)


_log("a dict", "a", {"b": 1.0})
_log("text", "a", "text")
_log("two numbers", "a", torch.ones(2))
_log("None", "a", None)
_log("a list", "a", [1.0])
_log("reduce_fx='median'", "a", 1.0, reduce_fx="median", on_epoch=True)
_log("reduce_fx=len", "a", 1.0, reduce_fx=len, on_epoch=True)
_log("name with dataloader_idx", "a/dataloader_idx_0", 1.0)
_log("neither on_step nor on_epoch", "a", 1.0, on_step=False, on_epoch=False)
_log("name that is no text", 1, 1.0)


@misuse("log: in predict_step")
def _(m: Misuse) -> None:
    m.make_trainer().predict(m.module(predict_step=lambda module, batch, batch_idx: module.log("a", 1.0)))


@misuse("log: without a trainer")
def _(m: Misuse) -> None:
    m.module().log("a", 1.0)


@misuse("log: after the run")
def _(m: Misuse) -> None:
    module = m.module()
    m.fit(module)
    module.log("a", 1.0)


def _callback(name: str, kind: str, run: bool = False, **arguments: Any) -> None:
    def make(m: Misuse) -> None:
        standing = {"dirpath": str(m.folder)} if kind == "ModelCheckpoint" else {}
        made = getattr(m.framework, kind)(**standing, **arguments)
        if run:
            m.fit(callbacks=[made], enable_checkpointing=True)

    MISUSES[f"{kind}: {name}"] = make


_callback("no monitor", "EarlyStopping")
_callback("mode='nonsense'", "EarlyStopping", monitor="v", mode="nonsense")
_callback("a metric that is not there", "EarlyStopping", run=True, monitor="v")
_callback("save_top_k=-2", "ModelCheckpoint", save_top_k=-2)
_callback("save_top_k=2 without monitor", "ModelCheckpoint", save_top_k=2)
_callback("mode='nonsense'", "ModelCheckpoint", monitor="v", mode="nonsense")
_callback("two triggers", "ModelCheckpoint", every_n_train_steps=1, every_n_epochs=1)
_callback("every_n_epochs=-1", "ModelCheckpoint", every_n_epochs=-1)
_callback("every_n_train_steps=-1", "ModelCheckpoint", every_n_train_steps=-1)
_callback("a metric that is not there", "ModelCheckpoint", run=True, monitor="v")


def outcome(name: str, framework: Framework) -> str:
    """Commit one misuse and tell what came of it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            MISUSES[name](Misuse(framework, Path(folder)))
        except BaseException as error:
            return type(error).__name__
    return "nothing is raised"


def outcomes(framework: Framework) -> str:
    """Commit every misuse; one line for each."""
    return "".join(f"{name} -> {outcome(name, framework)}\n" for name in MISUSES)
