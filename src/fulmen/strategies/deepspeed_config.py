"""The configuration of DeepSpeed: from the arguments of the strategy, and what the Trainer adds to it."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: how the scale of losses in 16 bits is found
SCALER = ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale")
_ZERO = (
    "stage contiguous_gradients overlap_comm allgather_partitions reduce_scatter allgather_bucket_size "
    "reduce_bucket_size sub_group_size"
).split()
_AIO = ("block_size", "queue_depth", "single_submit", "overlap_events", "thread_count")
_ACTIVATIONS = (
    "partition_activations",
    "cpu_checkpointing",
    "contiguous_memory_optimization",
    "synchronize_checkpoint_boundary",
)
#: what the Trainer and ``configure_optimizers`` say
_OF_OTHERS = ("gradient_accumulation_steps", "optimizer", "scheduler")


def from_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the arguments of the strategy describe."""
    config: dict[str, Any] = {
        "zero_allow_untested_optimizer": values["zero_allow_untested_optimizer"],
        "activation_checkpointing": {name: values[name] for name in _ACTIVATIONS},
        "aio": {name: values[name] for name in _AIO},
    }
    if not values["zero_optimization"]:
        return config
    zero = config["zero_optimization"] = {name: values[name] for name in _ZERO}
    where = {"nvme_path": values["nvme_path"], "pin_memory": values["pin_memory"]}
    if values["offload_optimizer"]:
        device, count = values["offload_optimizer_device"], values["optimizer_buffer_count"]
        zero["offload_optimizer"] = {"device": device, "buffer_count": count, **where}
    if values["offload_parameters"]:
        zero["offload_param"] = {
            "device": values["offload_params_device"],
            "buffer_count": values["params_buffer_count"],
            "buffer_size": values["params_buffer_size"],
            "max_in_cpu": values["max_in_cpu"],
            **where,
        }
    return config


def given(config: Any) -> dict[str, Any]:
    """The configuration that was passed, or that a JSON file has.

    Raises:
        MisconfigurationException: it is none, or says what the Trainer says.
    """
    if isinstance(config, (str, os.PathLike)):
        try:
            with open(config, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError) as error:
            raise MisconfigurationException(
                f"DeepSpeed's configuration cannot be read from {os.fspath(config)!r}: {error}. Give the path of a "
                "JSON file, or a dict."
            ) from error
    else:
        found = config
    if not isinstance(found, dict):
        raise MisconfigurationException(
            f"DeepSpeed's configuration is {found!r}. Give a dict, or a JSON file with one."
        )
    for name in _OF_OTHERS:
        if name in found:
            raise MisconfigurationException(
                f"DeepSpeed's configuration has {name!r}. Leave it out: the Trainer says how many batches make a step, "
                "by `accumulate_grad_batches`, and `configure_optimizers` which optimizer and scheduler there are."
            )
    return deepcopy(found)


def filled_in(config: dict[str, Any], trainer: Trainer, scaler: dict[str, Any], batch_size: Any) -> dict[str, Any]:
    """``config`` with what the Trainer was told, where it says nothing else.

    Args:
        scaler: the arguments of :data:`SCALER`.
        batch_size: what DeepSpeed is told for what it logs. ``"auto"``: that of the loader that ``fit`` was given.
    """
    if trainer.gradient_clip_val and str(trainer.gradient_clip_algorithm or "norm") == "value":
        raise MisconfigurationException(
            "DeepSpeed clips gradients by their norm. Write `Trainer(gradient_clip_algorithm='norm')`, or leave it out."
        )
    if batch_size == "auto":
        batch_size = getattr(trainer.data.given.get("train"), "batch_size", None) or 1
    full = {
        "gradient_clipping": float(trainer.gradient_clip_val or 0),
        "train_micro_batch_size_per_gpu": batch_size,
        **config,
        "gradient_accumulation_steps": trainer.accumulate_grad_batches,
    }
    full.pop("train_batch_size", None)  # the product of the others and the number of processes
    kind = str(trainer.precision_plugin.precision).partition("-")[0]
    if kind == "16":
        full.setdefault("fp16", {"enabled": True, **scaler})
    elif kind == "bf16":
        full.setdefault("bf16", {"enabled": True})
    return full
