"""Misuses of the Trainer's arguments."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import torch
from misuse_table import Misuse, Scene, enter, misuse

from fulmen import Callback
from fulmen.accelerators import CPUAccelerator
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar
from fulmen.loggers import CSVLogger
from fulmen.plugins import Precision
from fulmen.profilers import SimpleProfiler
from fulmen.strategies import SingleDeviceStrategy
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import LightningDeprecationWarning

_SUBJECT = "Trainer arguments"


def _argument(name: str, value: Any, raises: type[BaseException], *says: str, shown: str | None = None) -> None:
    """A value that an argument of the Trainer cannot have; the message must name both."""
    written = repr(value) if shown is None else shown

    def commit(scene: Scene) -> None:
        scene.trainer(**{name: value})

    phrases = (f"`{name}={written}`", *says) if shown is None else says
    enter(Misuse(_SUBJECT, f"Trainer({name}={written})", commit, raises, phrases))


def _together(raises: type[BaseException], *says: str, **arguments: Any) -> None:
    """Arguments that contradict each other."""
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    enter(Misuse(_SUBJECT, f"Trainer({written})", lambda scene: scene.trainer(**arguments), raises, says))


for argument, least in (
    ("max_epochs", -1),
    ("max_steps", -1),
    ("min_epochs", 0),
    ("min_steps", 0),
    ("fast_dev_run", 0),
    ("check_val_every_n_epoch", 1),
    ("num_sanity_val_steps", -1),
    ("log_every_n_steps", 0),
    ("accumulate_grad_batches", 1),
    ("reload_dataloaders_every_n_epochs", 0),
):
    _argument(argument, least - 1, MisconfigurationException, f"a whole number from {least}")
    _argument(argument, 1.5, MisconfigurationException, f"a whole number from {least}")
    _argument(argument, "3", MisconfigurationException, f"a whole number from {least}", f"Write `{argument}=3`")
_argument("max_epochs", True, MisconfigurationException, "a whole number from -1")
_argument("max_epochs", float("inf"), MisconfigurationException, "-1 means no limit")
_argument("max_steps", None, LightningDeprecationWarning, "Lightning 1", "Trainer(max_steps=-1)", shown="None")
_argument("accumulate_grad_batches", {0: 2}, MisconfigurationException, "GradientAccumulationScheduler")
_argument("num_nodes", 0, ValueError, "a whole number from 1")
_argument("num_nodes", 1.5, ValueError, "a whole number from 1")

for argument in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"):
    _argument(argument, -1, MisconfigurationException, "fraction from 0.0 to 1.0", "whole number of batches")
    _argument(argument, 1.5, MisconfigurationException, "fraction from 0.0 to 1.0", "whole number of batches")
_argument("overfit_batches", -1, MisconfigurationException, "fraction from 0.0 to 1.0")
_argument(
    "limit_train_batches", "half", MisconfigurationException, "fraction from 0.0 to 1.0", "whole number of batches"
)
_argument("limit_train_batches", True, MisconfigurationException, "1 means one batch, 1.0 all")

for value in (0, -1, 1.5, True, [2]):
    _argument("val_check_interval", value, MisconfigurationException, "whole number of batches", "'30min'")
_argument("val_check_interval", "5parsec", MisconfigurationException, "500step", "30min")
_argument("max_time", "soon", MisconfigurationException, "30min", "DD:HH:MM:SS")
_argument("max_time", 60, MisconfigurationException, "30min", "DD:HH:MM:SS")
_argument("max_time", {"parsecs": 1}, MisconfigurationException, "hours")
_argument("max_time", timedelta(seconds=-1), MisconfigurationException, "negative")

_argument("gradient_clip_val", "much", TypeError, "a number or None")
_argument("gradient_clip_val", -1.0, MisconfigurationException, "negative", "0 or None switches it off")
_argument("gradient_clip_val", float("nan"), MisconfigurationException, "not")
_argument("gradient_clip_algorithm", "mean", MisconfigurationException, "'norm' or 'value'")

for argument in (
    "enable_checkpointing",
    "enable_progress_bar",
    "enable_model_summary",
    "inference_mode",
    "use_distributed_sampler",
    "detect_anomaly",
    "barebones",
    "sync_batchnorm",
    "enable_autolog_hparams",
):
    _argument(argument, "no", MisconfigurationException, "True or False")
_argument("deterministic", "yes", MisconfigurationException, "True, False, 'warn' or None")
_argument("benchmark", 1, MisconfigurationException, "True, False or None")
_argument("compile", "fast", MisconfigurationException, "True, False or a dict")

_argument("accelerator", "nonsense", ValueError, "'auto'", "'cpu'", "'cuda'")
_argument("accelerator", None, ValueError, "'auto'", "'cpu'")
if not torch.cuda.is_available():
    _argument("accelerator", "cuda", MisconfigurationException, "this machine has none", "accelerator='auto'")
_argument("devices", 0, MisconfigurationException, "leaves nothing to run on", "devices=1")
_argument("devices", [0], TypeError, "on the CPU", "number of processes")
_argument("devices", -1, TypeError, "on the CPU")
_argument("devices", "all", MisconfigurationException, "'auto'")
_argument("devices", 1.5, TypeError, "'auto'", "a number of devices")
_argument("strategy", "nonsense", ValueError, "'auto'", "'single_device'")
_argument("precision", "fp16", ValueError, "'16-mixed'", "'bf16-mixed'")
_argument("precision", 8, ValueError, "'32-true'")
_argument("plugins", "amp", MisconfigurationException, "Precision", "CheckpointIO", "not a str")
_argument("profiler", "fast", MisconfigurationException, "'simple'", "'advanced'")
_argument("default_root_dir", 3, TypeError, "a path")
_argument("logger", "csv", TypeError, "a Logger", "CSVLogger")
_argument("logger", 1, TypeError, "a Logger")
_argument("logger", CSVLogger, TypeError, "class CSVLogger", "Write `CSVLogger(...)`", shown="CSVLogger")
_argument("accelerator", CPUAccelerator, ValueError, "class", "`CPUAccelerator(...)`", shown="CPUAccelerator")
_argument(
    "strategy", SingleDeviceStrategy, ValueError, "class", "`SingleDeviceStrategy(...)`", shown="SingleDeviceStrategy"
)
_argument(
    "profiler", SimpleProfiler, MisconfigurationException, "class", "`SimpleProfiler(...)`", shown="SimpleProfiler"
)
_argument("plugins", [Precision], MisconfigurationException, "class", "`Precision(...)`", shown="[Precision]")

_argument("callbacks", "early_stopping", MisconfigurationException, "no callback", "Callback", shown="'early_stopping'")
_argument("callbacks", ["a"], MisconfigurationException, "'a'", "no callback", shown="['a']")
_argument("callbacks", [None], MisconfigurationException, "None", "no callback", shown="[None]")
_argument("callbacks", [print], MisconfigurationException, "print", "LambdaCallback", shown="[print]")
_argument(
    "callbacks", ModelCheckpoint, MisconfigurationException, "class", "`ModelCheckpoint(...)`", shown="ModelCheckpoint"
)

_together(
    MisconfigurationException, "number of batches", "epochs", check_val_every_n_epoch=None, val_check_interval=0.5
)
_together(ValueError, "barebones", "fast_dev_run=True", "Leave out one", barebones=True, fast_dev_run=True)
_together(UserWarning, "min_epochs=5", "max_epochs=2", "ignored", min_epochs=5, max_epochs=2)
_together(UserWarning, "min_steps=50", "max_steps=20", "ignored", min_steps=50, max_steps=20)
_together(UserWarning, "overfit_batches=2", "limit_val_batches=0", "ignored", overfit_batches=2, limit_val_batches=0)
_together(UserWarning, "sync_batchnorm=True", "one process", sync_batchnorm=True)
_together(UserWarning, "model_registry='mine'", "ignored", model_registry="mine")
_together(TypeError, "`max_epoch`", "Did you mean `max_epochs`?", max_epoch=3)
_together(TypeError, "`nonsense`", "no argument", nonsense=3)
_together(LightningDeprecationWarning, "gpus=0", "Write `Trainer(accelerator='cpu')`", gpus=0)
_together(TypeError, "`Trainer(gpus=1)`", "contradicts `accelerator='cpu'`", gpus=1, accelerator="cpu")
_together(TypeError, "`track_grad_norm`", "self.log_dict(grad_norm(self, norm_type=2))", track_grad_norm=2)
_together(TypeError, "`strategy='dp'`", "Write `strategy='ddp'`", strategy="dp")


@misuse(
    _SUBJECT,
    "ModelCheckpoint with enable_checkpointing=False",
    MisconfigurationException,
    "enable_checkpointing=False",
    "ModelCheckpoint",
    "Leave out one",
)
def _(scene: Scene) -> None:
    scene.trainer(callbacks=ModelCheckpoint(), enable_checkpointing=False)


@misuse(
    _SUBJECT,
    "two progress bars",
    MisconfigurationException,
    "2 progress bars",
    "TQDMProgressBar",
    "Pass one",
)
def _(scene: Scene) -> None:
    scene.trainer(callbacks=[TQDMProgressBar(), TQDMProgressBar()], enable_progress_bar=True)


@misuse(_SUBJECT, "two callbacks with one state_key", RuntimeError, "EarlyStopping", "state_key", "Pass one")
def _(scene: Scene) -> None:
    scene.trainer(callbacks=[EarlyStopping("loss"), EarlyStopping("loss")])


@misuse(_SUBJECT, "precision given twice", ValueError, "precision=64", "Precision", "Give one of them")
def _(scene: Scene) -> None:
    scene.trainer(precision=64, plugins=Precision())


class _NoArguments(Callback):
    def on_train_batch_end(self) -> None:  # type: ignore[override]
        pass


_SIGNATURES: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("on_train_batch_end", lambda self: None, ("trainer, pl_module, outputs, batch, batch_idx", "takes no argument")),
    ("on_train_start", lambda self, trainer: None, ("def on_train_start(self, trainer, pl_module):",)),
    ("setup", lambda self, trainer, pl_module: None, ("def setup(self, trainer, pl_module, stage):",)),
    (
        "on_validation_batch_end",
        lambda self, trainer, pl_module, outputs: None,
        ("def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):",),
    ),
    ("on_exception", lambda self, exception: None, ("def on_exception(self, trainer, pl_module, exception):",)),
)


def _callback_of(hook: str, body: Any) -> Callback:
    return type("Note", (Callback,), {hook: body})()


for hook, body, phrases in _SIGNATURES:
    arguments = ", ".join(body.__code__.co_varnames[: body.__code__.co_argcount])
    enter(
        Misuse(
            "Callbacks",
            f"callback with {hook}({arguments})",
            partial(lambda scene, hook, body: scene.fit(callbacks=_callback_of(hook, body)), hook=hook, body=body),
            TypeError,
            (f"`Note.{hook}`", *phrases),
            spoils_trainer=True,
        )
    )
for hook, right in (
    ("on_train_epoch_ends", "on_train_epoch_end"),
    ("on_validation_epoch_ending", "on_validation_epoch_end"),
    ("on_fit_started", "on_fit_start"),
):
    enter(
        Misuse(
            "Callbacks",
            f"callback with {hook}",
            partial(lambda scene, hook: scene.fit(callbacks=_callback_of(hook, lambda *_: None)), hook=hook),
            UserWarning,
            (f"`Note.{hook}`", "never called", f"Did you mean `{right}`?"),
        )
    )


@misuse(
    "Callbacks",
    "callback whose on_train_start is text",
    TypeError,
    "`Note.on_train_start`",
    "'now'",
    "no function",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=_callback_of("on_train_start", "now"))


@misuse(
    "Callbacks",
    "EarlyStopping on a name that is not logged",
    RuntimeError,
    "'val_loss'",
    "'loss'",
    "self.log",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    def step(module: Any, batch: Any, batch_idx: int) -> Any:
        module.log("loss", 1.0)
        return module.layer(batch).mean()

    scene.fit(scene.module(training_step=step), callbacks=EarlyStopping("val_loss"))


@misuse("Callbacks", "EarlyStopping(mode='lower')", MisconfigurationException, "mode='lower'", "'min'", "'max'")
def _(scene: Scene) -> None:
    EarlyStopping("loss", mode="lower")


@misuse(
    "Callbacks",
    "ModelCheckpoint on a name that is not logged",
    MisconfigurationException,
    "'val_loss'",
    "self.log",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    checkpoint = ModelCheckpoint(dirpath=scene.folder / "new", monitor="val_loss")
    scene.fit(callbacks=checkpoint, enable_checkpointing=True)


@misuse(
    "Callbacks", "ModelCheckpoint(save_top_k=3) without monitor", MisconfigurationException, "save_top_k=3", "monitor"
)
def _(scene: Scene) -> None:
    ModelCheckpoint(save_top_k=3)


@misuse("Callbacks", "ModelCheckpoint(save_last='yes')", ValueError, "save_last='yes'", "'link'")
def _(scene: Scene) -> None:
    ModelCheckpoint(save_last="yes")  # type: ignore[arg-type]


@misuse(
    "Callbacks", "ModelCheckpoint with two triggers", MisconfigurationException, "every_n_train_steps", "every_n_epochs"
)
def _(scene: Scene) -> None:
    ModelCheckpoint(every_n_train_steps=1, every_n_epochs=1)


@misuse(
    "Callbacks",
    "a folder that cannot be made (of a ModelCheckpoint)",
    OSError,
    "notes.txt is no folder",
    "dirpath=",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    checkpoint = ModelCheckpoint(dirpath=scene.folder / "notes.txt" / "checkpoints")
    scene.fit(callbacks=checkpoint, enable_checkpointing=True)


@misuse(
    "Callbacks",
    "configure_callbacks that forgot the return",
    MisconfigurationException,
    "`Net.configure_callbacks`",
    "None",
    "return",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(configure_callbacks=lambda self: None))


@misuse(
    "Callbacks",
    "configure_callbacks that returns a class",
    MisconfigurationException,
    "`Net.configure_callbacks`",
    "class ModelCheckpoint",
    "`ModelCheckpoint(...)`",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(configure_callbacks=lambda self: ModelCheckpoint))


@misuse(
    "Callbacks",
    "dataloader_idx missing in a callback with several loaders",
    RuntimeError,
    "several validation loaders",
    "`Note.on_validation_batch_start`",
    "dataloader_idx=0",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    from misuse_table import loader

    note = _callback_of("on_validation_batch_start", lambda self, trainer, pl_module, batch, batch_idx: None)
    scene.trainer(callbacks=note).fit(
        scene.module(validation_step=lambda self, batch, batch_idx, dataloader_idx: None),
        val_dataloaders=[loader(), loader()],
    )
