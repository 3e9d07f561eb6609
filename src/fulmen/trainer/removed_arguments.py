"""The Trainer's arguments of Lightning 1, and how each is written now. Loaded when one of them is met."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fulmen.accelerators.registry import AcceleratorRegistry
from fulmen.strategies.registry import StrategyRegistry
from fulmen.trainer.environment import has_former_value
from fulmen.utilities.imports import package_available
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown
from fulmen.utilities.warnings import LightningDeprecationWarning

if TYPE_CHECKING:
    from fulmen.callbacks.callback import Callback
    from fulmen.core.datamodule import LightningDataModule
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

#: today's arguments, or the line to write where there is no argument that does the same
_Modern = dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class Former:
    """An argument that Lightning 1 had.

    Attributes:
        kinds: what its option takes.
        default: its value if it was not written, which asks for nothing.
        modern: from its value and all arguments to today's.
    """

    kinds: tuple[type, ...]
    default: Any
    modern: Callable[[Any, Mapping[str, Any]], _Modern]


@dataclass(frozen=True, slots=True)
class Written:
    """A callback, and how it is written."""

    text: str
    callback: Callback


def _line(text: str) -> Callable[[Any, Mapping[str, Any]], _Modern]:
    """There is no argument that does the same: the line to write, in which ``{value}`` is what was given."""
    return lambda value, given: text.format(value=shown(value))


def renamed(name: str) -> Callable[[Any, Mapping[str, Any]], _Modern]:
    """It has another name now."""
    return lambda value, given: {name: value}


def ignored(value: Any, given: Mapping[str, Any]) -> _Modern:
    """Nothing needs to be written for it."""
    return {}


# -- where it runs ----------------------------------------------------------------------------------------------------


_NO_GPUS = (None, 0, "0", "", [], ())


def _gpus(value: Any, given: Mapping[str, Any]) -> _Modern:
    if value in _NO_GPUS:
        return {"accelerator": "cpu"}
    if given.get("auto_select_gpus") and isinstance(value, int):
        from fulmen.accelerators.cuda import find_usable_cuda_devices

        value = find_usable_cuda_devices(value)
    return {"accelerator": "gpu", "devices": value}


def _processes(value: Any, given: Mapping[str, Any]) -> _Modern:
    if value == 1 or given.get("gpus") not in _NO_GPUS or given.get("tpu_cores"):  # one process for each of those
        return {}
    return {"accelerator": "cpu", "devices": value}


def _accelerator(value: Any, given: Mapping[str, Any]) -> _Modern:
    """``accelerator`` and ``distributed_backend`` once chose the strategy."""
    if value in AcceleratorRegistry:  # a user's own, of that name
        return {"accelerator": value}
    if value is None:  # beside an argument of that time it left the choice to it; alone it is a mistake
        return {} if given.keys() & FORMER.keys() else {"accelerator": None}
    if value == "ddp_cpu":
        return {"accelerator": "cpu", "strategy": "ddp_spawn"}
    return _strategy(value, given)


def _strategy(value: Any, given: Mapping[str, Any]) -> _Modern:
    if value is None:
        return {}
    if value == "fsdp_native":
        return {"strategy": "fsdp"}
    instead = {
        "dp": "`strategy='ddp'`, which has a process for each device",
        "ddp2": "`strategy='ddp'`, which has a process for each device",
        "horovod": "`strategy='ddp'`, and start it with torchrun",
        "bagua": "`strategy='ddp'`",
        "ddp_sharded": "`strategy='fsdp'`",
        "ddp_sharded_spawn": "`strategy='fsdp'`",
    }
    return {"strategy": value} if value in StrategyRegistry or value not in instead else instead[value]


# -- who listens ------------------------------------------------------------------------------------------------------


def _progress_bar(value: Any, given: Mapping[str, Any]) -> _Modern:
    rate, position = given.get("progress_bar_refresh_rate"), given.get("process_position") or 0
    if rate == 0:
        return {"enable_progress_bar": False}
    if (rate is None and not position) or not package_available("tqdm"):  # the bar by default needs neither
        return {}
    from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar

    arguments = {"refresh_rate": rate, "process_position": position}
    arguments = {name: number for name, number in arguments.items() if number}
    return {"callbacks": [written_callback(TQDMProgressBar, **arguments)]}


def _position_of_bar(value: Any, given: Mapping[str, Any]) -> _Modern:
    return {} if given.get("progress_bar_refresh_rate") is not None else _progress_bar(value, given)


def _checkpoint_callback(value: Any, given: Mapping[str, Any]) -> _Modern:
    if isinstance(value, (bool, type(None))):
        return {"enable_checkpointing": value}
    return {"callbacks": [Written(f"{type(value).__name__}(...)", value)]}


def _weights_summary(value: Any, given: Mapping[str, Any]) -> _Modern:
    if value is None:
        return {"enable_model_summary": False}
    if value == "top":
        return {}
    if value != "full":
        return "`callbacks=ModelSummary(max_depth=...)`"
    from fulmen.callbacks.model_summary import ModelSummary

    return {"callbacks": [written_callback(ModelSummary, max_depth=-1)]}


def _terminate_on_nan(value: Any, given: Mapping[str, Any]) -> _Modern:
    if not value:
        return {}
    from fulmen.callbacks.nonfinite_guard import NonFiniteGuard

    return {"callbacks": [written_callback(NonFiniteGuard)]}


def written_callback(kind: type[Callback], **arguments: Any) -> Written:
    """A callback that does it now."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return Written(f"{kind.__name__}({text})", kind(**arguments))


