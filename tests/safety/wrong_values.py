"""Checkpoints of plain data with values that no trainer writes: what is put back must be looked at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

#: what stands in an entry, and cannot be restored from
_NO_COUNTS = {"a_text": "three", "less_than_nothing": -1, "10_to_30": 10**30, "a_list": [1], "nan": float("nan")}

Change = Callable[[dict[str, Any]], None]


def _set(path: tuple[Any, ...], value: Any) -> Change:
    def change(checkpoint: dict[str, Any]) -> None:
        owner: Any = checkpoint
        for step in path[:-1]:
            owner = owner[step]
        owner[path[-1]] = value

    return change


def _callback(name: str, state: Any = None, **entries: Any) -> Change:
    """The state of a callback, or some of its entries."""

    def change(checkpoint: dict[str, Any]) -> None:
        states = checkpoint["callbacks"]
        key = next(key for key in states if key.startswith(name))
        states[key] = {**states[key], **entries} if state is None else state

    return change


#: what `fit(ckpt_path=...)` must refuse
WRONG_FOR_TRAINING: dict[str, Change] = {
    **{f"epoch_is_{kind}": _set(("epoch",), value) for kind, value in _NO_COUNTS.items()},
    **{f"global_step_is_{kind}": _set(("global_step",), value) for kind, value in _NO_COUNTS.items()},
    **{f"progress_is_{kind}": _set(("loops", "progress"), value) for kind, value in _NO_COUNTS.items()},
    **{
        f"{counter}_is_{kind}": _set(("loops", "progress", counter), value)
        for counter in ("epoch", "step", "total_batches", "batches_done", "batches_that_stepped")
        for kind, value in _NO_COUNTS.items()
    },
    "loops_are_a_list": _set(("loops",), [1]),
    "in_epoch_is_a_text": _set(("loops", "progress", "in_epoch"), "yes"),
    "logged_metrics_are_texts": _set(("resume", "metrics", "callback"), {"loss": "small"}),
    "logged_metrics_are_missing": _set(("resume", "metrics"), {}),
    "logged_metric_is_a_number": _set(("resume", "metrics", "train"), [3]),
    "metric_objects_are_a_list": _set(("resume", "module_metrics"), [1]),
    "loggers_are_a_number": _set(("resume", "loggers"), 1),
    "optimizer_states_are_a_dict": _set(("optimizer_states",), {"a": 1}),
    "optimizer_states_are_numbers": _set(("optimizer_states",), [1]),
    "optimizer_state_is_empty": _set(("optimizer_states", 0), {}),
    "optimizer_groups_are_a_text": _set(("optimizer_states", 0, "param_groups"), "abc"),
    "optimizer_group_is_a_number": _set(("optimizer_states", 0, "param_groups"), [3]),
    "optimizer_group_without_parameters": _set(("optimizer_states", 0, "param_groups", 0, "params"), None),
    "optimizer_state_is_a_list": _set(("optimizer_states", 0, "state"), [1, 2]),
    "optimizer_state_of_a_parameter_is_a_text": _set(("optimizer_states", 0, "state", 0), "momentum"),
    "learning_rate_is_a_text": _set(("optimizer_states", 0, "param_groups", 0, "lr"), "fast"),
    "learning_rate_is_nothing": _set(("optimizer_states", 0, "param_groups", 0, "lr"), None),
    "optimizer_states_are_too_many": _set(("optimizer_states",), [{}, {}, {}]),
    "lr_schedulers_are_a_dict": _set(("lr_schedulers",), {"a": 1}),
    "lr_scheduler_is_a_number": _set(("lr_schedulers", 0), 3),
    "callbacks_are_a_list": _set(("callbacks",), [1]),
    "early_stopping_is_a_number": _callback("EarlyStopping", 5),
    "early_stopping_waits_for_a_text": _callback("EarlyStopping", wait_count="long"),
    "early_stopping_has_no_score": _callback("EarlyStopping", best_score="best"),
    "best_k_models_are_a_list": _callback("ModelCheckpoint", best_k_models=["a"]),
    "best_k_models_have_no_scores": _callback("ModelCheckpoint", best_k_models={"/a.ckpt": "good"}),
    "best_model_path_is_a_number": _callback("ModelCheckpoint", best_model_path=7),
    "last_model_path_is_a_list": _callback("ModelCheckpoint", last_model_path=["x"]),
    "dirpath_is_a_number": _callback("ModelCheckpoint", dirpath=3, last_model_path="/x.ckpt"),
    "resume_is_a_list": _set(("resume",), [1]),
    "random_states_are_a_text": _set(("resume", "random"), "random"),
    "random_state_of_torch_is_short": _set(("resume", "random", "torch"), torch.zeros(3, dtype=torch.uint8)),
    "random_state_of_torch_is_float": _set(("resume", "random", "torch"), torch.zeros(5056)),
    "random_state_of_python_is_short": _set(("resume", "random", "python"), (3, [1], None)),
    "random_state_of_numpy_is_another": _set(("resume", "random", "numpy"), ("PCG64", [1], 0, 0, 0.0)),
    "data_is_a_list": _set(("resume", "data"), [1]),
    "data_is_empty": _set(("resume", "data"), {}),
    "data_has_numbers": _set(("resume", "data", "train"), [1]),
    "data_stands_at_a_text": _set(("resume", "data", "train", 0, "position"), "end"),
    "data_was_asked_for_in_no_epoch": _set(("resume", "data", "loads", "train"), {"random": 1}),
    "seed_of_the_data_is_a_text": _set(("resume", "data", "seed"), "seed"),
    "gradients_are_texts": _set(("resume", "gradients"), {"layer.weight": "steep"}),
    "window_is_a_number": _set(("resume", "window"), 1),
}

#: what every way of loading into a module must refuse
WRONG_FOR_ALL: dict[str, Change] = {
    "state_dict_is_a_list": _set(("state_dict",), [1]),
    "state_dict_has_numbers_as_names": _set(("state_dict",), {1: torch.zeros(1)}),
    "weight_is_a_text": _set(("state_dict", "layer.weight"), "heavy"),
    "weight_is_of_another_shape": _set(("state_dict", "layer.weight"), torch.zeros(7, 7)),
    "weight_is_nowhere": _set(("state_dict", "layer.weight"), torch.zeros(1, 2, device="meta")),
}

#: what `load_from_checkpoint` must refuse
WRONG_FOR_CONSTRUCTORS: dict[str, Change] = {
    "hyper_parameters_are_a_list": _set(("hyper_parameters",), [1]),
    "hyper_parameters_are_a_text": _set(("hyper_parameters",), "width"),
    "class_path_of_a_function": _set(("hyper_parameters", "_class_path"), "os.system"),
    "class_path_of_what_is_not_imported": _set(("hyper_parameters", "_class_path"), "antigravity.Net"),
    "class_path_is_a_list": _set(("hyper_parameters", "_class_path"), ["os.system"]),
    "class_path_of_an_argument": _set(
        ("hyper_parameters",), {"_instantiator": "os.system", "width": {"class_path": "os.system", "init_args": {}}}
    ),
    "kinds_are_a_list": _set(("hparams_kinds",), ["path"]),
    "kinds_are_numbers": _set(("hparams_kinds",), {"width": 3}),
    "kinds_of_a_million_parts": _set(("hparams_kinds",), {"a." * 500_000: "path"}),
    "hparams_name_is_a_list": _set(("hparams_name",), ["kwargs"]),
    "width_is_a_path": _set(("hparams_kinds",), {"width": "path"}),
    "width_is_a_set_of_lists": _set(("hparams_kinds",), {"width": "set"}),
    "width_is_a_text_of_a_gigabyte": _set(("hparams_kinds",), {"width": "numpy:<U999999999"}),
    "width_is_an_array_of_texts": _set(("hparams_kinds",), {"width": "numpy_array:<U999999999"}),
    "width_is_a_numpy_type": _set(("hparams_kinds",), {"width": "numpy_dtype"}),
    "width_is_a_fraction": _set(("hparams_kinds",), {"width": "fraction"}),
    "name_is_self": _set(("hyper_parameters",), {"width": 2, "self": 1}),
    "name_is_a_number": _set(("hyper_parameters",), {"width": 2, 3: 1}),
}
