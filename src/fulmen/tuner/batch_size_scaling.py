"""The largest batch that fits into memory, found by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from fulmen.callbacks.callback import Callback
from fulmen.tuner.bar import Bar
from fulmen.tuner.holders import Hyperparameter
from fulmen.tuner.search import snapshot_of_run
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.memory import garbage_collection_cuda, is_oom_error
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

MODES = ("power", "binsearch")
#: the stage of the data, and the hook that gives its loaders, by verb
_STAGES = {"fit": "train", "validate": "validate", "test": "test", "predict": "predict"}
_HOOKS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


@dataclass(frozen=True, slots=True)
class BatchSizeSearch:
    """What a search does; arguments as :meth:`fulmen.tuner.tuning.Tuner.scale_batch_size`.

    Raises:
        ValueError: one of them is none of its allowed values.
    """

    mode: str = "power"
    steps_per_trial: int = 3
    init_val: int = 2
    max_trials: int = 25
    batch_arg_name: str = "batch_size"
    margin: float = 0.05
    max_val: int = 8192

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode={self.mode!r}`: must be 'power' or 'binsearch'.")
        for name in ("steps_per_trial", "init_val", "max_trials", "max_val"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}={value!r}`: must be a whole number from 1.")
        margin = self.margin
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < 1:
            raise ValueError(f"`margin={margin!r}`: must be a fraction from 0.0 to below 1.0.")


def held_batch_size(module: LightningModule, datamodule: Any, search: BatchSizeSearch) -> Hyperparameter:
    """Who holds the batch size.

    Raises:
        MisconfigurationException: nobody does.
    """
    try:
        held = Hyperparameter(module, datamodule, (search.batch_arg_name,), "batch size")
    except AttributeError as error:
        raise MisconfigurationException(str(error)) from None
    if len(set(map(repr, held.values))) > 1:
        values = ", ".join(f"{place} is {value!r}" for place, value in zip(held.places, held.values))
        rank_zero_warn(f"the batch size is held in several places, which differ: {values}. All of them are set.")
    return held


def search_batch_size(
    trainer: Trainer, verb: str, search: BatchSizeSearch, held: Hyperparameter, shows: bool
) -> int | None:
    """Find the size within a run of ``verb`` that is set up. Afterwards everything is as it was, also the batch size.

    Args:
        shows: draw a line that says how far it is.

    Returns:
        The size; None if the trials were used up before one was found that fits.

    Raises:
        MisconfigurationException: the loaders cannot be made with another batch size.
        RuntimeError: not even one sample fits; the error of the allocator.
    """
    if trainer.data.given.get(_STAGES[verb]) is not None:
        raise MisconfigurationException(
            f"the batch size of loaders that are passed to `{verb}` cannot be changed. Define "
            f"`{_HOOKS[verb]}_dataloader` in the module or in a LightningDataModule, with "
            f"`DataLoader(..., batch_size=self.{search.batch_arg_name})`."
        )
    with Bar("Batch size", None, shows) as bar:
        return _Search(trainer, verb, search, held, bar).run()


class _Search:
    """The trials, and what is known from them."""

    def __init__(self, trainer: Trainer, verb: str, search: BatchSizeSearch, held: Hyperparameter, bar: Bar) -> None:
        self._trainer, self._verb, self._search, self._held, self._bar = trainer, verb, search, held, bar
        self._before = snapshot_of_run(trainer)
        self._tried = 0
        self._most: float = search.max_val  #: a larger one is of no use
        self._fits = self._too_large = 0  # the largest that fits, the smallest that does not; 0: not known
        self._seen: dict[tuple[Any, ...], int] = {}  # the sizes of the loaders' batches: for which size that was tried

    def run(self) -> int | None:
        size: int | None = self._search.init_val
        for _ in range(self._search.max_trials):
            if size is None:
                break
            if self._trainer.signals.request is not None:  # the run ends in a moment
                return None
            self._tried = min(size, int(self._most))
            self._try()
            size = self._next()
        if not self._fits:
            rank_zero_warn(
                f"no batch size was found that fits: {self._too_large} is the smallest of "
                f"{self._search.max_trials} that were tried. Write a smaller `init_val`, or a larger `max_trials`."
            )
            return None
        if self._search.mode == "binsearch":
            return max(1, int(self._fits * (1 - self._search.margin)))
        return self._fits

    def _next(self) -> int | None:
        """The size to try next; None if the search is over."""
        if not self._too_large:
            return None if self._tried >= self._most else 2 * self._tried
        if not self._fits:
            return self._too_large // 2
        if self._search.mode == "power" or self._too_large - self._fits == 1:
            return None
        return (self._fits + self._too_large) // 2

    def _try(self) -> None:
        """Make a trial, and note whether its size fits."""
        fits = True
        try:
            self._trial()
        except Exception as error:
            if not is_oom_error(error):
                raise
            if self._tried == 1:
                error.add_note(
                    f"That was in a trial of `{self._verb}` with `{self._held.name}=1`: not even one sample fits. Use "
                    "a smaller model, shorter samples, or `Trainer(precision='bf16-mixed')`."
                )
                raise
            fits = False
        finally:
            self._before.restore()
        self._bar.advance(size=self._tried, fits="yes" if fits else "no")
        if fits:
            self._fits = max(self._fits, self._tried)
        else:
            garbage_collection_cuda()  # only now: the frames of the error held what had filled the memory
            self._too_large = self._tried

    def _trial(self) -> None:
        size = self._tried
        self._held.set(size)
        with self._trainer._trial(self._verb, self._search.steps_per_trial, [_Listener()]) as run:
            if size <= self._look_at_loaders(size):
                run()
                return
        self._before.restore()
        self._tried = int(self._most)  # all samples, which are fewer
        self._trial()

    def _look_at_loaders(self, size: int) -> float:
        """The largest size that is of use with the loaders of this trial, which were made with ``size``."""
        loaders = self._trainer.data.loaders[_STAGES[self._verb]]
        if self._verb != "fit" and len(loaders.sources) > 1:
            raise MisconfigurationException(
                f"the batch size of `{self._verb}` can be searched for one loader, and "
                f"`{_HOOKS[self._verb]}_dataloader` gives {len(loaders.sources)}. Return one of them for the search."
            )
        self._check_use(size, tuple(_batch_size(source.loader) for source in loaders.sources))
        lengths = [length for source in loaders.sources if (length := _length(source.loader)) is not None]
        if lengths:
            self._most = min(self._most, max(1, *lengths))
        return self._most

    def _check_use(self, size: int, sizes: tuple[Any, ...]) -> None:
        """Refuse loaders that do not care.

        Raises:
            MisconfigurationException: their batches are as large as with another size.
        """
        other = self._seen.setdefault(sizes, size)
        if other != size and sizes and None not in sizes:
            hook, name = f"{_HOOKS[self._verb]}_dataloader", self._held.name
            raise MisconfigurationException(
                f"`{hook}` does not use `{name}`: its batches have {sizes[0]} samples with {name}={other} and with "
                f"{name}={size}. Write `DataLoader(..., batch_size=self.{name})` there."
            )


class _Listener(Callback):
    """Ends a trial when the run is asked to end."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.signals.request is not None:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.progress.batches_done == 0:  # skipped as a whole, and so would be the next one
            trainer.should_stop = True


def _length(loader: Any) -> int | None:
    """Samples in the data set; None where that is unknown."""
    if not isinstance(loader, DataLoader) or has_iterable_dataset(loader):
        return None
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def _batch_size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None)
    return size if size is not None else getattr(getattr(loader, "batch_sampler", None), "batch_size", None)


def tell_size(size: int, held: Hyperparameter) -> None:
    """Say where the size went."""
    rank_zero_info("batch size %d, set in %s", size, " and ".join(held.places))


def refuse_processes(trainer: Trainer, error: type[Exception]) -> None:
    """Refuse to search with several processes.

    Raises:
        Exception: of the type ``error``.
    """
    if trainer.world_size > 1:
        raise error(
            f"the batch size cannot be searched with {trainer.world_size} processes: where one runs out of memory, the "
            "others wait for its gradients for ever. Search with one process, `Trainer(devices=1)`, and give each the "
            "size that was found."
        )
