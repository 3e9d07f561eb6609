"""The Trainer's arguments from the environment: ``PL_TRAINER_MAX_EPOCHS=3`` is ``max_epochs=3``."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any


def arguments_from_environment(init: Callable[..., None]) -> Callable[..., None]:
    """Let ``__init__`` take each argument that was not written from the variable ``PL_<CLASS>_<ARGUMENT>``.

    A value is read as Python where it is Python, else as text; an empty one counts as not set. Positional arguments are
    accepted in the order of the signature.
    """
    parameters = {name: p for name, p in inspect.signature(init).parameters.items() if name != "self"}
    names = list(parameters)
    truths = {name for name, p in parameters.items() if "bool" in str(p.annotation) and "int" not in str(p.annotation)}

    @functools.wraps(init)
    def with_environment(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} arguments, but {len(args)} were given.")
        for name, value in zip(names, args):
            if name in kwargs:
                raise TypeError(f"{type(self).__name__} got two values for `{name}`.")
            kwargs[name] = value
        for name in kwargs:
            if name not in names:
                raise TypeError(_unknown(type(self).__name__, name, kwargs[name], names))
        prefix = f"PL_{type(self).__name__.upper()}_"
        for name in names:
            text = os.environ.get(prefix + name.upper())
            if text and name not in kwargs:
                kwargs[name] = text in ("1", "true") if text in _TRUTHS and name in truths else _value(text)
        init(self, **kwargs)

    return with_environment


#: what shells write for False and True
_TRUTHS = ("0", "1", "false", "true")

#: arguments that Lightning once had -> what to write now
_FORMER = {
    "amp_backend": "`precision='16-mixed'`",
    "auto_lr_find": "`Tuner(trainer).lr_find(model)` or pass the callback `LearningRateFinder()`",
    "auto_scale_batch_size": "`Tuner(trainer).scale_batch_size(model)` or pass the callback `BatchSizeFinder()`",
    "auto_select_gpus": "`devices='auto'`",
    "checkpoint_callback": "`enable_checkpointing={value!r}`",
    "distributed_backend": "`strategy=...`",
    "gpus": "`accelerator='gpu', devices={value!r}`",
    "ipus": "`accelerator=...`",
    "log_gpu_memory": "a callback of your own that logs `torch.cuda.memory_stats()`",
    "multiple_trainloader_mode": "`CombinedLoader(loaders, mode)` in `train_dataloader`",
    "num_processes": "`accelerator='cpu', devices={value!r}`",
    "progress_bar_refresh_rate": "`enable_progress_bar=False`, or the callback `TQDMProgressBar(refresh_rate=...)`",
    "replace_sampler_ddp": "`use_distributed_sampler={value!r}`",
    "resume_from_checkpoint": "`trainer.fit(model, ckpt_path={value!r})`",
    "stochastic_weight_avg": "a callback of your own on `torch.optim.swa_utils` (one is not there yet)",
    "terminate_on_nan": "`detect_anomaly=True`",
    "tpu_cores": "`accelerator='tpu', devices={value!r}`",
    "track_grad_norm": "`self.log_dict(grad_norm(self, norm_type=2))` in `on_before_optimizer_step`",
    "truncated_bptt_steps": "manual optimization",
    "weights_save_path": "`ModelCheckpoint(dirpath={value!r})`",
    "weights_summary": "`enable_model_summary=False`, or the callback `ModelSummary(max_depth=...)`",
}


def _unknown(owner: str, name: str, value: Any, names: list[str]) -> str:
    """What to say of an argument that there is not."""
    if name in _FORMER:
        return f"{owner} has no argument `{name}` any more. Write {_FORMER[name].format(value=value)}."
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    advice = f"Did you mean `{near[0]}`?" if near else f"`help({owner})` lists those that there are."
    return f"{owner} has no argument `{name}` (it got `{name}={value!r}`). {advice}"


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
