"""Misuses of loaders, datamodules and checkpoint files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pickle import UnpicklingError
from typing import Any

import torch
from misuse_table import Misuse, Scene, enter, loader, misuse
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fulmen import LightningDataModule, LightningModule
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import PossibleUserWarning

_DATA, _FILES = "Data", "Checkpoint files"


class _Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from torch.ones(4, 2)


class _Rows(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        if index == 4:
            raise IndexError
        return torch.ones(2, 2)


def _train_on(
    name: str, make: Any, raises: type[BaseException], *says: str, arguments: dict[str, Any] | None = None
) -> None:
    """What is passed as the training loader."""

    def commit(scene: Scene) -> None:
        scene.trainer(**(arguments or {})).fit(scene.module(), make())

    enter(Misuse(_DATA, name, commit, raises, says, spoils_trainer=bool(arguments)))


# -- loaders ----------------------------------------------------------------------------------------------------------

for value in (None, 1):

    def _return(scene: Scene, value: Any) -> None:
        scene.fit(scene.module(train_dataloader=lambda self: value))

    enter(
        Misuse(
            _DATA,
            f"train_dataloader returns {value}",
            partial(_return, value=value),
            TypeError,
            ("`train_dataloader`", f"{value}", "a DataLoader"),
        )
    )
_train_on("a path as loader", lambda: "data.csv", TypeError, "'data.csv'", "a DataLoader")
_train_on("a DataLoader's class", lambda: DataLoader, TypeError, "class DataLoader", "`DataLoader(...)`")
_train_on("a function that makes a loader", lambda: loader, TypeError, "function", "`loader()`")
_train_on(
    "a dataset instead of a loader",
    _Rows,
    PossibleUserWarning,
    "a _Rows",
    "each sample",
    "DataLoader(dataset, batch_size=",
)
_train_on("an empty list of loaders", list, UserWarning, "an empty list", "`train_dataloader`", "nothing to train on")
_train_on("None among the loaders", lambda: [loader(), None], TypeError, "None", "a DataLoader")
_train_on("a training loader of length zero", lambda: loader(0), UserWarning, "`train_dataloader`", "length is 0")
_train_on(
    "CombinedLoader in sequential mode in fit",
    lambda: CombinedLoader([loader(), loader()], "sequential"),
    ValueError,
    "mode='sequential'",
    "'max_size_cycle'",
)
_train_on(
    "a generator in the second epoch",
    lambda: (torch.ones(2, 2) for _ in range(3)),
    MisconfigurationException,
    "generator",
    "epoch 1",
    "no batch",
    "a DataLoader",
    arguments={"max_epochs": 2},
)
_train_on(
    "a fraction that leaves no batch",
    loader,
    MisconfigurationException,
    "limit_train_batches=0.1",
    "4 batches",
    "limit_train_batches=0.25",
    arguments={"limit_train_batches": 0.1},
)
_train_on(
    "a fraction of a loader without length",
    lambda: DataLoader(_Stream()),
    MisconfigurationException,
    "limit_train_batches=0.5",
    "no length",
    "limit_train_batches=100",
    arguments={"limit_train_batches": 0.5},
)
_train_on(
    "val_check_interval=0.5 without length",
    lambda: DataLoader(_Stream(), batch_size=2),
    MisconfigurationException,
    "val_check_interval=0.5",
    "no length",
    arguments={"val_check_interval": 0.5},
)
_train_on(
    "val_check_interval of more than an epoch",
    loader,
    ValueError,
    "val_check_interval=9",
    "4 training batches",
    "check_val_every_n_epoch=None",
    arguments={"val_check_interval": 9},
)
_train_on(
    "overfit_batches with a loader that shuffles",
    lambda: loader(4, shuffle=True),
    UserWarning,
    "overfit_batches=2",
    "shuffling",
    arguments={"overfit_batches": 2},
)


@misuse(_DATA, "CombinedLoader(mode='both')", ValueError, "mode='both'", "min_size", "max_size_cycle")
def _(scene: Scene) -> None:
    CombinedLoader([loader(), loader()], "both")  # type: ignore[arg-type]


@misuse(_DATA, "CombinedLoader that is not sequential in predict", ValueError, "mode='min_size'", "'sequential'")
def _(scene: Scene) -> None:
    scene.trainer().predict(scene.module(), CombinedLoader([loader(), loader()], "min_size"))


@misuse(_DATA, "a validation loader of length zero", UserWarning, "`val_dataloader`", "length is 0")
def _(scene: Scene) -> None:
    scene.trainer().validate(scene.module(), loader(0), verbose=False)


@misuse(_DATA, "a validation loader that shuffles", PossibleUserWarning, "`val_dataloader`", "`shuffle=False`")
def _(scene: Scene) -> None:
    scene.trainer().validate(scene.module(), loader(4, shuffle=True), verbose=False)


@misuse(
    _DATA,
    "a generator for validation, used up by the sanity check",
    MisconfigurationException,
    "generator",
    "`val_dataloader`",
    "a DataLoader",
)
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), val_dataloaders=(torch.ones(2, 2) for _ in range(2)))


@misuse(
    _DATA,
    "dataloader_idx missing with several loaders",
    RuntimeError,
    "several validation loaders",
    "`Net.validation_step`",
    "`dataloader_idx=0`",
)
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), val_dataloaders=[loader(), loader()])


@misuse(
    _DATA,
    "dataloader_idx required with one loader",
    RuntimeError,
    "`Net.validation_step` needs `dataloader_idx`",
    "`dataloader_idx=0`",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(validation_step=lambda self, batch, batch_idx, dataloader_idx: None))


# -- datamodules ------------------------------------------------------------------------------------------------------


@misuse(_DATA, "loaders and a datamodule", MisconfigurationException, "loaders and a datamodule", "Pass one")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), loader(), datamodule=scene.datamodule())


@misuse(_DATA, "two datamodules", MisconfigurationException, "two datamodules", "Pass one")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), scene.datamodule(), datamodule=scene.datamodule())


@misuse(_DATA, "a loader as datamodule", TypeError, "DataLoader", "LightningDataModule", "train_dataloaders=")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), datamodule=loader())  # type: ignore[arg-type]


class _Data(LightningDataModule):
    pass


@misuse(_DATA, "a datamodule's class as datamodule", TypeError, "the class _Data", "`_Data(...)`")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), datamodule=_Data)  # type: ignore[arg-type]


@misuse(_DATA, "a datamodule's class as loader", TypeError, "the class _Data", "`_Data(...)`")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), _Data)


@misuse(_DATA, "a datamodule without train_dataloader", MisconfigurationException, "_Data", "`train_dataloader`")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(("train_dataloader",)), datamodule=_Data())


@misuse(_DATA, "train_dataloaders in a datamodule", UserWarning, "`Data.train_dataloaders`", "`train_dataloader`")
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), datamodule=scene.datamodule(train_dataloaders=lambda self: loader()))


@misuse(
    _DATA, "setup(self) in a datamodule", TypeError, "`Data.setup`", "`def setup(self, stage):`", spoils_trainer=True
)
def _(scene: Scene) -> None:
    scene.trainer().fit(scene.module(), datamodule=scene.datamodule(setup=lambda self: None))


# -- checkpoint files -------------------------------------------------------------------------------------------------


def _resume(
    name: str, make: Any, raises: type[BaseException], *says: str, module: Any = None, **arguments: Any
) -> None:
    """Go on from a file."""

    def commit(scene: Scene) -> None:
        path = make(scene)
        scene.trainer(**{"max_epochs": 2, **arguments}).fit(
            scene.module() if module is None else module(scene), ckpt_path=path
        )

    enter(Misuse(_FILES, name, commit, raises, says, spoils_trainer=bool(arguments)))


def _sgd(module: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def _other_shape(scene: Scene) -> Any:
    module = scene.module()
    module.layer = nn.Linear(2, 3)
    return module


def _other_names(scene: Scene) -> Any:
    module = scene.module(
        training_step=lambda self, batch, batch_idx: self.head(batch).mean(), without=("validation_step",)
    )
    del module.layer
    module.head = nn.Linear(2, 1)
    return module


def _two_optimizers(scene: Scene) -> Any:
    return scene.module(automatic_optimization=False, configure_optimizers=lambda self: [_sgd(self), _sgd(self)])


def _two_groups(scene: Scene) -> Any:
    return scene.module(
        configure_optimizers=lambda self: torch.optim.SGD(
            [{"params": [self.layer.weight]}, {"params": [self.layer.bias]}], lr=0.1
        )
    )


_resume("a checkpoint that is not there", lambda scene: scene.folder / "absent.ckpt", FileNotFoundError, "absent.ckpt")
_resume("a folder as checkpoint", lambda scene: scene.folder / "checkpoints", IsADirectoryError, "is a folder")
_resume("a number as checkpoint", lambda scene: 3, TypeError, "ckpt_path=3", "a path")
_resume("True as checkpoint", lambda scene: True, TypeError, "ckpt_path=True", "'last'")
_resume(
    "a truncated checkpoint",
    lambda scene: scene.raw(scene.checkpoint().read_bytes()[:900], "half.ckpt"),
    RuntimeError,
    "half.ckpt",
    "truncated",
)
_resume("an empty file as checkpoint", lambda scene: scene.raw(b""), RuntimeError, "raw.ckpt", "empty")
_resume("a text file as checkpoint", lambda scene: scene.folder / "notes.txt", RuntimeError, "notes.txt", "torch.save")
_resume(
    "a bare state_dict as checkpoint",
    lambda scene: scene.raw(scene.module().state_dict()),
    MisconfigurationException,
    "raw.ckpt",
    "weights",
    "model.load_state_dict(torch.load(",
)
_resume("a list as checkpoint", lambda scene: scene.raw([1, 2]), MisconfigurationException, "raw.ckpt", "a list")
_resume(
    "a dict with a state_dict and nothing else",
    lambda scene: scene.raw({"state_dict": scene.module().state_dict()}),
    KeyError,
    "optimizer_states",
    "weights only",
)
_resume(
    "a checkpoint with an epoch below zero",
    lambda scene: scene.raw({"state_dict": scene.module().state_dict(), "epoch": -1}),
    ValueError,
    "raw.ckpt",
    "`epoch` must be a whole number from 0 on, but is -1",
)
_resume(
    "a checkpoint of weights only",
    lambda scene: scene.checkpoint(weights_only=True),
    KeyError,
    "weights only",
    "load_from_checkpoint",
)
_resume(
    "a checkpoint of other shapes",
    lambda scene: scene.checkpoint(),
    RuntimeError,
    "run.ckpt",
    "Net",
    "layer.weight",
    "(1, 2)",
    "(3, 2)",
    module=_other_shape,
)
_resume(
    "a checkpoint with other keys",
    lambda scene: scene.checkpoint(),
    RuntimeError,
    "run.ckpt",
    "Net",
    "missing",
    "head.weight",
    "unexpected",
    "layer.weight",
    "strict_loading = False",
    module=_other_names,
)
_resume(
    "another number of optimizers",
    lambda scene: scene.checkpoint(),
    MisconfigurationException,
    "1 optimizer,",
    "returned 2",
    module=_two_optimizers,
)
_resume(
    "another number of parameter groups",
    lambda scene: scene.checkpoint(),
    ValueError,
    "SGD",
    "1 parameter group",
    "2",
    module=_two_groups,
)
_resume(
    "resume with max_epochs that are behind",
    lambda scene: _after_epochs(scene, 3),
    MisconfigurationException,
    "3 epochs",
    "max_epochs=2",
    "more than 3",
)
_resume(
    "ckpt_path='best' without ModelCheckpoint", lambda scene: "best", ValueError, "ckpt_path='best'", "ModelCheckpoint"
)
_resume(
    "ckpt_path='last' that is not there", lambda scene: "last", UserWarning, "ckpt_path='last'", "nothing is loaded"
)


def _after_epochs(scene: Scene, epochs: int) -> Any:
    trainer = scene.trainer(max_epochs=epochs)
    trainer.fit(scene.module())
    trainer.save_checkpoint(scene.folder / "late.ckpt")
    scene.files[scene.folder / "late.ckpt"] = (scene.folder / "late.ckpt").read_bytes()
    return scene.folder / "late.ckpt"


class _Code:
    pass


@misuse(_FILES, "a checkpoint that names a class", Exception, "raw.ckpt", "_Code", "weights_only=False")
def _(scene: Scene) -> None:
    path = scene.raw({"state_dict": {}, "extra": _Code()})
    scene.trainer().fit(scene.module(), ckpt_path=path)


class _Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@misuse(
    _FILES,
    "a checkpoint that would run code",
    UnpicklingError,
    "raw.ckpt",
    "system('touch pwned')",
    "get the file again",
)
def _(scene: Scene) -> None:
    path = scene.raw({"state_dict": {}, "extra": _Command()})
    type(scene.module()).load_from_checkpoint(path)


@misuse(_FILES, "test(ckpt_path='best') before anything was saved", ValueError, "ckpt_path='best'", "ModelCheckpoint")
def _(scene: Scene) -> None:
    scene.trainer(enable_checkpointing=True).test(scene.module(), ckpt_path="best")


@misuse(
    _FILES,
    "save_checkpoint before a run",
    AttributeError,
    "`trainer.save_checkpoint` needs a model",
    "trainer.fit(model)",
)
def _(scene: Scene) -> None:
    scene.trainer().save_checkpoint(scene.folder / "none.ckpt")


@misuse(_FILES, "save_checkpoint into a folder that cannot be made", OSError, "could not be written", "notes.txt")
def _(scene: Scene) -> None:
    trainer = scene.trainer()
    trainer.fit(scene.module())
    trainer.save_checkpoint(scene.folder / "notes.txt" / "a.ckpt")


@misuse(_FILES, "a default_root_dir that cannot be made", OSError, "notes.txt", "default_root_dir", spoils_trainer=True)
def _(scene: Scene) -> None:
    scene.trainer(default_root_dir=scene.folder / "notes.txt" / "runs", logger=True).fit(scene.module())


class _Wide(LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)


@misuse(_FILES, "load_from_checkpoint without a required argument", TypeError, "width", "load_from_checkpoint")
def _(scene: Scene) -> None:
    _Wide.load_from_checkpoint(scene.checkpoint())


@misuse(_FILES, "load_from_checkpoint of an instance", TypeError, "makes a new object", "_Wide.load_from_checkpoint")
def _(scene: Scene) -> None:
    _Wide(1).load_from_checkpoint(scene.checkpoint())


@misuse(_FILES, "load_from_checkpoint of other shapes", RuntimeError, "layer.weight", "(1, 2)", "(5, 2)")
def _(scene: Scene) -> None:
    _Wide.load_from_checkpoint(scene.checkpoint(), width=5)
