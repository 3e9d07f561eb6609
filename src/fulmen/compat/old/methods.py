"""Attributes and methods that objects had in Lightning 1, and methods that took other arguments then."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.data import DataLoader

from fulmen.callbacks.callback import Callback
from fulmen.compat.old.messages import tell
from fulmen.core.hparams import HyperparameterOwner
from fulmen.core.module import LightningModule
from fulmen.trainer.trainer import Trainer
from fulmen.tuner.tuning import Tuner


class Former:
    """An attribute that went. What an object sets for itself under its name wins.

    Args:
        what: its name, as users write it.
        today: what to write.
        read: gives its value.
    """

    def __init__(self, what: str, today: str, read: Callable[[Any], Any]) -> None:
        self._what, self._today, self._read = what, today, read

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        tell(f"`{self._what}`", f"Write `{self._today}`.")
        return self._read(owner)


def _is_of_optimizer(value: Any) -> bool:
    return hasattr(value, "param_groups")


# -- attributes of the trainer ----------------------------------------------------------------------------------------


def _number_of_gpus(trainer: Trainer) -> int:
    return trainer.num_devices if trainer.strategy.root_device.type == "cuda" else 0


def _as_dicts(trainer: Trainer) -> list[dict[str, Any]]:
    names = ("scheduler", "interval", "frequency", "reduce_on_plateau", "monitor", "strict", "name")
    return [{name: getattr(config, name) for name in names} for config in trainer.lr_scheduler_configs]


_OF_TRAINER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "batch_idx": ("batch_idx, which hooks get", lambda t: t.progress.batch_idx),
    "disable_validation": ("not trainer.enable_validation", lambda t: not t.enable_validation),
    "gpus": ("trainer.num_devices", _number_of_gpus),
    "lightning_optimizers": ("module.optimizers()", lambda t: dict(enumerate(t.wrapped_optimizers))),
    "lr_schedulers": ("trainer.lr_scheduler_configs", _as_dicts),
    "num_gpus": ("trainer.num_devices", _number_of_gpus),
    "num_processes": ("trainer.num_devices", lambda t: t.num_devices),
    "on_gpu": ("module.device.type == 'cuda'", lambda t: t.strategy.root_device.type == "cuda"),
    "progress_bar_dict": ("trainer.progress_bar_metrics", lambda t: t.progress_bar_metrics),
    "root_gpu": ("trainer.strategy.root_device.index", lambda t: t.strategy.root_device.index),
    "running_sanity_check": ("trainer.sanity_checking", lambda t: t.sanity_checking),
    "total_batch_idx": ("trainer.global_step", lambda t: t.progress.total_batches - (not t.progress.in_epoch)),
    "train_loop": ("trainer.fit_loop", lambda t: t.fit_loop),
    "training_type_plugin": ("trainer.strategy", lambda t: t.strategy),
    "tuner": ("Tuner(trainer)", lambda trainer: FormerTuner(trainer)),
    "use_amp": ("trainer.precision", lambda t: t.precision.endswith("mixed")),
    "use_ddp": ("trainer.strategy", lambda t: t.world_size > 1),
    "weights_save_path": ("trainer.default_root_dir", lambda t: t.default_root_dir),
}


class FormerTuner(Tuner):
    """The tuner as ``trainer.tuner`` had it: it searches, and sets nothing unless it is asked to."""

    def lr_find(self, model: LightningModule, *args: Any, update_attr: bool = False, **kwargs: Any) -> Any:
        """Search a rate; arguments as in :meth:`fulmen.tuner.tuning.Tuner.lr_find`."""
        return super().lr_find(model, *args, **_modern(kwargs), update_attr=update_attr)

    def scale_batch_size(self, model: LightningModule, *args: Any, **kwargs: Any) -> Any:
        """Search a batch size; arguments as in :meth:`fulmen.tuner.tuning.Tuner.scale_batch_size`."""
        return super().scale_batch_size(model, *args, **_modern(kwargs))


def _modern(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {{"train_dataloader": "train_dataloaders"}.get(name, name): value for name, value in kwargs.items()}


def _find_rate(trainer: Trainer, model: LightningModule, *args: Any, **kwargs: Any) -> Any:
    tell("`trainer.lr_find(model)`", "Write `Tuner(trainer).lr_find(model)`.")
    return FormerTuner(trainer).lr_find(model, *args, **kwargs)


# -- methods with other arguments -------------------------------------------------------------------------------------


def _optimizer_step(today: Callable[..., Any]) -> Callable[..., Any]:
    """``super().optimizer_step(epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, ...)``."""

    @functools.wraps(today)
    def optimizer_step(self: Any, epoch: int, batch_idx: int, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        closure = kwargs.get("optimizer_closure", next((value for value in args if callable(value)), None))
        return today(self, epoch, batch_idx, optimizer, closure)

    return optimizer_step


def _zero_grad(today: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(today)
    def optimizer_zero_grad(self: Any, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int = 0) -> Any:
        optimizer.zero_grad()  # as that of today does, which is called with each step

    return optimizer_zero_grad


def _clipping(today: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(today)
    def configure_gradient_clipping(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) == 3 or "optimizer_idx" in kwargs:
            args = args if kwargs.pop("optimizer_idx", None) is not None else args[1:]
        return today(self, optimizer, *args, **kwargs)

    return configure_gradient_clipping


def _scheduler_step(today: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(today)
    def lr_scheduler_step(self: Any, scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        return today(self, scheduler, kwargs["metric"] if "metric" in kwargs else args[-1])

    return lr_scheduler_step


def _backward(today: Callable[..., Any]) -> Callable[..., Any]:
    """``super().backward(loss, optimizer, optimizer_idx)`` and ``self.manual_backward(loss, optimizer)``."""

    @functools.wraps(today)
    def backward(self: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        if args and (_is_of_optimizer(args[0]) or args[0] is None):
            args = args[2:]
        for name in ("optimizer", "optimizer_idx"):
            kwargs.pop(name, None)
        return today(self, loss, *args, **kwargs)

    return backward


def _toggling(today: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(today)
    def toggle(self: Any, optimizer: Any, optimizer_idx: int = 0) -> Any:
        return today(self, optimizer)

    return toggle


def _hook(today: Callable[..., Any], number: int) -> Callable[..., Any]:
    """``super().on_train_batch_end(..., dataloader_idx)`` of a hook that takes ``number`` arguments now."""

    @functools.wraps(today)
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("outputs" if today.__name__.endswith("epoch_end") else "dataloader_idx", None)
        return today(self, *args[:number], **kwargs)

    return hook


_OF_MODULE: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "optimizer_step": _optimizer_step,
    "optimizer_zero_grad": _zero_grad,
    "configure_gradient_clipping": _clipping,
    "lr_scheduler_step": _scheduler_step,
    "backward": _backward,
    "manual_backward": _backward,
    "toggle_optimizer": _toggling,
}


def _progress_bar_dict(module: LightningModule) -> dict[str, Any]:
    tell("`module.get_progress_bar_dict()`", "Write `trainer.progress_bar_callback.get_metrics(trainer, module)`.")
    return dict(module.trainer.progress_bar_metrics)


# -- hyperparameters --------------------------------------------------------------------------------------------------


def _assign_hparams(owner: HyperparameterOwner, value: Any) -> None:
    """``self.hparams = hparams``."""
    if not isinstance(value, Mapping) and not hasattr(value, "__dict__"):
        raise TypeError(
            f"`{type(owner).__name__}.hparams` was set to {value!r}, which is no collection of hyperparameters. Give a "
            "dict or an `argparse.Namespace`, by `self.save_hyperparameters(hparams)`."
        )
    tell(f"`{type(owner).__name__}.hparams = ...`", "Write `self.save_hyperparameters(hparams)`.")
    owner.save_hyperparameters(value, frame=sys._getframe(2))


def replacements() -> list[tuple[Any, str, Any]]:
    """What classes get: the owner, the name and the value."""
    found: list[tuple[Any, str, Any]] = []
    for name, (today, read) in _OF_TRAINER.items():
        line = today if " " in today or "(" in today or today.startswith(("trainer", "module")) else f"trainer.{today}"
        found.append((Trainer, name, Former(f"trainer.{name}", line, read)))
    found.append((Trainer, "lr_find", _find_rate))
    found += [(LightningModule, name, wrap(getattr(LightningModule, name))) for name, wrap in _OF_MODULE.items()]
    for name, number in (("on_train_batch_start", 4), ("on_train_batch_end", 5), ("on_train_epoch_end", 2)):
        found.append((Callback, name, _hook(getattr(Callback, name), number)))
        found.append((LightningModule, name, _hook(getattr(LightningModule, name), number - 2)))
    found.append((LightningModule, "get_progress_bar_dict", _progress_bar_dict))
    found.append((HyperparameterOwner, "_assign_hparams", _assign_hparams))
    found.append((HyperparameterOwner, "_pickles_hparams", True))  # as in all files of Lightning
    today = "trainer.train_dataloader"
    found.append((DataLoader, "loaders", Former("trainer.train_dataloader.loaders", today, lambda loader: loader)))
    return found