# -- the table --------------------------------------------------------------------------------------------------------

#: what the constructor was told and a verb, or the Tuner, is told now
LATER = {
    "resume_from_checkpoint": "`trainer.fit(model, ckpt_path={value})`",
    "auto_scale_batch_size": "`Tuner(trainer).scale_batch_size(model)` (from fulmen.tuner) before `fit`",
    "auto_lr_find": "`Tuner(trainer).lr_find(model)` (from fulmen.tuner) before `fit`",
}

FORMER: dict[str, Former] = {
    "amp_backend": Former((str,), None, lambda v, _: {} if v == "native" else "`precision='16-mixed'`"),
    "amp_level": Former((str,), None, _line("`precision='16-mixed'`")),
    "auto_lr_find": Former((bool, str), False, ignored),
    "auto_scale_batch_size": Former((bool, str), False, ignored),
    "auto_select_gpus": Former((bool,), False, lambda v, given: {} if given.get("gpus") else "`devices='auto'`"),
    "checkpoint_callback": Former((bool,), None, _checkpoint_callback),
    "distributed_backend": Former((str,), None, _accelerator),
    "flush_logs_every_n_steps": Former(
        (int,), None, lambda v, _: {} if v == 100 else f"`logger=CSVLogger('logs', flush_logs_every_n_steps={v})`"
    ),
    "gpus": Former((int, str), None, _gpus),
    "ipus": Former((int,), None, _line("`accelerator='auto'`: IPUs are not supported")),
    "log_gpu_memory": Former((str,), None, _line("`Trainer(callbacks=[DeviceStatsMonitor()])`")),
    "move_metrics_to_cpu": Former((bool,), False, _line("`self.log(name, value.cpu())` in the module")),
    "multiple_trainloader_mode": Former(
        (str,), "max_size_cycle", _line("`return CombinedLoader(loaders, {value})` in `train_dataloader`")
    ),
    "num_processes": Former((int,), 1, _processes),
    "prepare_data_per_node": Former(
        (bool,), None, lambda v, _: {} if v else "`prepare_data_per_node = False` in the class of the datamodule"
    ),
    "process_position": Former((int,), 0, _position_of_bar),
    "progress_bar_refresh_rate": Former((int,), None, _progress_bar),
    "reload_dataloaders_every_epoch": Former(
        (bool,), False, lambda v, _: {"reload_dataloaders_every_n_epochs": 1} if v else {}
    ),
    "replace_sampler_ddp": Former((bool,), True, renamed("use_distributed_sampler")),
    "resume_from_checkpoint": Former((str,), None, ignored),
    "stochastic_weight_avg": Former(
        (bool,), False, _line("`callbacks=StochasticWeightAveraging(swa_lrs=...)`, with the rate of the last epochs")
    ),
    "terminate_on_nan": Former((bool,), None, _terminate_on_nan),
    "tpu_cores": Former((int, str), None, lambda v, _: {"accelerator": "tpu", "devices": v}),
    "track_grad_norm": Former(
        (float, str),
        -1,
        _line("`self.log_dict(grad_norm(self, norm_type={value}))` in `on_before_optimizer_step` of the module"),
    ),
    "truncated_bptt_steps": Former((int,), None, _line("manual optimization")),
    "weights_save_path": Former((str,), None, _line("`callbacks=ModelCheckpoint(dirpath={value})`")),
    "weights_summary": Former((str, type(None)), "top", _weights_summary),
}
#: known arguments with a value of that time
VALUES: dict[str, Callable[[Any, Mapping[str, Any]], _Modern]] = {
    "accelerator": _accelerator,
    "strategy": _strategy,
    "devices": ignored,
    "max_steps": lambda value, given: {"max_steps": -1},
}
#: for the command line: types and defaults
OPTIONS = {name: (former.kinds, former.default) for name, former in FORMER.items()}


