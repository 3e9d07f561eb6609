"""The search for a learning rate and a batch size before a run."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.batch_size_finder import BatchSizeFinder
from fulmen.callbacks.lr_finder import LearningRateFinder
from fulmen.tuner.bar import may_show
from fulmen.tuner.batch_size_scaling import (
    BatchSizeSearch,
    held_batch_size,
    refuse_processes,
    search_batch_size,
    tell_size,
)
from fulmen.tuner.holders import Hyperparameter
from fulmen.tuner.lr_finder import LRFinder, RangeTest, check, run_range_test
from fulmen.tuner.search import check_verb, datamodule_of, refuse_second_finder, searched
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.datamodule import LightningDataModule
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

_FINDERS = (BatchSizeFinder, LearningRateFinder)


class Tuner:
    """Searches hyperparameters by short trials, before a run.

    A search is made in memory and leaves nothing behind: the module, the data, the trainer, its callbacks and all
    random number generators are afterwards what they were, bit for bit, also if the search fails or is interrupted.
    Only the hyperparameter that was found is set.

    Args:
        trainer: runs the trials, with its devices, precision, accumulation and clipping, but without its loggers,
            checkpoints and validation.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def lr_find(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
        *,
        suggest_by: str = "steepest",
    ) -> LRFinder | None:
        """Train for some steps while the learning rate rises, and suggest a rate from the curve of the loss.

        Args:
            model: the module; it needs one optimizer, in automatic optimization.
            train_dataloaders: as for ``trainer.fit``.
            val_dataloaders: accepted, as for ``trainer.fit``; a range test does not validate.
            dataloaders: must be None.
            datamodule: as for ``trainer.fit``.
            method: ``"fit"``.
            min_lr: the first rate.
            max_lr: the last rate.
            num_training: how many optimizer steps the test has.
            mode: ``"exponential"``: each rate is the same multiple of the one before. ``"linear"``: each is larger by
                the same amount.
            early_stop_threshold: end the test when the smoothed loss is this many times its least. None: never.
            update_attr: set the suggested rate. False: only test.
            attr_name: the attribute to set, of the module, the datamodule or their hparams. Empty: ``lr`` or
                ``learning_rate``.
            suggest_by: which suggestion to set: ``"steepest"``, ``"valley"`` or ``"minimum/10"``
                (:meth:`fulmen.tuner.lr_finder.LRFinder.suggestion`).

        Returns:
            The curve. None with ``fast_dev_run``, which makes no test.

        Raises:
            AttributeError: nobody has the attribute that is to be set.
            MisconfigurationException: the module has no optimizer or optimizes by hand, or the arguments are for
                another method.
            ValueError: an argument is none of its allowed values, or a LearningRateFinder searches anyway.
        """
        loaders = check_verb("lr_find", method, train_dataloaders, val_dataloaders, dataloaders)
        test = RangeTest(min_lr, max_lr, num_training, mode, early_stop_threshold, suggest_by)
        trainer = self._trainer
        refuse_second_finder(trainer, LearningRateFinder, "lr_find")
        if trainer.fast_dev_run:
            rank_zero_warn("`tuner.lr_find` does nothing with `fast_dev_run`.")
            return None
        check(trainer, model)
        held = None
        if update_attr:
            names = (attr_name,) if attr_name else ("lr", "learning_rate")
            held = Hyperparameter(model, datamodule_of(trainer, loaders, datamodule), names, "learning rate")
        search = functools.partial(run_range_test, test=test, shows=may_show(trainer))
        found: LRFinder = searched(trainer, "fit", search, model, loaders, datamodule, _FINDERS)
        rate = found.suggestion(method=suggest_by) if held is not None and found.losses else None
        if held is not None and rate is not None:
            held.set(rate)
            rank_zero_info("learning rate %.3g, set in %s", rate, " and ".join(held.places))
        return found

    def scale_batch_size(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> int | None:
        """Search the largest batch size that fits into memory, and set it.

        Args:
            model: the module.
            train_dataloaders: must be None: loaders have their batch size already.
            val_dataloaders: as for ``trainer.fit``.
            dataloaders: must be None, likewise.
            datamodule: as for the trainer's methods.
            method: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
            mode: ``"power"``: double the size until memory runs out, and take the last one that fitted.
                ``"binsearch"``: then go on halfway between what fits and what does not.
            steps_per_trial: optimizer steps, or batches, of each trial.
            init_val: the first size.
            max_trials: end after so many trials.
            batch_arg_name: the attribute of the module, the datamodule or their hparams that the loaders are made with.
            margin: with ``"binsearch"``, take this fraction less than what fits.
            max_val: the largest size to try. The number of samples is never exceeded.

        Returns:
            The size that was set. None with ``fast_dev_run``, or if the trials were used up before one was found.

        Raises:
            MisconfigurationException: nobody has the attribute, or the loaders cannot be made with another size.
            RuntimeError: not even one sample fits; the error of the allocator.
            ValueError: an argument is none of its allowed values, there are several processes, or a BatchSizeFinder
                searches anyway.
        """
        verbs = ("fit", "validate", "test", "predict")
        loaders = check_verb("scale_batch_size", method, train_dataloaders, val_dataloaders, dataloaders, verbs)
        search = BatchSizeSearch(mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val)
        trainer = self._trainer
        refuse_second_finder(trainer, BatchSizeFinder, "scale_batch_size")
        refuse_processes(trainer, ValueError)
        if trainer.fast_dev_run:
            rank_zero_warn("`tuner.scale_batch_size` does nothing with `fast_dev_run`.")
            return None
        held = held_batch_size(model, datamodule_of(trainer, loaders, datamodule), search)
        run = functools.partial(search_batch_size, verb=method, search=search, held=held, shows=may_show(trainer))
        size: int | None = searched(trainer, method, run, model, loaders, datamodule, _FINDERS)
        if size is not None:
            held.set(size)
            tell_size(size, held)
        return size
