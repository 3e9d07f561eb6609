"""Data that belongs together: where it comes from, how it is prepared, and its loaders."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fulmen.core.hooks import DataHooks
from fulmen.core.hparams import HyperparameterOwner
from fulmen.core.saving import class_only, load_datamodule

if TYPE_CHECKING:
    from typing import Self

    from fulmen.trainer.trainer import Trainer

Datasets = Dataset[Any] | Sequence[Dataset[Any]] | Mapping[str, Dataset[Any]]

#: the loaders, in the order in which ``str(datamodule)`` shows them
_LOADERS = {
    "Train": "train_dataloader",
    "Validation": "val_dataloader",
    "Test": "test_dataloader",
    "Predict": "predict_dataloader",
}


class LightningDataModule(DataHooks, HyperparameterOwner):
    """Datasets and their loaders in one place, to be shared between models and projects.

    Write the hooks that you need and hand an object of it to the trainer: ``trainer.fit(model, datamodule=data)``::

        class Digits(LightningDataModule):
            def __init__(self, folder: str, batch_size: int = 32):
                super().__init__()
                self.save_hyperparameters()

            def prepare_data(self):  # once per machine
                download(self.hparams.folder)

            def setup(self, stage):  # on every process
                self.digits = read(self.hparams.folder)

            def train_dataloader(self):
                return DataLoader(self.digits, batch_size=self.hparams.batch_size, shuffle=True)
    """

    CHECKPOINT_HYPER_PARAMS_KEY = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "datamodule_hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "datamodule_hparams_type"
    CHECKPOINT_HYPER_PARAMS_KINDS = "datamodule_hparams_kinds"

    #: a name of your choice
    name: str | None = None
    #: the trainer that uses this datamodule; None until one does
    trainer: Trainer | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()  # a user may have put classes of their own behind this one

    @class_only
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a datamodule from a checkpoint; see :func:`fulmen.core.saving.load_datamodule`."""
        return load_datamodule(cls, checkpoint_path, map_location, hparams_file, weights_only, **kwargs)

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Datasets | None = None,
        val_dataset: Datasets | None = None,
        test_dataset: Datasets | None = None,
        predict_dataset: Datasets | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **datamodule_kwargs: Any,
    ) -> Self:
        """Make a datamodule from datasets.

        Args:
            train_dataset: what to train on: a dataset, or a list or dict of them, for as many loaders.
                It is shuffled unless it is an ``IterableDataset``. None: no such loader; so too for the others.
            val_dataset: what to validate on.
            test_dataset: what to test on.
            predict_dataset: what to predict.
            batch_size: items per batch.
            num_workers: processes per loader; 0 loads in this process.
            datamodule_kwargs: arguments of the constructor. It also gets ``batch_size`` and ``num_workers`` if it has
                parameters of these names (or ``**kwargs``).
        """
        parameters = inspect.signature(cls.__init__).parameters
        takes_anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        sizes = {"batch_size": batch_size, "num_workers": num_workers}
        datamodule_kwargs |= {name: value for name, value in sizes.items() if takes_anything or name in parameters}
        datamodule = cls(**datamodule_kwargs)
        given = {
            "train_dataloader": train_dataset,
            "val_dataloader": val_dataset,
            "test_dataloader": test_dataset,
            "predict_dataloader": predict_dataset,
        }
        for name, datasets in given.items():
            if datasets is not None:
                # a partial, unlike a function made here, can be sent to other processes
                loaders = partial(_loaders, datasets, shuffle=name == "train_dataloader", **sizes)
                setattr(datamodule, name, loaders)
        return datamodule

    def state_dict(self) -> dict[str, Any]:
        """What of this datamodule to keep in a checkpoint: tensors and simple values; nothing if empty."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned when the checkpoint was written."""

    def on_exception(self, exception: BaseException) -> None:
        """Called when a run ends with an exception, an interrupt by the user included."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    def __str__(self) -> str:
        lines = [f"{{{title} dataloader: {_sizes(getattr(self, name))}}}" for title, name in _LOADERS.items()]
        return "\n".join(lines)


def _loaders(datasets: Datasets, shuffle: bool, batch_size: int, num_workers: int) -> Any:
    def loader(dataset: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle and not isinstance(dataset, IterableDataset),
            num_workers=num_workers,
            pin_memory=_has_accelerator(),
        )

    if isinstance(datasets, Mapping):
        return {name: loader(dataset) for name, dataset in datasets.items()}
    if isinstance(datasets, Sequence):
        return [loader(dataset) for dataset in datasets]
    return loader(datasets)


def _has_accelerator() -> bool:
    """Whether pinned memory speeds up the way to a device; where there is none, torch warns of it."""
    accelerator = getattr(torch, "accelerator", None)  # from torch 2.6 on
    return torch.cuda.is_available() if accelerator is None else accelerator.is_available()


def _sizes(make_loaders: Callable[[], Any]) -> str:
    """``size=64`` for one loader, ``1. size=64 ; 2. size=NA`` for several, ``None`` if there are none."""
    try:
        loaders = make_loaders()
    except Exception:  # not written, or not set up yet
        return "None"
    if loaders is None:
        return "None"
    if not isinstance(loaders, (Mapping, list, tuple)):
        return f"size={_size(loaders)}"
    return " ; ".join(f"{position}. size={_size(loader)}" for position, loader in enumerate(_flat(loaders), start=1))


def _flat(loaders: Any) -> list[Any]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [loader for several in loaders for loader in _flat(several)]
    return [loaders]


def _size(loader: Any) -> int | str:
    """The number of items (batches, if the loader has no dataset); ``NA`` if it is not known."""
    try:
        return len(getattr(loader, "dataset", loader))
    except (TypeError, NotImplementedError):
        return "NA"