def modern_arguments(
    owner: str, given: dict[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of ``given`` as they are written today; one warning shows the line.

    Args:
        owner: the name of the Trainer's class.
        defaults: today's arguments.

    Returns:
        The arguments, and what is to be told to a verb or to the Tuner.

    Raises:
        TypeError: there is no such argument, nothing does the same any more, or two of them contradict each other. The
            message says what to write.
    """
    for name, value in given.items():
        if name not in defaults and name not in FORMER:
            raise TypeError(_unknown(owner, name, value, defaults))
    found = {name: _modern(name, value, given) for name, value in given.items()}
    kept = {name: value for name, value in given.items() if found[name] is None}
    former = {name: modern for name, modern in found.items() if modern is not None}
    gone = [_gone(owner, name, given[name], line) for name, line in former.items() if isinstance(line, str)]
    if gone:
        raise TypeError("\n".join(gone))
    changed: dict[str, Any] = {}
    added: list[Written] = []
    for name, modern in former.items():
        for key, value in modern.items():  # type: ignore[union-attr]
            if key == "callbacks":
                added += value
            elif value == "gpu" and kept.get(key) in ("cuda", "mps"):
                continue
            elif key in changed and changed[key] != value:
                raise TypeError(_contradiction(owner, name, given[name], f"`{key}={shown(changed[key])}`"))
            elif key in kept and kept[key] not in (defaults[key], value):
                raise TypeError(_contradiction(owner, name, given[name], f"`{key}={shown(kept[key])}`"))
            else:
                changed[key] = value
    later = {name: given[name] for name in LATER if name in former and not _asks_for_nothing(name, given[name])}
    if former:
        old = ", ".join(f"{name}={shown(given[name])}" for name in former)
        new = _new_lines(owner, changed, added, later, "callbacks" in kept)
        rank_zero_warn(f"`{owner}({old})` is the way of Lightning 1. {new}", category=LightningDeprecationWarning)
    if added:
        others = kept.get("callbacks")
        others = [] if others is None else list(others) if isinstance(others, (list, tuple)) else [others]
        changed["callbacks"] = [*others, *(written.callback for written in added)]
    return kept | changed, later


def _modern(name: str, value: Any, given: Mapping[str, Any]) -> _Modern | None:
    """How an argument is written today; None if that is how it was written."""
    if name in FORMER:
        return {} if _asks_for_nothing(name, value) else FORMER[name].modern(value, given)
    if not has_former_value(given, name):
        return None
    modern = VALUES[name](value, given)
    return None if modern == {name: value} else modern


def _asks_for_nothing(name: str, value: Any) -> bool:
    former = FORMER[name]
    return (value is None and type(None) not in former.kinds) or value == former.default


def _new_lines(
    owner: str, changed: Mapping[str, Any], added: list[Written], later: Mapping[str, Any], has_callbacks: bool
) -> str:
    arguments = [f"{name}={shown(value)}" for name, value in changed.items()]
    if added:
        callbacks = (["..."] if has_callbacks else []) + [written.text for written in added]
        arguments.append(f"callbacks=[{', '.join(callbacks)}]")
    lines = [f"`{owner}({', '.join(arguments)})`"] if arguments else []
    lines += [LATER[name].format(value=shown(value)) for name, value in later.items()]
    return f"Write {', and '.join(lines)}." if lines else "It does what is done anyway: leave it out."


def _gone(owner: str, name: str, value: Any, line: str) -> str:
    what = (
        f"{owner} has no argument `{name}` any more" if name in FORMER else f"`{name}={value!r}` is not there any more"
    )
    return f"{what}. Write {line}."


def _contradiction(owner: str, name: str, value: Any, other: str) -> str:
    return f"`{owner}({name}={shown(value)})`, of Lightning 1, contradicts {other}. Leave out one of them."


def _unknown(owner: str, name: str, value: Any, names: Iterable[str]) -> str:
    """What to say of an argument that there is not and never was."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    advice = f"Did you mean `{near[0]}`?" if near else f"`help({owner})` lists those that there are."
    return f"{owner} has no argument `{name}` (it got `{name}={value!r}`). {advice}"


# -- a verb that is one no more ---------------------------------------------------------------------------------------


def tune(
    trainer: Trainer,
    model: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    scale_batch_size_kwargs: dict[str, Any] | None = None,
    lr_find_kwargs: dict[str, Any] | None = None,
    method: Literal["fit", "validate", "test", "predict"] = "fit",
) -> dict[str, Any]:
    """Search what the Trainer was told to: a batch size (``auto_scale_batch_size``), then a rate (``auto_lr_find``).

    Returns:
        The results under ``"scale_batch_size"`` and ``"lr_find"``.
    """
    from fulmen.tuner.tuning import Tuner

    asked = {
        name: trainer._former[name] for name in ("auto_scale_batch_size", "auto_lr_find") if name in trainer._former
    }
    lines = [LATER[name] for name in asked] or [LATER[name] for name in ("auto_scale_batch_size", "auto_lr_find")]
    what = "" if asked else "does nothing, since the Trainer was not told what to search, and "
    rank_zero_warn(
        f"`trainer.tune(model)` {what}is the way of Lightning 1. Write {', and '.join(lines)}.",
        category=LightningDeprecationWarning,
    )
    data: dict[str, Any] = {
        "val_dataloaders": val_dataloaders,
        "dataloaders": dataloaders,
        "datamodule": datamodule,
        "method": method,
    }
    results = {}
    if "auto_scale_batch_size" in asked:
        mode = asked["auto_scale_batch_size"]
        options: dict[str, Any] = {"mode": mode if isinstance(mode, str) else "power"} | (scale_batch_size_kwargs or {})
        results["scale_batch_size"] = Tuner(trainer).scale_batch_size(model, train_dataloaders, **(data | options))
    if "auto_lr_find" in asked:
        attribute = asked["auto_lr_find"]
        options = {"attr_name": attribute if isinstance(attribute, str) else ""} | (lr_find_kwargs or {})
        results["lr_find"] = Tuner(trainer).lr_find(model, train_dataloaders, **(data | options))
    return results
