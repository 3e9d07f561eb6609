"""Misuses of the module: what it is, what it has, and its optimizers."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import torch
from misuse_table import Misuse, Scene, Sound, enter, loader, misuse
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from fulmen import LightningModule
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import PossibleUserWarning

_MODEL, _HOOKS, _STEP, _OPTIMIZERS = "The model", "Hooks", "training_step", "Optimizers and schedulers"


def _fit(
    subject: str,
    name: str,
    raises: type[BaseException],
    *says: str,
    without: tuple[str, ...] = (),
    arguments: dict[str, Any] | None = None,
    **written: Any,
) -> None:
    """Fit a module with methods left out or written otherwise, by a Trainer with these arguments."""

    def commit(scene: Scene) -> None:
        scene.fit(scene.module(without, **written), **(arguments or {}))

    enter(Misuse(subject, name, commit, raises, says, spoils_trainer=bool(arguments)))


def _run(
    subject: str,
    verb: str,
    name: str,
    raises: type[BaseException],
    *says: str,
    without: tuple[str, ...] = (),
    **written: Any,
) -> None:
    """The same for another verb."""

    def commit(scene: Scene) -> None:
        getattr(scene.trainer(), verb)(scene.module(without, **written))

    enter(Misuse(subject, name, commit, raises, says))


# -- what is no model -------------------------------------------------------------------------------------------------

for model, name, says in (
    (lambda: None, "fit(None)", ("was given no model", "`trainer.fit(model)`")),
    (lambda: nn.Linear(2, 1), "an nn.Module as model", ("Linear(", "no LightningModule", "fulmen.LightningModule")),
    (lambda: Sound, "the model's class", ("the class Sound", "`Sound(...)`")),
    (loader, "a DataLoader as model", ("a DataLoader", "`trainer.fit(model, dataloader)`")),
    (lambda: [Sound()], "a list of models", ("a list", "no LightningModule")),
    (lambda: torch.optim.SGD, "an optimizer's class as model", ("the class SGD", "LightningModule")),
    (lambda: "resnet50", "the model's name", ("'resnet50'", "no LightningModule")),
):
    enter(
        Misuse(_MODEL, name, partial(lambda scene, model: scene.trainer().fit(model()), model=model), TypeError, says)
    )


@misuse(_MODEL, "a datamodule as model", TypeError, "a Data", "LightningDataModule", "datamodule=")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.datamodule())


class _Unfinished(Sound):
    def __init__(self) -> None:
        self.width = 2


@misuse(_MODEL, "__init__ without super().__init__()", TypeError, "_Unfinished", "`super().__init__()`", "first line")
def _(scene: Scene) -> None:
    scene.trainer().fit(_Unfinished())


class _Empty(Sound):
    def __init__(self) -> None:
        LightningModule.__init__(self)


@misuse(
    _MODEL,
    "a module without any parameter",
    ValueError,
    "empty parameter list",
    "_Empty has no parameters",
    "self.layer =",
)
def _(scene: Scene) -> None:
    scene.trainer().fit(_Empty())


class _InAList(Sound):
    def __init__(self) -> None:
        LightningModule.__init__(self)
        self.layers = [nn.Linear(2, 1)]


@misuse(_MODEL, "layers in a plain list", ValueError, "_InAList has no parameters", "`layers`", "nn.ModuleList")
def _(scene: Scene) -> None:
    scene.trainer().fit(_InAList())


for name in ("logger", "device", "current_epoch", "global_step", "loggers"):

    def _commit(scene: Scene, name: str) -> None:
        setattr(scene.module(), name, 3)

    enter(
        Misuse(
            _MODEL,
            f"self.{name} = ...",
            partial(_commit, name=name),
            AttributeError,
            (f"`Net.{name}`", "Use another name"),
        )
    )


@misuse(
    _MODEL,
    "self.log = {} hides a method",
    MisconfigurationException,
    "`Net.log`",
    "an empty dict",
    "hides",
    "another name",
)
def _(scene: Scene) -> None:
    module = scene.module()
    module.log = {}
    scene.fit(module)


@misuse(
    _MODEL, "the trainer asked for before a run", RuntimeError, "Net is not attached to a Trainer", "trainer.fit(model)"
)
def _(scene: Scene) -> None:
    _ = scene.module().trainer


@misuse(_MODEL, "self(x) without forward", NotImplementedError, "Net was called", "`forward(self, x)`")
def _(scene: Scene) -> None:
    scene.fit(scene.module(training_step=lambda self, batch, batch_idx: self(batch).mean()))


@misuse(_MODEL, "save_hyperparameters of an unknown name", KeyError, "'dept'", "'width', 'depth'")
def _(scene: Scene) -> None:
    class Net(LightningModule):
        def __init__(self, width: int, depth: int) -> None:
            super().__init__()
            self.save_hyperparameters("width", "dept")

    Net(1, 2)


@misuse(_MODEL, "save_hyperparameters(3)", ValueError, "save_hyperparameters(3)", "a dict")
def _(scene: Scene) -> None:
    class Net(LightningModule):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters(width)

    Net(3)


@misuse(_MODEL, "a lock as hyperparameter", TypeError, "`lock`: it is an object of class lock", 'ignore=["lock"]')
def _(scene: Scene) -> None:
    class Net(LightningModule):
        def __init__(self, lock: Any) -> None:
            super().__init__()
            self.save_hyperparameters()

    Net(threading.Lock())


# -- hooks ------------------------------------------------------------------------------------------------------------

_fit(
    _HOOKS,
    "no training_step",
    MisconfigurationException,
    "`trainer.fit` needs `training_step`, and Net has none",
    "`def training_step(self, batch, batch_idx):`",
    without=("training_step",),
)
_fit(
    _HOOKS,
    "trainig_step instead of training_step",
    MisconfigurationException,
    "needs `training_step`",
    "`trainig_step`",
    "rename",
    without=("training_step",),
    trainig_step=lambda self, batch, batch_idx: None,
)
_fit(
    _HOOKS,
    "no configure_optimizers",
    MisconfigurationException,
    "`configure_optimizers`",
    "Net has none",
    "return torch.optim",
    without=("configure_optimizers",),
)
_fit(
    _HOOKS,
    "configure_optimisers",
    MisconfigurationException,
    "`configure_optimizers`",
    "`configure_optimisers`",
    "rename",
    without=("configure_optimizers",),
    configure_optimisers=lambda self: None,
)
_fit(
    _HOOKS,
    "no training data at all",
    MisconfigurationException,
    "`fit` needs data",
    "`train_dataloader(self)`",
    "`trainer.fit(model, dataloader)`",
    without=("train_dataloader",),
)
_fit(
    _HOOKS,
    "train_dataloaders instead of train_dataloader",
    UserWarning,
    "`Net.train_dataloaders`",
    "never called",
    "Did you mean `train_dataloader`?",
    train_dataloaders=lambda self: loader(),
)
_fit(
    _HOOKS,
    "validaton_step",
    UserWarning,
    "`Net.validaton_step`",
    "never called",
    "Did you mean `validation_step`?",
    validaton_step=lambda self, batch, batch_idx: None,
)
_fit(
    _HOOKS,
    "on_train_epoch_ends",
    UserWarning,
    "`Net.on_train_epoch_ends`",
    "Did you mean `on_train_epoch_end`?",
    on_train_epoch_ends=lambda self: None,
)
_fit(
    _HOOKS,
    "on_epoch_end of version 1",
    UserWarning,
    "`Net.on_epoch_end`",
    "`on_train_epoch_end`",
    on_epoch_end=lambda self: None,
)
_fit(
    _HOOKS,
    "on_batch_start of version 1",
    UserWarning,
    "`Net.on_batch_start`",
    "`on_train_batch_start`",
    on_batch_start=lambda self, batch: None,
)
for stage in ("training", "validation", "test"):
    right = "train" if stage == "training" else stage
    _fit(
        _HOOKS,
        f"{stage}_epoch_end of version 1",
        NotImplementedError,
        f"`Net.{stage}_epoch_end`",
        f"`on_{right}_epoch_end(self)`",
        **{f"{stage}_epoch_end": lambda self, outputs: None},
    )
_fit(
    _HOOKS,
    "training_step(self)",
    MisconfigurationException,
    "`Net.training_step`",
    "takes no batch",
    "`def training_step(self, batch, batch_idx):`",
    training_step=lambda self: None,
)
_fit(
    _HOOKS,
    "training_step(self, batch, batch_idx, extra)",
    MisconfigurationException,
    "`Net.training_step`",
    "'extra'",
    training_step=lambda self, batch, batch_idx, extra: None,
)
_fit(
    _HOOKS,
    "training_step with optimizer_idx of version 1",
    RuntimeError,
    "optimizer_idx",
    "self.optimizers()",
    training_step=lambda self, batch, batch_idx, optimizer_idx: None,
)
_fit(
    _HOOKS,
    "validation_step(self)",
    MisconfigurationException,
    "`Net.validation_step`",
    "takes no batch",
    validation_step=lambda self: None,
)
_SIGNATURES: tuple[tuple[str, Any, str], ...] = (
    ("on_train_batch_end", lambda self: None, "def on_train_batch_end(self, outputs, batch, batch_idx):"),
    ("on_train_batch_start", lambda self, batch: None, "def on_train_batch_start(self, batch, batch_idx):"),
    ("on_before_optimizer_step", lambda self: None, "def on_before_optimizer_step(self, optimizer):"),
    ("on_train_epoch_end", lambda self, outputs: None, "def on_train_epoch_end(self):"),
    ("on_validation_epoch_end", lambda self, outputs: None, "def on_validation_epoch_end(self):"),
    ("setup", lambda self: None, "def setup(self, stage):"),
    ("prepare_data", lambda self, stage: None, "def prepare_data(self):"),
    ("configure_optimizers", lambda self, lr: None, "def configure_optimizers(self):"),
    ("backward", lambda self: None, "def backward(self, loss):"),
    (
        "optimizer_step",
        lambda self, optimizer: None,
        "def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):",
    ),
    ("lr_scheduler_step", lambda self, scheduler: None, "def lr_scheduler_step(self, scheduler, metric):"),
    ("on_save_checkpoint", lambda self: None, "def on_save_checkpoint(self, checkpoint):"),
    ("train_dataloader", lambda self, batch_size: loader(), "def train_dataloader(self):"),
    (
        "transfer_batch_to_device",
        lambda self, batch: batch,
        "def transfer_batch_to_device(self, batch, device, dataloader_idx):",
    ),
)
for hook, body, right in _SIGNATURES:
    taken = ", ".join(body.__code__.co_varnames[: body.__code__.co_argcount])
    _fit(_HOOKS, f"{hook}({taken})", TypeError, f"`Net.{hook}`", f"`{right}`", **{hook: body})
_fit(
    _HOOKS,
    "a hook that is no function",
    TypeError,
    "`Net.on_train_start`",
    "'now'",
    "no function",
    on_train_start="now",
)
_fit(
    _HOOKS,
    "validation data without validation_step",
    UserWarning,
    "no `validation_step`",
    "nothing is validated",
    without=("validation_step",),
)
_fit(
    _HOOKS,
    "validation_step without validation data",
    PossibleUserWarning,
    "no validation data",
    "`val_dataloaders`",
    without=("val_dataloader",),
)
_run(
    _HOOKS,
    "validate",
    "validate without validation_step",
    MisconfigurationException,
    "`validation_step`",
    "Net has none",
    without=("validation_step",),
)
_run(
    _HOOKS,
    "test",
    "test without test_step",
    MisconfigurationException,
    "`test_step`",
    "Net has none",
    "`def test_step(self, batch, batch_idx):`",
    without=("test_step",),
)
_run(
    _HOOKS,
    "predict",
    "predict without predict_step and forward",
    MisconfigurationException,
    "`predict_step` or `forward`",
    without=("predict_step",),
)
_run(
    _HOOKS, "predict", "predict_step = None", MisconfigurationException, "`Net.predict_step` is None", predict_step=None
)
_run(
    _HOOKS,
    "predict",
    "predict_step that forgot the return",
    UserWarning,
    "`predict_step` returned None",
    "return_predictions=False",
    predict_step=lambda self, batch, batch_idx: None,
)
_fit(
    _HOOKS,
    "optimizer_step that does not call the closure",
    MisconfigurationException,
    "`Net.optimizer_step`",
    "optimizer.step(closure=optimizer_closure)",
    optimizer_step=lambda self, epoch, batch_idx, optimizer, optimizer_closure: None,
)
_fit(
    _HOOKS,
    "on_before_batch_transfer that forgot the return",
    MisconfigurationException,
    "None instead of a batch",
    "on_before_batch_transfer",
    on_before_batch_transfer=lambda self, batch, dataloader_idx: None,
)
for verb in ("validate", "test", "predict"):
    enter(
        Misuse(
            _HOOKS,
            f"trainer.{verb}() before anything",
            partial(lambda scene, verb: getattr(scene.trainer(), verb)(), verb=verb),
            TypeError,
            (f"`trainer.{verb}()` was given no model", f"`trainer.{verb}(model)`"),
        )
    )


@misuse(
    _HOOKS, "trainer.validate within fit", RuntimeError, "`trainer.validate`", "`fit`", "is running", "another Trainer"
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(on_train_epoch_end=lambda self: self.trainer.validate(self)))


@misuse(_HOOKS, "the plan printed before a run", RuntimeError, "no plan yet", "trainer.fit(model)")
def _(scene: Scene) -> None:
    print(scene.trainer().plan)


# -- what training_step returns ---------------------------------------------------------------------------------------

for value, name, says in (
    ("text", "text", ("'text'", "a str", "no loss")),
    (1.0, "a float", ("1.0", "a float", "no loss")),
    ([1], "a list", ("a list", "no loss")),
    ({"los": 1.0}, "a dict without loss", ("'los'", "not `loss`", "{'loss': loss, ...}")),
    ({"loss": 1.0}, "a dict with a float", ("the loss 1.0", "no tensor", "`.item()`")),
    (torch.tensor(1.0), "a loss without gradient", ("requires_grad is False", "`.detach()`")),
    ({"loss_sum": torch.tensor(1.0)}, "loss_sum without weight", ("`loss_sum` without `weight`", "'weight':")),
):
    _fit(
        _STEP,
        f"training_step returns {name}",
        MisconfigurationException,
        "`training_step` returned",
        *says,
        training_step=lambda self, batch, batch_idx, value=value: value,
    )
_fit(
    _STEP,
    "training_step returns a loss for each sample",
    MisconfigurationException,
    "of shape (2, 1)",
    "`loss.mean()`",
    training_step=lambda self, batch, batch_idx: self.layer(batch),
)
_fit(
    _STEP,
    "training_step returns a tuple",
    MisconfigurationException,
    "a tuple",
    "{'loss': loss, ...}",
    training_step=lambda self, batch, batch_idx: (self.layer(batch).mean(), batch),
)
_fit(
    _STEP,
    "training_step is a generator",
    MisconfigurationException,
    "a generator",
    "`return`",
    training_step=lambda self, batch, batch_idx: (yield self.layer(batch).mean()),
)
_fit(
    _STEP,
    "training_step forgot the return",
    UserWarning,
    "`training_step` returned None",
    "every batch",
    "return",
    training_step=lambda self, batch, batch_idx: None,
)
_fit(
    _STEP,
    "training_step detaches the loss",
    MisconfigurationException,
    "requires_grad is False",
    "`.detach()`",
    training_step=lambda self, batch, batch_idx: self.layer(batch).mean().detach(),
)
_fit(
    _STEP,
    "manual_backward in automatic optimization",
    MisconfigurationException,
    "`self.manual_backward`",
    "self.automatic_optimization = False",
    training_step=lambda self, batch, batch_idx: self.manual_backward(self.layer(batch).mean()),
)
_fit(
    _STEP,
    "text returned in manual optimization",
    MisconfigurationException,
    "'text'",
    "a tensor, a dict, or nothing",
    training_step=lambda self, batch, batch_idx: "text",
    automatic_optimization=False,
)
_fit(
    _STEP,
    "loss and loss_sum in one window",
    MisconfigurationException,
    "`loss_sum`",
    "'weight':",
    arguments={"accumulate_grad_batches": 2},
    training_step=lambda self, batch, batch_idx: (
        self.layer(batch).mean() if batch_idx else {"loss_sum": self.layer(batch).sum(), "weight": 2}
    ),
)


# -- optimizers -------------------------------------------------------------------------------------------------------


def _optimizers(name: str, raises: type[BaseException], *says: str, **more: Any) -> Any:
    """What ``configure_optimizers`` returns, given the module and an optimizer over its parameters."""

    def register(make: Any) -> None:
        def configure_optimizers(module: Any) -> Any:
            return make(module, torch.optim.SGD(module.parameters(), lr=0.1))

        _fit(_OPTIMIZERS, name, raises, *says, configure_optimizers=configure_optimizers, **more)

    return register


_optimizers(
    "configure_optimizers that forgot the return",
    UserWarning,
    "`configure_optimizers` returned None",
    "`return`",
    "changes no parameter",
)(lambda module, optimizer: None)
_optimizers(
    "a scheduler instead of an optimizer",
    MisconfigurationException,
    "StepLR",
    "scheduler",
    "`return [optimizer], [scheduler]`",
)(lambda module, optimizer: StepLR(optimizer, 1))
_optimizers(
    "return optimizer, scheduler", MisconfigurationException, "SGD", "StepLR", "`return [optimizer], [scheduler]`"
)(lambda module, optimizer: (optimizer, StepLR(optimizer, 1)))
_optimizers("an optimizer's class", MisconfigurationException, "the class SGD", "`SGD(self.parameters(), ...)`")(
    lambda module, optimizer: torch.optim.SGD
)
_optimizers("configure_optimizers returns 1", MisconfigurationException, "returned 1", "Return an optimizer")(
    lambda module, optimizer: 1
)
_optimizers(
    "configure_optimizers returns an empty list", MisconfigurationException, "an empty list", "Return an optimizer"
)(lambda module, optimizer: [])
_optimizers("a dict without optimizer", MisconfigurationException, "'optim'", "under 'optimizer'")(
    lambda module, optimizer: {"optim": optimizer}
)
_optimizers("a dict with an unknown key", RuntimeWarning, "'scheduler'", "ignored", "'lr_scheduler'")(
    lambda module, optimizer: {"optimizer": optimizer, "scheduler": StepLR(optimizer, 1)}
)
_optimizers(
    "two optimizers in automatic optimization",
    RuntimeError,
    "2 optimizers (SGD, SGD)",
    "self.automatic_optimization = False",
)(lambda module, optimizer: [optimizer, optimizer])
_optimizers(
    "an optimizer over another module's parameters",
    UserWarning,
    "SGD",
    "none of its 2 parameters",
    "Net",
    "self.parameters()",
)(lambda module, optimizer: torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))
_optimizers("an optimizer over some foreign parameters", PossibleUserWarning, "SGD", "2 of its 4 parameters", "Net")(
    lambda module, optimizer: torch.optim.SGD([*module.parameters(), *nn.Linear(2, 1).parameters()], lr=0.1)
)
_optimizers("a scheduler of another optimizer", MisconfigurationException, "StepLR", "did not return")(
    lambda module, optimizer: {
        "optimizer": optimizer,
        "lr_scheduler": StepLR(torch.optim.SGD(module.parameters(), lr=1.0), 1),
    }
)
_optimizers(
    "ReduceLROnPlateau without monitor", MisconfigurationException, "ReduceLROnPlateau", "'monitor': 'val_loss'"
)(lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": ReduceLROnPlateau(optimizer)})
_optimizers(
    "ReduceLROnPlateau on a name that is not logged",
    MisconfigurationException,
    "'val_los'",
    "not logged",
    "self.log('val_los', ...)",
)(
    lambda module, optimizer: {
        "optimizer": optimizer,
        "lr_scheduler": ReduceLROnPlateau(optimizer),
        "monitor": "val_los",
    }
)
_optimizers("a scheduler's class", MisconfigurationException, "class StepLR", "`StepLR(optimizer, ...)`")(
    lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": StepLR}
)
_optimizers("a scheduler that is none", TypeError, "an object", "no scheduler")(
    lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": object()}
)
_optimizers("a scheduler's dict without scheduler", MisconfigurationException, "'interval'", "'scheduler'")(
    lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": {"interval": "step"}}
)
for key, value, says in (
    ("interval", "fortnight", ("'fortnight'", "'epoch', 'step'")),
    ("interval", 5, ("5", "'epoch', 'step'")),
    ("frequency", 0, ("'frequency' is 0", "whole number from 1")),
    ("frequency", 1.5, ("1.5", "whole number from 1")),
):
    _optimizers(f"a scheduler's dict with {key}={value!r}", MisconfigurationException, *says)(
        lambda module, optimizer, key=key, value=value: {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": StepLR(optimizer, 1), key: value},
        }
    )
_optimizers("a scheduler's dict with an unknown key", RuntimeWarning, "'freq'", "ignored", "'frequency'")(
    lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": {"scheduler": StepLR(optimizer, 1), "freq": 2}}
)
_optimizers("OneCycleLR once per epoch", RuntimeWarning, "OneCycleLR", "'interval': 'step'")(
    lambda module, optimizer: {"optimizer": optimizer, "lr_scheduler": OneCycleLR(optimizer, 0.1, total_steps=9)}
)
_optimizers(
    "LBFGS with accumulation",
    MisconfigurationException,
    "LBFGS",
    "accumulate_grad_batches=2",
    "accumulate_grad_batches=1",
    arguments={"accumulate_grad_batches": 2},
)(lambda module, optimizer: torch.optim.LBFGS(module.parameters()))
_fit(
    _OPTIMIZERS,
    "manual optimization with gradient_clip_val",
    MisconfigurationException,
    "gradient_clip_val=1.0",
    "self.clip_gradients",
    arguments={"gradient_clip_val": 1.0},
    automatic_optimization=False,
)
_fit(
    _OPTIMIZERS,
    "manual optimization with accumulate_grad_batches",
    MisconfigurationException,
    "accumulate_grad_batches=2",
    "optimizer.step()",
    arguments={"accumulate_grad_batches": 2},
    automatic_optimization=False,
)
_fit(
    _OPTIMIZERS,
    "clip_gradients against the Trainer's value",
    MisconfigurationException,
    "gradient_clip_val=2.0",
    "gradient_clip_val=1.0",
    arguments={"gradient_clip_val": 1.0},
    configure_gradient_clipping=lambda self, optimizer, *_: self.clip_gradients(optimizer, 2.0),
)


class _Early(LightningModule):
    """Its optimizer is made in the constructor, before ``configure_model`` replaces the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def configure_model(self) -> None:
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).mean()

    def configure_optimizers(self) -> Any:
        return self.optimizer


@misuse(
    _OPTIMIZERS,
    "an optimizer made before the layers were",
    UserWarning,
    "SGD",
    "none of its 2 parameters",
    "_Early",
    "in `configure_optimizers`",
)
def _(scene: Scene) -> None:
    scene.trainer().fit(_Early(), loader())


@misuse(_OPTIMIZERS, "all parameters frozen", MisconfigurationException, "requires_grad is False", "unfreeze")
def _(scene: Scene) -> None:
    module = scene.module()
    module.freeze()
    scene.fit(module)
