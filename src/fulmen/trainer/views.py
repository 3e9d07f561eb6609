"""What packages read of the inside of Lightning's Trainer, as views of the parts here: one table, :data:`TABLE`.

A view holds nothing but the trainer. Each value is read from its one home when it is asked for, and a write goes there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fulmen.trainer import internal_files, internal_reads
from fulmen.utilities.internals import Row, absent

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_FTS, _SVC, _NEMO = "finetuning-scheduler", "so-vits-svc-fork", "NeMo"
_PYG, _GLUON, _CELL, _PINA, _RESILIENCY = (
    "pytorch_geometric",
    "gluonts",
    "cellarium-ml",
    "PINA",
    "nvidia-resiliency-ext",
)


def _at(path: str) -> Callable[[Any], Any]:
    """What reads ``path`` of the trainer."""

    def read(trainer: Any) -> Any:
        return functools.reduce(getattr, path.split("."), trainer)

    return read


def _to(path: str) -> Callable[[Any, Any], None]:
    """What writes ``path`` of the trainer."""
    above, _, name = path.rpartition(".")

    def write(trainer: Any, value: Any) -> None:
        setattr(_at(above)(trainer) if above else trainer, name, value)

    return write


def _same(path: str, home: str, *users: str, writable: bool = False) -> Row:
    """A view of ``trainer.<home>``."""
    return Row(path, f"trainer.{home}", users, _at(home), _to(home) if writable else None)


def _bound(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """A method of a view: ``function`` with the trainer as its first argument."""
    return lambda trainer: functools.partial(function, trainer)


def _counters(
    path: str,
    modern: dict[str, str],
    read: Callable[[Any, str, str], int],
    write: Callable[[Any, int], None],
    settable: tuple[str, ...],
    *users: str,
) -> list[Row]:
    """The rows of Lightning's four counters.

    Args:
        modern: what to write instead, by span: ``"total"``: of the whole run; ``"current"``: of its part that lasts.
        settable: the spans whose counters can be set; all four follow.
    """
    return [
        Row(
            f"{path}.{span}.{name}",
            modern[span],
            users,
            functools.partial(_count, read, span, name),
            write if span in settable else None,
        )
        for span in modern
        for name in ("ready", "started", "processed", "completed")
    ]


def _count(read: Callable[[Any, str, str], int], span: str, name: str, trainer: Trainer) -> int:
    return read(trainer, span, name)


def _steps_rows(path: str, modern: str, read: Any, write: Any, *users: str) -> list[Row]:
    return [
        Row(f"{path}.{span}.{name}", modern, users, functools.partial(_count, read, span, name), write)
        for span in ("total", "current")
        for name in ("ready", "completed")
    ]


def _data_source(loop: str, stage: str, *users: str) -> list[Row]:
    """Where the loaders of a stage come from."""
    path, hook = f"{loop}._data_source", f"{_SHORT.get(stage, stage)}_dataloader"
    modern = f"trainer.defines_loader({stage!r})"
    return [
        Row(f"{path}.is_defined", modern, users, lambda t: lambda: t.defines_loader(stage)),
        Row(f"{path}.instance", modern, users, lambda t: internal_reads.source_of(t, stage)),
        Row(f"{path}.is_module", modern, users, lambda t: lambda: internal_reads.comes_from_hook(t, stage)),
        Row(f"{path}.name", modern, users, lambda t: hook),
    ]


def _evaluation(loop: str, verb: str, *users: str) -> list[Row]:
    name = _SHORT.get(verb, verb)
    return [
        *_data_source(loop, verb, *users),
        _same(f"{loop}.max_batches", f"num_{name}_batches"),
        Row(f"{loop}._combined_loader", f"trainer.{name}_dataloaders", (), lambda t: internal_reads.combined(t, verb)),
        Row(f"{loop}.run", f"trainer.{verb}(model)", ("lightning-flash", "pl_cross")),
    ]


def _printing(loop: str, verb: str, prints: Callable[[Any], bool]) -> list[Row]:
    """Whether and how an evaluation prints its results."""
    modern = f"trainer.{verb}(model, verbose=...)"
    printer = internal_reads.print_results
    return [
        Row(f"{loop}.verbose", modern, ("lightning-ir",), prints),
        Row(f"{loop}._print_results", modern, ("lightning-ir",), lambda t: printer, internal_reads.replace_printing),
    ]


def _is_verbose(trainer: Any) -> bool:
    return getattr(trainer, "_verbose", True)


_SHORT = {"validate": "val"}
_EPOCH_LOOP = "fit_loop.epoch_loop"
_STEP_USERS = (_FTS, _SVC, _NEMO)

#: every view of the trainer, with the packages that use it. A row without a read says what to write instead.
TABLE: tuple[Row, ...] = (
    # the loop of training
    _same("fit_loop.max_epochs", "max_epochs", _FTS, writable=True),
    _same("fit_loop.min_epochs", "min_epochs"),
    _same("fit_loop.max_steps", "max_steps", writable=True),
    Row("fit_loop.done", "trainer.progress.done", (), lambda t: t.progress.done),
    _same("fit_loop.max_batches", "num_training_batches"),
    Row("fit_loop.total_batch_idx", "trainer.progress.total_batches", (), internal_reads.total_batch_idx),
    Row("fit_loop.batch_idx", "trainer.progress.batch_idx", (), lambda t: t.progress.batch_idx),
    Row("fit_loop.current_epoch", "trainer.current_epoch", (), _at("current_epoch"), internal_reads.set_epoch),
    Row("fit_loop.global_step", "trainer.global_step", (), _at("global_step"), internal_reads.set_step),
    Row("fit_loop.setup_data", "trainer.estimated_stepping_batches", (), _bound(internal_reads.ask_for_training_data)),
    Row(
        "fit_loop._combined_loader",
        "trainer.train_dataloader",
        (_CELL, _NEMO),
        lambda t: internal_reads.combined(t, "train"),
    ),
    *_data_source("fit_loop", "train"),
    Row("fit_loop.run", "trainer.fit(model)", ()),
    *_counters(
        "fit_loop.epoch_progress",
        {"total": "trainer.current_epoch", "current": "trainer.current_epoch"},
        internal_reads.epoch_count,
        internal_reads.set_epoch,
        ("total", "current"),
        _FTS,
        _SVC,
    ),
    *_counters(
        f"{_EPOCH_LOOP}.batch_progress",
        {"total": "trainer.progress.total_batches", "current": "trainer.progress.batches_done"},
        internal_reads.batch_count,
        internal_reads.write_batch_count,
        ("total",),
        _CELL,
        _SVC,
        _NEMO,
    ),
    _same(f"{_EPOCH_LOOP}.batch_progress.is_last_batch", "is_last_batch"),
    Row(
        f"{_EPOCH_LOOP}.total_batch_idx",
        "trainer.progress.total_batches",
        (_SVC, "vocos"),
        internal_reads.total_batch_idx,
    ),
    Row(f"{_EPOCH_LOOP}.batch_idx", "trainer.progress.batch_idx", (), lambda t: t.progress.batch_idx),
    Row(f"{_EPOCH_LOOP}.global_step", "trainer.global_step", (_FTS,), _at("global_step"), internal_reads.set_step),
    _same(f"{_EPOCH_LOOP}._batches_that_stepped", "progress.batches_that_stepped", _CELL, writable=True),
    Row(
        f"{_EPOCH_LOOP}._should_accumulate",
        "trainer.progress.accumulating",
        (_CELL,),
        lambda t: lambda: t.progress.accumulating,
    ),
    _same(f"{_EPOCH_LOOP}.max_steps", "max_steps", writable=True),
    Row(
        f"{_EPOCH_LOOP}.automatic_optimization.optim_progress.optimizer_steps",
        "trainer.global_step",
        _STEP_USERS,
        lambda t: internal_reads.step_count(t, "total", "completed"),
    ),
    *_steps_rows(
        f"{_EPOCH_LOOP}.automatic_optimization.optim_progress.optimizer.step",
        "trainer.global_step",
        internal_reads.step_count,
        internal_reads.write_automatic_steps,
        *_STEP_USERS,
    ),
    *_steps_rows(
        f"{_EPOCH_LOOP}.manual_optimization.optim_step_progress",
        "trainer.global_step",
        internal_reads.manual_step_count,
        internal_reads.write_manual_steps,
        _SVC,
        _NEMO,
        _PINA,
    ),
    Row(
        f"{_EPOCH_LOOP}.automatic_optimization._skip_backward",
        "return None from `training_step` to skip a batch",
        (_NEMO,),
    ),
    # the loops of evaluation and prediction
    *_evaluation(f"{_EPOCH_LOOP}.val_loop", "validate", _GLUON),
    *_evaluation("validate_loop", "validate", _PYG),
    *_evaluation("test_loop", "test", _PYG),
    *_data_source("predict_loop", "predict"),
    _same("predict_loop.max_batches", "num_predict_batches"),
    Row(
        "predict_loop.epoch_batch_indices",
        "`batch_indices` of `BasePredictionWriter.write_on_epoch_end`",
        ("pytorch-forecasting",),
        lambda t: t.data.epoch_batch_indices,
    ),
    Row(
        "predict_loop.return_predictions",
        "trainer.predict(..., return_predictions=...)",
        ("lightning-flash",),
        lambda t: getattr(t, "keeps_predictions", False),
        lambda t, value: setattr(t, "keeps_predictions", value),
    ),
    Row("predict_loop.predictions", "what `trainer.predict` returns", (), lambda t: t.predictions or []),
    Row("predict_loop.run", "trainer.predict(model)", ("lightning-flash",)),
    *_printing("validate_loop", "validate", _is_verbose),
    *_printing("test_loop", "test", _is_verbose),
    *_printing("_evaluation_loop", "validate", internal_reads.prints_results),
    # where it runs
    Row(
        "_accelerator_connector.is_distributed",
        "trainer.world_size > 1",
        ("optuna-integration", "darts", "hi-ml"),
        internal_reads.is_distributed,
    ),
    Row("_accelerator_connector._strategy_flag", "trainer.strategy", (_FTS,), internal_reads.strategy_flag),
    Row("_accelerator_connector._accelerator_flag", "trainer.accelerator", (), internal_reads.accelerator_flag),
    Row(
        "_accelerator_connector._parallel_devices",
        "trainer.strategy.root_device",
        (_PINA,),
        internal_reads.parallel_devices,
    ),
    _same("_accelerator_connector.strategy", "strategy"),
    _same("_accelerator_connector.accelerator", "accelerator"),
    _same("_accelerator_connector.precision_plugin", "precision_plugin"),
    _same("_accelerator_connector.use_distributed_sampler", "use_distributed_sampler"),
    # files
    Row(
        "_checkpoint_connector.dump_checkpoint",
        "trainer.save_checkpoint(path)",
        (_NEMO, "mlflow"),
        _bound(internal_files.dump),
    ),
    *(
        Row(f"_checkpoint_connector.{name}", "trainer.fit(model, ckpt_path=path)", users, _bound(function))
        for name, users, function in (
            ("resume_start", (_FTS,), internal_files.open_file),
            ("resume_end", (_FTS,), internal_files.close_file),
            ("restore_model", (_FTS, _NEMO), internal_files.restore_model),
            ("restore_datamodule", (_FTS,), internal_files.restore_datamodule),
            ("restore_callbacks", (), internal_files.restore_callbacks),
            ("restore_precision_plugin_state", (_FTS,), internal_files.restore_precision),
            ("restore_optimizers_and_schedulers", (_FTS,), internal_files.restore_optimizers_and_schedulers),
            ("restore_optimizers", (), internal_files.restore_optimizers),
            ("restore_lr_schedulers", (), internal_files.restore_schedulers),
        )
    ),
    Row(
        "_checkpoint_connector._loaded_checkpoint",
        "`checkpoint` of `on_load_checkpoint`",
        (_FTS,),
        lambda t: t.opened_checkpoint,
        lambda t, value: setattr(t, "opened_checkpoint", value),
    ),
    Row(
        "_checkpoint_connector.resume_checkpoint_path",
        "trainer.ckpt_path",
        (_NEMO,),
        _at("ckpt_path"),
        _to("ckpt_path"),
    ),
    Row("_checkpoint_connector._ckpt_path", "trainer.ckpt_path", (), _at("ckpt_path"), _to("ckpt_path")),
    Row("_checkpoint_connector.restore", "trainer.fit(model, ckpt_path=path)", (_NEMO,)),
    Row("_checkpoint_connector.restore_training_state", "trainer.fit(model, ckpt_path=path)", (_NEMO,)),
    Row("_checkpoint_connector.restore_loops", "trainer.fit(model, ckpt_path=path)", ()),
    Row("_checkpoint_connector.save_checkpoint", "trainer.save_checkpoint(path)", (), _at("save_checkpoint")),
    # who listens
    Row("_callback_connector._reorder_callbacks", "trainer.callbacks", (_FTS,), lambda t: internal_reads.reordered),
    _same("_logger_connector.callback_metrics", "callback_metrics", _NEMO),
    _same("_logger_connector.logged_metrics", "logged_metrics", _NEMO),
    _same("_logger_connector.progress_bar_metrics", "progress_bar_metrics", _NEMO),
    Row(
        "_logger_connector.log_metrics",
        "logger.log_metrics(metrics, step)",
        (_NEMO,),
        _bound(internal_reads.log_metrics),
    ),
    _same("_signal_connector.received_sigterm", "received_sigterm", "stable-pretraining"),
    Row("_results.DATALOADER_SUFFIX", '"/dataloader_idx_{}"', ("RePlay",), lambda t: "/dataloader_idx_{}"),
    Row("_results.result_metrics", "trainer.callback_metrics", (_FTS,), internal_reads.result_metrics),
    Row("_data_connector", "pass loaders to `trainer.fit`, or write them as hooks", ("lightning-flash",)),
)


def _named(owner: str, names: str, modern: str, *users: str) -> list[Row]:
    """Names that objects of a class have themselves."""
    return [Row(f"{owner}.{name}", modern, users, lambda one, name=name: getattr(one, name)) for name in names.split()]


_UNI2TS, _STABLE = "uni2ts", "stable-pretraining"

#: names of other objects than the trainer: windows that the classes have themselves
OF_CLASSES: tuple[Row, ...] = (
    *_named("LightningModule", "_trainer", "self.trainer", "careamics", "neuralforecast", _CELL, _FTS),
    *_named("LightningModule", "_device", "self.device", _NEMO, "parseq"),
    *_named("LightningModule", "_device_mesh", "self.device_mesh", _NEMO),
    *_named("LightningModule", "_hparams", "self.hparams", "pytorch-forecasting"),
    *_named("LightningModule", "_current_fx_name", "the name of the hook that you write"),
    *_named(
        "LightningDataModule", "_log_hyperparams", "self.save_hyperparameters(logger=...)", "scvi-tools", "terratorch"
    ),
    *_named("Callback", "_generate_state_key", "`state_key`, a property", _FTS, "minerva", "terratorch"),
    *_named(
        "Strategy",
        "broadcast barrier root_device model connect checkpoint_io remove_checkpoint precision_plugin",
        "the same",
        "torch-uncertainty",
        "optuna-integration",
        "pyannote-audio",
        _FTS,
        _NEMO,
    ),
    *_named("Strategy", "optimizers lr_scheduler_configs", "trainer.optimizers", _PINA, _FTS),
    *_named("Strategy", "lightning_module", "trainer.lightning_module", _NEMO, "ray"),
    *_named("DDPStrategy", "_ddp_kwargs", "DDPStrategy(...)", _CELL, _NEMO),
    *_named("FSDPStrategy", "sharding_strategy", "FSDPStrategy(sharding_strategy=...)", _CELL),
    *_named(
        "ModelParallelStrategy",
        "_data_parallel_size _tensor_parallel_size _device_mesh",
        "data_parallel_size, tensor_parallel_size, device_mesh",
        _NEMO,
        _STABLE,
    ),
    *_named(
        "ModelCheckpoint", "_last_global_step_saved", "trainer.global_step", _UNI2TS, "anomalib", _NEMO, "autogluon"
    ),
    *_named("ModelCheckpoint", "_last_checkpoint_saved", "checkpoint.best_model_path", _UNI2TS, _NEMO),
    *_named("ModelCheckpoint", "_save_on_train_epoch_end", "save_on_train_epoch_end", "anomalib", _FTS),
    *_named(
        "ModelCheckpoint",
        "_every_n_epochs _every_n_train_steps _train_time_interval",
        "the arguments of ModelCheckpoint",
        "terratorch",
        "GPT-SoVITS",
    ),
    *_named("ModelCheckpoint", "_enable_version_counter _fs", "the arguments of ModelCheckpoint", _NEMO),
    *_named("EarlyStopping", "_check_on_train_epoch_end", "check_on_train_epoch_end", _FTS),
    *_named("CSVLogger", "_experiment", "logger.experiment", "lightly-train", _STABLE),
    *_named("ExperimentWriter", "_fs", "fsspec", "lightly-train", _STABLE),
    *_named("LightningCLI", "_get", "cli.config", "torch-uncertainty", _FTS),
    *_named("Tuner", "_trainer", "the trainer that it was made with", "pytorch-forecasting"),
)

#: methods that classes of other packages override, and that are called where Lightning calls them
OVERRIDDEN: tuple[Row, ...] = (
    *_named("ModelCheckpoint", "_save_checkpoint", "a CheckpointIO", _UNI2TS, _NEMO, "autogluon", "litmodels"),
    *_named("ModelCheckpoint", "_remove_checkpoint", "a CheckpointIO", _UNI2TS, "scvi-tools", _NEMO, "litmodels"),
    *_named("ModelCheckpoint", "_monitor_candidates", "self.log", "torch-uncertainty", _FTS, _NEMO),
    *_named("ModelCheckpoint", "_update_best_and_save", "on_save_checkpoint", "scvi-tools", "schnetpack", "autogluon"),
    *_named("ModelCheckpoint", "_save_topk_checkpoint", "on_save_checkpoint", _FTS, _RESILIENCY),
    *_named("ModelCheckpoint", "_save_last_checkpoint", "on_save_checkpoint", _RESILIENCY, "GPT-SoVITS"),
    *_named("ModelCheckpoint", "_should_save_on_train_epoch_end", "save_on_train_epoch_end", "anomalib"),
    *_named("ModelCheckpoint", "_should_skip_saving_checkpoint", "every_n_epochs", "anomalib"),
    *_named("EarlyStopping", "_evaluate_stopping_criteria", "trainer.should_stop", "scvi-tools", _FTS),
    *_named("EarlyStopping", "_improvement_message", "verbose", _FTS),
    *_named("ExperimentWriter", "_check_log_dir_exists", "CSVLogger(version=...)", "lightly-train", _STABLE),
    *_named(
        "LightningCLI",
        "_add_configure_optimizers_method_to_model",
        "LightningCLI.configure_optimizers",
        _FTS,
        "lightning-ir",
        "torch-uncertainty",
    ),
    *_named(
        "Strategy",
        "lightning_module_state_dict load_model_state_dict optimizer_state save_checkpoint setup training_step "
        "validation_step test_step predict_step distributed_sampler_kwargs setup_environment",
        "the same",
        _NEMO,
        "ray",
        "nequip",
    ),
)

_ROWS = {row.path: row for row in TABLE}
_NODES = {row.path.rsplit(".", depth)[0] for row in TABLE for depth in range(1, row.path.count(".") + 1)}
_NEAR = [f"trainer.{path}" for path in sorted(_NODES | {path for path, row in _ROWS.items() if row.read is not None})]


class View:
    """A part of Lightning's Trainer, seen from here: ``trainer.fit_loop.epoch_loop`` and the like."""

    __slots__ = ("_path", "_trainer")
    _path: str
    _trainer: Trainer

    def __init__(self, trainer: Trainer, path: str) -> None:
        object.__setattr__(self, "_trainer", trainer)
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}"
        row = _ROWS.get(path)
        if row is not None and row.read is not None:
            return row.read(self._trainer)
        if path in _NODES:
            return View(self._trainer, path)
        if name.startswith("__"):
            raise AttributeError(name)
        raise absent(f"trainer.{path}", row, _NEAR)

    def __setattr__(self, name: str, value: Any) -> None:
        path = f"{self._path}.{name}"
        row = _ROWS.get(path)
        if row is None or row.write is None:
            raise absent(f"trainer.{path}", row, _NEAR, is_write=True)
        row.write(self._trainer, value)

    def __dir__(self) -> list[str]:
        start = f"{self._path}."
        return sorted({path.removeprefix(start).split(".")[0] for path in _ROWS if path.startswith(start)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and (other._path, other._trainer) == (self._path, self._trainer)

    def __hash__(self) -> int:
        return hash((self._path, id(self._trainer)))

    def __repr__(self) -> str:
        return f"<view of trainer.{self._path}: {', '.join(dir(self))}>"

    def __reduce__(self) -> Any:
        return View, (self._trainer, self._path)


def window(trainer: Trainer, name: str) -> View:
    """The view of ``trainer.<name>``.

    Raises:
        AttributeError: nothing of it is offered; the message says what to write.
    """
    if name not in _NODES:
        raise absent(f"trainer.{name}", _ROWS.get(name), _NEAR)
    return View(trainer, name)
