"""Average the weights at the ends of the last epochs, which are trained with a rate of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import SWALR

from fulmen.callbacks.averages import check_alike, copy_of_tensors, state_of, swap
from fulmen.callbacks.callback import Callback
from fulmen.core.optimizer import LRSchedulerConfig
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

_AVG_FN = Callable[[Tensor, Tensor, Tensor], Tensor]


class StochasticWeightAveraging(Callback):
    """Stochastic weight averaging: from some epoch on the rate goes to ``swa_lrs`` and stays there, and the weights at
    the end of each epoch are averaged. It does what a loop by hand does with ``torch.optim.swa_utils``.

    When training has ended, however it came to that, the module has the averages, and the statistics of its batch norms
    are made anew for them by one pass over the training data. Validation and the checkpoints of epochs have the weights
    of training; the state of this callback holds the average, and a run goes on exactly. A ModelCheckpoint writes one
    more file in the end, which has the averages as ``state_dict``.

    Args:
        swa_lrs: the rate to go to; a list has one for each parameter group.
        swa_epoch_start: the first epoch of the averaging, counted from 1 (int), or where it begins as a fraction of
            ``max_epochs`` (float from 0 to 1).
        annealing_epochs: in how many epochs the rate goes there; 0: at once.
        annealing_strategy: ``"cos"`` or ``"linear"``: along which curve.
        avg_fn: ``avg_fn(averaged, current, num_averaged)`` gives the new average of a parameter. None: the mean of all.
        device: where the averages are kept. None: on the module's device.

    Raises:
        MisconfigurationException: an argument has none of these values; or, when training begins, there is more than
            one optimizer or scheduler, optimization is manual, ``swa_epoch_start`` is a fraction though epochs are
            not limited, or the strategy spreads the parameters over the processes.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        avg_fn: _AVG_FN | None = None,
        device: torch.device | str | None = torch.device("cpu"),  # noqa: B008 - it cannot be changed
    ) -> None:
        rates = swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        if not rates or not all(type(rate) in (int, float) and rate > 0 for rate in rates):
            raise _wrong("swa_lrs", swa_lrs, "a positive number, or a list of one for each parameter group")
        if type(swa_epoch_start) is int:
            is_start = swa_epoch_start >= 1
        else:
            is_start = isinstance(swa_epoch_start, float) and 0 <= swa_epoch_start <= 1
        if not is_start:
            raise _wrong("swa_epoch_start", swa_epoch_start, "an epoch, from 1 on, or a fraction from 0.0 to 1.0")
        if type(annealing_epochs) is not int or annealing_epochs < 0:
            raise _wrong("annealing_epochs", annealing_epochs, "a whole number of epochs, from 0 on")
        if annealing_strategy not in ("cos", "linear"):
            raise _wrong("annealing_strategy", annealing_strategy, "'cos' or 'linear'")
        if avg_fn is not None and not callable(avg_fn):
            raise _wrong("avg_fn", avg_fn, "a function of the average, the weights, and how many were averaged")
        if device is not None and not isinstance(device, (torch.device, str)):
            raise _wrong("device", device, "a device, such as 'cpu', or None for that of the module")
        self._swa_lrs, self._swa_epoch_start = swa_lrs, swa_epoch_start
        self._annealing_epochs = annealing_epochs
        self._annealing_strategy: Literal["cos", "linear"] = annealing_strategy
        self._avg_fn = avg_fn or self.avg_fn
        self._device = device
        self.momenta: dict[_BatchNorm, float | None] = {}
        self._max_epochs = -1
        self._forget()

    def _forget(self) -> None:
        """A run begins."""
        self._start = 0
        self.n_averaged: Tensor | None = None  #: how many weights were averaged; None: the averaging has not begun
        self._average_model: nn.Module | None = None
        self._latest_update_epoch = -1  # at whose beginning the average was what it is
        self._swa_scheduler: SWALR | None = None
        self._scheduler_state: dict[str, Any] | None = None
        self._is_over = False  # the module has the averages, and `_average_model` the weights of training
        self._ended_as: dict[str, Any] | None = None  # the weights of the run that is to go on, if it had ended

    @property
    def swa_start(self) -> int:
        """The first epoch of the averaging, counted from 0; known when training begins."""
        return self._start

    @property
    def swa_end(self) -> int | float:
        """The last epoch of the averaging, counted from 0; infinite if epochs are not limited."""
        return float("inf") if self._max_epochs == -1 else self._max_epochs - 1

    # -- the run begins -----------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._forget()
        strategy = trainer.strategy
        if strategy.forward_is_collective or strategy.restores_optimizers:
            raise MisconfigurationException(
                f"StochasticWeightAveraging cannot average under {type(strategy).__name__}, which spreads the module "
                "over the processes. Write `Trainer(strategy='ddp')`, or `callbacks=WeightAveraging()`."
            )
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                "StochasticWeightAveraging replaces the scheduler, and in manual optimization the module steps its "
                "own. Use `callbacks=WeightAveraging()`, and torch.optim.swa_utils.SWALR in the module."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for kind, found in (("optimizer", trainer.optimizers), ("scheduler", trainer.lr_scheduler_configs)):
            if len(found) > 1:
                raise MisconfigurationException(
                    f"StochasticWeightAveraging works with one {kind}, and `configure_optimizers` returned "
                    f"{len(found)}. Return one, or use `callbacks=WeightAveraging()`, which leaves them alone."
                )
        groups = trainer.optimizers[0].param_groups
        if isinstance(self._swa_lrs, list) and len(self._swa_lrs) != len(groups):
            raise MisconfigurationException(
                f"StochasticWeightAveraging(swa_lrs={self._swa_lrs}) has {len(self._swa_lrs)} rates for "
                f"{len(groups)} parameter groups. Write one for each, or one number."
            )
        self._max_epochs, start = trainer.max_epochs, self._swa_epoch_start
        if isinstance(start, float):
            if self._max_epochs == -1:
                raise MisconfigurationException(
                    f"StochasticWeightAveraging(swa_epoch_start={start}) is a fraction of `max_epochs`, which is -1. "
                    "Write the number of an epoch, or limit the epochs."
                )
            start = int(self._max_epochs * start)
        self._start = max(start - 1, 0)
        if self._average_model is not None and self.n_averaged is not None:
            self._average_model.to(self._where(pl_module))
            self.n_averaged = self.n_averaged.to(self._where(pl_module))
        if self._scheduler_state is not None:  # which is restored in a moment
            self._replace_scheduler(trainer)

    def _where(self, pl_module: LightningModule) -> Any:
        return pl_module.device if self._device is None else self._device

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._swa_scheduler is None and trainer.current_epoch >= self._start:
            self._replace_scheduler(trainer)

    def _replace_scheduler(self, trainer: Trainer) -> None:
        self._swa_scheduler = SWALR(
            trainer.optimizers[0],
            swa_lr=self._swa_lrs,  # type: ignore[arg-type]  # it takes a list, too
            anneal_epochs=self._annealing_epochs,
            anneal_strategy=self._annealing_strategy,
        )
        for before in trainer.lr_scheduler_configs:
            rank_zero_info("%s takes the place of %s", "SWALR", type(before.scheduler).__name__)
        trainer.lr_scheduler_configs[:] = [LRSchedulerConfig(self._swa_scheduler)]

    # -- averaging ----------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        if self._swa_scheduler is None or epoch < self._latest_update_epoch:
            return
        if self._average_model is None or self.n_averaged is None:
            self._average_model = copy_of_tensors(pl_module, self._where(pl_module))
            self.n_averaged = torch.tensor(0, device=self._where(pl_module))
        check_alike(self._average_model, pl_module)
        self.update_parameters(self._average_model, pl_module, self.n_averaged, self._avg_fn)
        self._latest_update_epoch = epoch + 1

    @staticmethod
    def update_parameters(average_model: nn.Module, model: nn.Module, n_averaged: Tensor, avg_fn: _AVG_FN) -> None:
        """Let the parameters of ``model`` go into those of ``average_model``, and count that in ``n_averaged``."""
        with torch.no_grad():
            for averaged, current in zip(average_model.parameters(), model.parameters(), strict=True):
                current = current.detach().to(averaged.device)
                averaged.copy_(current if n_averaged == 0 else avg_fn(averaged.detach(), current, n_averaged))
            n_averaged += 1

    @staticmethod
    def avg_fn(averaged_model_parameter: Tensor, model_parameter: Tensor, num_averaged: Tensor) -> Tensor:
        """The mean of ``num_averaged`` weights and one more."""
        return averaged_model_parameter + (model_parameter - averaged_model_parameter) / (num_averaged + 1)

    @staticmethod
    def transfer_weights(src_pl_module: nn.Module, dst_pl_module: nn.Module) -> None:
        """Copy the parameters of one module into those of another."""
        with torch.no_grad():
            for source, target in zip(src_pl_module.parameters(), dst_pl_module.parameters(), strict=True):
                target.copy_(source)

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._average_model is None:
            return
        with torch.no_grad():  # parameters alone were averaged; buffers are those of the module
            for kept, current in zip(self._average_model.buffers(), pl_module.buffers(), strict=True):
                kept.copy_(current)
        swap(self._average_model, pl_module)
        self._is_over = True
        if self.pl_module_contains_batch_norm(pl_module):
            self.reset_batch_norm_and_save_state(pl_module)
            try:
                trainer._pass_over_training_data()
                self._share_statistics(trainer)
            finally:
                self.reset_momenta()
        for writer in trainer.checkpoint_callbacks:
            writer.save_again()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ended_as is not None and not self._is_over:  # nothing was trained, as the run had ended
            assert self._average_model is not None
            swap(self._average_model, pl_module)
            self._is_over = True
            pl_module.load_state_dict(self._ended_as)
        self._ended_as = None

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: nn.Module) -> bool:
        """Whether the module has a batch norm."""
        return any(isinstance(module, _BatchNorm) for module in pl_module.modules())

    def reset_batch_norm_and_save_state(self, pl_module: nn.Module) -> None:
        """Let the batch norms that are in training take the mean over all batches that follow, until
        :meth:`reset_momenta`.
        """
        self.momenta = {}
        for module in pl_module.modules():
            if not isinstance(module, _BatchNorm) or not module.training or not module.track_running_stats:
                continue
            if module.running_mean is not None:
                self.momenta[module] = module.momentum
                module.reset_running_stats()
                module.momentum = None

    def reset_momenta(self) -> None:
        """Give the batch norms the momentum that they had."""
        for module, momentum in self.momenta.items():
            module.momentum = momentum
        self.momenta = {}

    def _share_statistics(self, trainer: Trainer) -> None:
        """Give each process the mean over the batches of all."""
        if trainer.world_size == 1:
            return
        for module in self.momenta:
            own = module.num_batches_tracked
            assert own is not None
            count = trainer.strategy.reduce(own.double(), reduce_op="sum")
            if not count:  # it was in no batch of any process
                continue
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                statistic.copy_(trainer.strategy.reduce(statistic * own, reduce_op="sum") / count)
            own.copy_(count)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "n_averaged": 0 if self.n_averaged is None else int(self.n_averaged),
            "latest_update_epoch": self._latest_update_epoch,
            "scheduler_state": None if self._swa_scheduler is None else self._swa_scheduler.state_dict(),
            "average_model_state": None if self._average_model is None else self._average_model.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest_update_epoch = state_dict["latest_update_epoch"]
        self._scheduler_state = state_dict["scheduler_state"]
        if self._average_model is not None and self.n_averaged is not None:
            self._average_model.load_state_dict(state_dict["average_model_state"])
            self.n_averaged.fill_(state_dict["n_averaged"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._is_over or self._average_model is None or trainer._trained is None:
            return
        if trainer._trained() is pl_module:
            state = checkpoint["callbacks"][self.state_key]
            swap(self._average_model, pl_module)
            try:
                state["current_model_state"] = state_of(trainer, pl_module)
                average = self._average_model.state_dict()
                state["average_model_state"] = {name: value.clone() for name, value in average.items()}
            finally:
                swap(self._average_model, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if trainer.state.fn != "fit" or not state:
            return
        current = state.get("current_model_state")
        if current is not None:  # of a run that had ended
            self._ended_as = state_of(trainer, pl_module)
            trainer.strategy.load_model_state(pl_module, current, pl_module.strict_loading, str(trainer.ckpt_path))
        if state["n_averaged"] > 0:
            self._average_model = copy_of_tensors(pl_module, None)
            self.n_averaged = torch.tensor(0)


def _wrong(name: str, value: Any, right: str) -> MisconfigurationException:
    return MisconfigurationException(f"StochasticWeightAveraging({name}={value!r}): write {right}.")
