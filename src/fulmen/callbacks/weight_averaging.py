"""Average the weights while training: over all steps, or with ever less weight for older ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from fulmen.callbacks.averages import averaged_model, check_alike, non_persistent_buffers, state_of, swap
from fulmen.callbacks.callback import Callback
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

#: what AveragedModel is given by the callback itself
_GIVEN = ("self", "model", "device", "use_buffers")


class WeightAveraging(Callback):
    """Averages the weights with ``torch.optim.swa_utils.AveragedModel``, after each optimizer step unless
    :meth:`should_update` says otherwise.

    From the first update on, validation runs with the averages, checkpoints have them as ``state_dict``, and the module
    has them when training has ended. Training itself goes on with its own weights, and a run that is resumed goes on
    exactly: these are in the checkpoint, too, as ``current_model_state``, and ``averaging_state`` says how many were
    averaged. Before the first update there is no average, and the weights are those of training.

    Args:
        device: where the averages are kept. None: on the module's device.
        use_buffers: average the buffers, too. False: the averages come with the buffers of the module at the last
            update; the statistics of batch norms then belong to other weights, which
            ``torch.optim.swa_utils.update_bn(loader, model)`` sets right after training.
        **kwargs: further arguments of AveragedModel: ``avg_fn(averaged, current, num_averaged)`` for each tensor, or
            ``multi_avg_fn`` for lists of them. None of them: the mean of all.

    Raises:
        TypeError: AveragedModel has no such argument.
        MisconfigurationException: ``avg_fn`` and ``multi_avg_fn`` are both given; or, when training begins, the
            strategy keeps the weights where they cannot be exchanged.
    """

    def __init__(self, device: torch.device | str | int | None = None, use_buffers: bool = True, **kwargs: Any) -> None:
        known = [name for name in inspect.signature(AveragedModel.__init__).parameters if name not in _GIVEN]
        for name, value in kwargs.items():
            if name not in known:
                raise TypeError(
                    f"{type(self).__name__}({name}={value!r}): there is no such argument. Besides its own it has those "
                    f"of AveragedModel: {', '.join(known)}."
                )
        for name in ("avg_fn", "multi_avg_fn"):
            if kwargs.get(name) is not None and not callable(kwargs[name]):
                raise TypeError(f"{type(self).__name__}({name}={kwargs[name]!r}): write a function, or leave it out.")
        if kwargs.get("avg_fn") is not None and kwargs.get("multi_avg_fn") is not None:
            raise MisconfigurationException(
                f"{type(self).__name__} was given `avg_fn` and `multi_avg_fn`, which both say how to average. Pass one."
            )
        self._device = torch.device(device) if isinstance(device, str) else device
        self._use_buffers = use_buffers
        self._kwargs = kwargs
        self._forget()

    def _forget(self, step: int = 0, epoch: int = 0) -> None:
        """A run begins after ``step`` steps and ``epoch`` epochs: nothing of it is averaged."""
        self._average_model: AveragedModel | None = None  # from the first update on
        self._is_checked = False
        self._is_swapped = False  # the module has the averages, and `_average_model` the weights of training
        self._is_over = False  # and keeps them, as training has ended
        self._latest_update_step, self._latest_update_epoch = step, epoch - 1
        self._latest_step = step  # the last that `should_update` was asked about
        self._to_load: Callable[[], None] | None = None  # when the module is spread over the processes
        self._buffers: dict[str, Tensor] = {}  # of the averages; those that no `state_dict` has

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether to update the averages now. Override this to say when; the default is after every optimizer step.

        Args:
            step_idx: the optimizer step that was made, from 0. None: an epoch has ended. Asked once for each step.
            epoch_idx: the epoch that has ended, from 0. None: a step was made.
        """
        return step_idx is not None

    @contextmanager
    def averaged_weights(self, pl_module: LightningModule) -> Generator[None, None, None]:
        """Within, the module has the averaged weights, if there are any yet. What changes them there stays changed."""
        if self._average_model is None or self._is_swapped:
            yield
            return
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    # -- while it trains ----------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._forget(trainer.global_step, trainer.current_epoch)
        if trainer.strategy.restores_optimizers:
            raise MisconfigurationException(
                f"{type(self).__name__} cannot average under {type(trainer.strategy).__name__}, which has copies "
                "of its own of the weights. Write `Trainer(strategy='fsdp')` or `'ddp'`."
            )
        if self._device is not None and trainer.strategy.forward_is_collective:
            raise MisconfigurationException(
                f"{type(self).__name__}(device={str(self._device)!r}) under {type(trainer.strategy).__name__}: each "
                "process keeps the averages of the parts of parameters that it has, where they are. Leave `device` out."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._to_load is not None:
            self._to_load()
            self._to_load = None
        elif self._average_model is not None:
            self._average_model.to(self._where(trainer, pl_module))

    def _where(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        if trainer.strategy.forward_is_collective:
            return None
        return self._device if self._device is not None else pl_module.device

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_checked = False  # hooks of the epoch's start may have changed what there is to average

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._after_step(trainer, pl_module)

    def _after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step > self._latest_step:
            self._latest_step = step
            if self.should_update(step_idx=step - 1):
                self._update(trainer, pl_module)
                self._latest_update_step = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch > self._latest_update_epoch and self.should_update(epoch_idx=epoch):
            self._update(trainer, pl_module)
            self._latest_update_epoch = epoch

    def _update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.settle_weights(pl_module)
        if self._average_model is None:
            self._average_model = self._new_average(pl_module, self._where(trainer, pl_module))
        elif not self._is_checked:
            check_alike(self._average_model.module, pl_module)
        self._is_checked = True
        self._average_model.update_parameters(pl_module)

    def _new_average(self, pl_module: LightningModule, device: Any) -> AveragedModel:
        return averaged_model(pl_module, device, use_buffers=self._use_buffers, **self._kwargs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_over = True
        if self._average_model is not None:
            self._swap(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_over:  # the run that was to go on had ended, so that nothing was trained
            self.on_train_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._average_model is not None and not trainer.strategy.forward_is_collective:
            self._average_model.cpu()  # where the module is now

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._average_model is not None and not self._is_swapped:
            self._swap(pl_module)
            trainer.strategy.on_validation_start()  # the averages of buffers, too, are to be alike in all processes

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._swap_back(pl_module)

    def _swap_back(self, pl_module: LightningModule) -> None:
        if self._is_swapped and not self._is_over:
            self._swap(pl_module)

    def _swap(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        swap(self._average_model.module, pl_module)
        self._is_swapped = not self._is_swapped

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "latest_update_step": self._latest_update_step,
            "latest_update_epoch": self._latest_update_epoch,
            "latest_step": self._latest_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest_update_step = state_dict["latest_update_step"]
        self._latest_update_epoch = state_dict.get("latest_update_epoch", self._latest_update_epoch)
        self._latest_step = state_dict.get("latest_step", self._latest_step)
        self._buffers = state_dict.get("buffers", {})
        self._put_buffers()

    def _put_buffers(self) -> None:
        if self._average_model is not None:
            own = non_persistent_buffers(self._average_model.module)
            for name, value in self._buffers.items():
                if name in own:
                    own[name].copy_(value)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not _was_fitted(trainer, pl_module):
            return
        if trainer.progress.batch_is_open and not self._is_swapped:  # a callback saves that is called before this one
            self._after_step(trainer, pl_module)
            checkpoint["callbacks"][self.state_key] = self.state_dict()
        average, state = self._average_model, checkpoint["state_dict"]
        if average is None:
            checkpoint["current_model_state"] = state
            checkpoint["averaging_state"] = {"n_averaged": torch.tensor(0)}
            return
        in_module = non_persistent_buffers(pl_module), state
        self._swap(pl_module)
        try:
            other = {name: buffer.clone() for name, buffer in non_persistent_buffers(pl_module).items()}
            in_average = other, state_of(trainer, pl_module)
        finally:
            self._swap(pl_module)
        (buffers, averaged), (_, current) = (in_module, in_average) if self._is_swapped else (in_average, in_module)
        checkpoint["state_dict"], checkpoint["current_model_state"] = averaged, current
        checkpoint["averaging_state"] = {
            name: value for name, value in average.state_dict().items() if not name.startswith("module.")
        }
        if buffers:
            checkpoint["callbacks"][self.state_key]["buffers"] = buffers

    def _on_save_weights(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None and not self._is_swapped and _was_fitted(trainer, pl_module):
            with self.averaged_weights(pl_module):
                checkpoint["state_dict"] = state_of(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":  # the module has got the averages, with which it is to run
            return
        state, current = checkpoint.get("averaging_state"), checkpoint.get("current_model_state")
        if not isinstance(state, dict) or not isinstance(state.get("n_averaged"), Tensor) or current is None:
            self._latest_step = self._latest_update_step = checkpoint["global_step"]
            self._latest_update_epoch = checkpoint["epoch"] - 1
            rank_zero_warn(
                f"{trainer.ckpt_path} is of a run that averaged no weights: {type(self).__name__} begins with those "
                "that follow."
            )
            return

        def load() -> None:
            if state["n_averaged"] > 0:  # the module has got the averages
                self._average_model = self._new_average(pl_module, self._where(trainer, pl_module))
                self._average_model.load_state_dict(state, strict=False)
                self._put_buffers()
            trainer.strategy.load_model_state(pl_module, current, pl_module.strict_loading, str(trainer.ckpt_path))

        if trainer.strategy.forward_is_collective:
            self._to_load = load
        else:
            load()


def _was_fitted(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Whether it is the module that the trainer trains, or has trained."""
    return trainer._trained is not None and trainer._trained() is pl_module


class EMAWeightAveraging(WeightAveraging):
    """Averages with ever less weight for older weights: ``decay * average + (1 - decay) * weights`` after each update.

    Args:
        device: where the averages are kept. None: on the module's device.
        use_buffers: average the buffers, too, as in :class:`WeightAveraging`.
        decay: how much of the average stays at an update, from 0 to 1.
        update_every_n_steps: update after the steps 0, n, 2n, ...; 0: after no step.
        update_starting_at_step: after no step before this one, which is counted from 0. None: from the first.
        update_starting_at_epoch: update at the end of each epoch, too, from this one on, counted from 0. None: not. It
            does not hold back the updates after steps.
        **kwargs: further arguments of AveragedModel.

    Raises:
        ValueError: ``decay`` is not from 0 to 1.
        MisconfigurationException: ``update_every_n_steps`` is negative, or an argument contradicts another.
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("avg_fn", "multi_avg_fn"):
            if kwargs.get(name) is not None:
                raise MisconfigurationException(
                    f"EMAWeightAveraging({name}=...) contradicts `decay`, which says how to average. Write "
                    f"`WeightAveraging({name}=...)`."
                )
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay <= 1:
            raise ValueError(f"EMAWeightAveraging(decay={decay!r}): write a number from 0 to 1, such as 0.999.")
        if type(update_every_n_steps) is not int or update_every_n_steps < 0:
            raise MisconfigurationException(
                f"EMAWeightAveraging(update_every_n_steps={update_every_n_steps!r}): write a whole number from 1 on, "
                "or 0 to update at the end of epochs alone."
            )
        super().__init__(device=device, use_buffers=use_buffers, **{**kwargs, "avg_fn": get_ema_avg_fn(decay=decay)})
        self.decay = decay
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is not None:
            first, every = self.update_starting_at_step, self.update_every_n_steps
            return every > 0 and step_idx % every == 0 and (first is None or step_idx >= first)
        first = self.update_starting_at_epoch
        return epoch_idx is not None and first is not None and epoch_idx >= first
