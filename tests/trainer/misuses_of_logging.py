"""Misuses of ``self.log``."""

from __future__ import annotations

from typing import Any

import torch
from misuse_table import Misuse, Scene, enter, loader, misuse

from fulmen.utilities.exceptions import MisconfigurationException

_SUBJECT = "self.log"


def _log(line: str, raises: type[BaseException], *says: str, spoils_trainer: bool = False) -> None:
    """A line in ``training_step``."""
    code = compile(line, "<line>", "eval")

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        eval(code, {"torch": torch}, {"self": self, "batch": batch, "batch_idx": batch_idx})
        return self.layer(batch).square().mean()

    def commit(scene: Scene) -> None:
        scene.fit(scene.module(training_step=training_step))

    enter(Misuse(_SUBJECT, line, commit, raises, (*says,), spoils_trainer))


_log("self.log('a', {'b': 1.0})", ValueError, "'a'", "a dict", "`self.log_dict(...)`")
_log("self.log('a', 'text')", ValueError, "'text'", "a str", "a number")
_log("self.log('a', None)", ValueError, "None", "no number", "a number")
_log("self.log('a', [1.0])", ValueError, "[1.0]", "a list")
_log("self.log('a', torch.ones(2, 3))", ValueError, "shape (2, 3)", "`value.mean()`")
_log("self.log('a', torch.ones(0))", ValueError, "shape (0,)")
_log("self.log(1, 1.0)", MisconfigurationException, "the name 1", "a string")
_log("self.log('a', 1.0, reduce_fx='median', on_epoch=True)", MisconfigurationException, "'median'", "'mean', 'sum'")
_log("self.log('a', 1.0, reduce_fx=len, on_epoch=True)", MisconfigurationException, "'mean', 'sum'", "torchmetrics")
_log("self.log('a', 1.0, on_step=False, on_epoch=False)", MisconfigurationException, "go nowhere", "True")
_log("self.log('a/dataloader_idx_0', 1.0)", MisconfigurationException, "add_dataloader_idx=False")
_log(
    "self.log('a', 1.0, on_epoch=bool(batch_idx))",
    MisconfigurationException,
    "on_epoch=True",
    "on_epoch=False",
    "before",
    "another name",
)
_log("self.log('a', 1.0, prog_bar='yes')", MisconfigurationException, "prog_bar='yes'", "True or False")
_log(
    "self.log('a', 1.0, on_epoch=True, batch_size=0)", MisconfigurationException, "batch_size=0", "whole number from 1"
)
_log(
    "self.log('a', 1.0, on_epoch=True, batch_size='2')",
    MisconfigurationException,
    "batch_size='2'",
    "whole number from 1",
)
_log("self.log('a', 1.0, logger=True)", UserWarning, "logger=True", "no logger")
_log("self.log_dict(1.0)", TypeError, "log_dict(1.0)", "`self.log(")
_log("self.log_dict({'a': {'b': 1.0}})", ValueError, "'a'", "a dict")
_log("self.log('a', 1.0, metric_attribute='accuracy')", MisconfigurationException, "metric_attribute='accuracy'", "Net")


def _in_hook(hook: str, takes: int, raises: type[BaseException], *says: str, verb: str = "fit") -> None:
    """``self.log`` in a hook that does not allow it."""

    def body(self: Any, *arguments: Any) -> Any:
        self.log("a", 1.0)
        return arguments[0] if arguments else None

    signature = {0: lambda self: body(self), 1: lambda self, a: body(self, a), 2: lambda self, a, b: body(self, a, b)}

    def commit(scene: Scene) -> None:
        getattr(scene.trainer(), verb)(scene.module(**{hook: signature[takes]}))

    enter(Misuse(_SUBJECT, f"self.log in {hook}", commit, raises, ("`self.log`", f"`{hook}`", *says)))


_in_hook("configure_optimizers", 0, MisconfigurationException, "`training_step`")
_in_hook("train_dataloader", 0, MisconfigurationException, "`training_step`")
_in_hook("on_fit_start", 0, MisconfigurationException, "`on_train_start`")
_in_hook("on_train_end", 0, MisconfigurationException, "`on_train_epoch_end`")
_in_hook("on_validation_end", 0, MisconfigurationException, "`on_validation_epoch_end`")
_in_hook("predict_step", 2, MisconfigurationException, "`training_step`", verb="predict")


@misuse(
    _SUBJECT,
    "on_step=True in on_train_epoch_end",
    MisconfigurationException,
    "on_step=True",
    "`on_train_epoch_end`",
    "Leave `on_step` out",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(on_train_epoch_end=lambda self: self.log("a", 1.0, on_step=True)))


@misuse(
    _SUBJECT, "self.log without a Trainer", UserWarning, "self.log('a', ...)", "not attached to a Trainer", "ignored"
)
def _(scene: Scene) -> None:
    scene.module().log("a", 1.0)


@misuse(_SUBJECT, "self.log after the run", MisconfigurationException, "outside of a hook", "`training_step`")
def _(scene: Scene) -> None:
    module = scene.module()
    scene.fit(module)
    module.log("a", 1.0)


@misuse(_SUBJECT, "self.log with barebones=True", UserWarning, "`self.log` does nothing", "barebones=True")
def _(scene: Scene) -> None:
    from fulmen import Trainer

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("a", 1.0)
        return self.layer(batch).mean()

    Trainer(barebones=True, accelerator="cpu", max_epochs=1).fit(scene.module(training_step=training_step))


class _WithoutTensor:
    """A batch without any tensor."""

    def __iter__(self) -> Any:
        yield from ("a few words", "more words")


@misuse(
    _SUBJECT,
    "an epoch's mean over batches without any tensor",
    MisconfigurationException,
    "a str",
    "no tensor",
    "batch_size=",
)
def _(scene: Scene) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("a", 1.0, on_epoch=True)
        return self.layer.weight.mean()

    scene.trainer().fit(scene.module(training_step=training_step), _WithoutTensor())


class _Metric(torch.nn.Module):
    """Anything with these three methods is a metric."""

    def update(self) -> None: ...

    def compute(self) -> Any:
        return {"a": 1.0}

    def reset(self) -> None: ...


@misuse(_SUBJECT, "a metric that is no attribute", MisconfigurationException, "_Metric", "'a'", "self.a = _Metric(...)")
def _(scene: Scene) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("a", _Metric())
        return self.layer(batch).mean()

    scene.fit(scene.module(training_step=training_step))


@misuse(_SUBJECT, "a metric that computes a dict", ValueError, "_Metric", "'a'", "a dict", "self.log_dict(...)")
def _(scene: Scene) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("a", self.metric, on_epoch=True)
        return self.layer(batch).mean()

    module = scene.module(training_step=training_step)
    module.metric = _Metric()
    scene.fit(module)


@misuse(
    _SUBJECT,
    "one name in two loaders with add_dataloader_idx=False",
    MisconfigurationException,
    "add_dataloader_idx=False",
    "several loaders",
)
def _(scene: Scene) -> None:
    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("a", 1.0, add_dataloader_idx=False)

    scene.trainer().fit(scene.module(validation_step=validation_step), val_dataloaders=[loader(), loader()])


@misuse(_SUBJECT, "EarlyStopping on NaN", UserWarning, "'loss'", "nan", "not finite", "stops", spoils_trainer=True)
def _(scene: Scene) -> None:
    from fulmen.callbacks import EarlyStopping

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("loss", float("nan"))
        return self.layer(batch).mean()

    scene.fit(scene.module(training_step=training_step), callbacks=EarlyStopping("loss"))
