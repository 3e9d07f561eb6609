"""What users log, each written once: Lightning's recordings and our own runs come from the same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .log_recorder import LogRun

LOG_SCENARIOS: dict[str, Callable[[LogRun], None]] = {}


def scenario(function: Callable[[LogRun], None]) -> Callable[[LogRun], None]:
    LOG_SCENARIOS[function.__name__] = function
    return function


def forks(module: Any, batch_idx: int) -> None:
    """The value ``batch_idx + 1`` under every choice of on_step and on_epoch."""
    value = batch_idx + 1.0
    module.log("plain", value)
    module.log("step", value, on_step=True, on_epoch=False)
    module.log("epoch", value, on_step=False, on_epoch=True)
    module.log("both", value, on_step=True, on_epoch=True)


def places(module: Any, batch_idx: int) -> None:
    """The same values to the bar, to no logger, and to neither."""
    value = batch_idx + 1.0
    for name, choice in {"bar": {"prog_bar": True}, "no_logger": {"logger": False}}.items():
        module.log(name, value, **choice)
        module.log(f"{name}_both", value, on_step=True, on_epoch=True, **choice)


def fork_names(module: Any, batch_idx: int) -> None:
    """Like ``forks`` but under names that do not collide with the x axis' name."""
    value = batch_idx + 1.0
    module.log("a", value, on_step=True, on_epoch=False)
    module.log("b", value, on_step=False, on_epoch=True)
    module.log("c", value, on_step=True, on_epoch=True)


def train_and_validate(module: Any, batch_idx: int) -> None:
    """One forked value, named after the stage."""
    name = "train" if module.training else "val"
    module.log(name, module.current_epoch * 10 + batch_idx + 1.0, on_step=True, on_epoch=True)


# ------------------------------------------------------------------------------------------------ steps and epochs


@scenario
def forks_in_training(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, limit_val_batches=0)
    run.fit(fork_names)


@scenario
def forks_in_validation(run: LogRun) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(None, fork_names)


@scenario
def forks_left_out(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("plain_train" if module.training else "plain_val", batch_idx + 1.0)

    run.make_trainer()
    run.fit(log, log)


@scenario
def neither_step_nor_epoch(run: LogRun) -> None:
    run.make_trainer()
    run.fit(lambda module, batch_idx: module.log("neither", 1.0, on_step=False, on_epoch=False))


@scenario
def step_as_the_name_of_a_value(run: LogRun) -> None:
    run.make_trainer(limit_val_batches=0)
    run.fit(forks)


@scenario
def places_in_training(run: LogRun) -> None:
    run.make_trainer(limit_val_batches=0)
    run.fit(places)


@scenario
def places_in_validation(run: LogRun) -> None:
    run.make_trainer()
    run.fit(None, places)


@scenario
def every_second_step(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, log_every_n_steps=2, quiet=True)
    run.fit(train_and_validate, train_and_validate, samples=4)


@scenario
def every_third_step_across_epochs(run: LogRun) -> None:
    run.make_trainer(max_epochs=3, log_every_n_steps=3, quiet=True)
    run.fit(train_and_validate, samples=4)


@scenario
def every_fiftieth_step_of_four(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, log_every_n_steps=50)
    run.fit(train_and_validate, samples=2)


@scenario
def log_every_zero_steps(run: LogRun) -> None:
    run.make_trainer(log_every_n_steps=0, quiet=True)
    run.fit(train_and_validate, train_and_validate)


@scenario
def every_second_step_until_max_steps(run: LogRun) -> None:
    run.make_trainer(max_epochs=-1, max_steps=5, log_every_n_steps=2, quiet=True)
    run.fit(train_and_validate, samples=4)


@scenario
def last_values_at_an_early_stop(run: LogRun) -> None:
    def stop(callback: Any, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = batch_idx == 1

    run.make_trainer(log_every_n_steps=50, callbacks=[run.callback(on_train_batch_end=stop)], quiet=True)
    run.fit(train_and_validate, samples=4)


@scenario
def fast_dev_run(run: LogRun) -> None:
    run.make_trainer(fast_dev_run=True, log_every_n_steps=50)
    run.fit(train_and_validate, train_and_validate)


@scenario
def accumulation(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, accumulate_grad_batches=2)
    run.fit(train_and_validate, train_and_validate)


@scenario
def accumulation_every_second_step(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, accumulate_grad_batches=2, log_every_n_steps=2, quiet=True)
    run.fit(train_and_validate, samples=5)


@scenario
def validation_twice_per_epoch(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, val_check_interval=0.5)
    run.fit(train_and_validate, train_and_validate, samples=4)


@scenario
def validation_every_second_epoch(run: LogRun) -> None:
    run.make_trainer(max_epochs=3, check_val_every_n_epoch=2)
    run.fit(train_and_validate, train_and_validate, samples=2)


@scenario
def sanity_check(run: LogRun) -> None:
    run.make_trainer(num_sanity_val_steps=2)
    run.fit(train_and_validate, train_and_validate)


@scenario
def manual_optimization(run: LogRun) -> None:
    def training_step(module: Any, batch: Any, batch_idx: int) -> None:
        for _ in range(2):
            optimizer = module.optimizers()
            optimizer.zero_grad()
            module.manual_backward(module.layer(batch).sum())
            optimizer.step()
        train_and_validate(module, batch_idx)

    run.make_trainer(max_epochs=2, log_every_n_steps=2)
    run.fit(None, train_and_validate, training_step=training_step, automatic_optimization=False)


@scenario
def manual_optimization_that_skips_steps(run: LogRun) -> None:
    def training_step(module: Any, batch: Any, batch_idx: int) -> None:
        optimizer = module.optimizers()
        module.manual_backward(module.layer(batch).sum())
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()
        train_and_validate(module, batch_idx)

    run.make_trainer(quiet=True)
    run.fit(training_step=training_step, automatic_optimization=False, samples=5)


@scenario
def training_step_returning_none(run: LogRun) -> None:
    def training_step(module: Any, batch: Any, batch_idx: int) -> Any:
        train_and_validate(module, batch_idx)
        return None if batch_idx == 1 else module.layer(batch).sum()

    run.make_trainer()
    run.fit(training_step=training_step)


@scenario
def rest_of_the_epoch_skipped(run: LogRun) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(train_and_validate, on_train_batch_start=lambda module, batch, batch_idx: -1 if batch_idx == 2 else None)


# ------------------------------------------------------------------------------------------------ reductions


def reductions(module: Any, batch_idx: int) -> None:
    """The values 1, 2, ... reduced in each way."""
    for how in ("mean", "sum", "min", "max"):
        module.log(how, batch_idx + 1.0, on_step=False, on_epoch=True, reduce_fx=how)
    module.log("torch_sum", batch_idx + 1.0, on_step=False, on_epoch=True, reduce_fx=torch.sum)


@scenario
def reductions_with_batches_of_two_and_one(run: LogRun) -> None:
    run.make_trainer()
    run.fit(reductions, None, batch_size=2)
    run.make_trainer()
    run.fit(None, reductions, batch_size=2)


@scenario
def reductions_with_the_batch_size_given(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        for size in (1, 4):
            module.log(f"size_{size}", batch_idx + 1.0, on_epoch=True, batch_size=size if batch_idx else 1)

    run.make_trainer()
    run.fit(log, batch_size=2)


@scenario
def reductions_of_nan(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        value = float("nan") if batch_idx == 1 else 1.0
        for how in ("mean", "min", "max"):
            module.log(how, value, on_step=True, on_epoch=True, reduce_fx=how)

    run.make_trainer()
    run.fit(log)


@scenario
def same_name_twice_in_a_step(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("twice", batch_idx + 1.0, on_step=True, on_epoch=True)
        module.log("twice", batch_idx + 11.0, on_step=True, on_epoch=True)

    run.make_trainer()
    run.fit(log, log, batch_size=2)


@scenario
def same_name_twice_with_other_settings(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("twice", 1.0, on_epoch=True)
        module.log("twice", 1.0, on_epoch=False)

    run.make_trainer()
    run.fit(log)


@scenario
def same_name_in_training_and_validation(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("loss", (1.0 if module.training else 100.0) + batch_idx, on_step=True, on_epoch=True)

    run.make_trainer(max_epochs=2)
    run.fit(log, log)


@scenario
def same_name_in_a_step_and_at_the_epoch_end(run: LogRun) -> None:
    run.make_trainer()
    run.fit(
        lambda module, batch_idx: module.log("loss", batch_idx + 1.0),
        lambda module, batch_idx: module.log("v", batch_idx + 1.0),
        on_train_epoch_end=lambda module: module.log("loss", 100.0),
        on_validation_epoch_end=lambda module: module.log("v", 100.0),
    )


@scenario
def names_that_come_and_go(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            module.log("second_batch", batch_idx + 1.0, on_step=True, on_epoch=True)
        if module.current_epoch == 0:
            module.log("first_epoch", batch_idx + 1.0, on_step=True, on_epoch=True, prog_bar=True)

    run.make_trainer(max_epochs=2)
    run.fit(log, log)


# ------------------------------------------------------------------------------------------------ values


@scenario
def values_of_every_kind(run: LogRun) -> None:
    values = {
        "float": 1.5,
        "int": 2,
        "bool": True,
        "tensor": torch.tensor(2.5),
        "tensor_of_one": torch.tensor([3.5]),
        "tensor_1x1": torch.tensor([[4.5]]),
        "int_tensor": torch.tensor(5),
        "double": torch.tensor(6.5, dtype=torch.float64),
        "half": torch.tensor(7.5, dtype=torch.float16),
        "with_graph": torch.tensor(8.5, requires_grad=True),
    }

    def log(module: Any, batch_idx: int) -> None:
        module.log_dict(values, on_step=True, on_epoch=True, prog_bar=True)

    run.make_trainer(quiet=True)
    run.fit(log, samples=2)
    for name, value in sorted(run.trainer.callback_metrics.items()):
        run.lines.append(f"{name}: {value.dtype} shape {list(value.shape)} requires_grad {value.requires_grad}")


@scenario
def large_numbers(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("sum", 16777217.0, on_step=False, on_epoch=True, reduce_fx="sum")
        module.log("int", 16777217, on_step=True)

    run.make_trainer(quiet=True)
    run.fit(log)


@scenario
def dictionaries(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log_dict({"a": 1.0 + batch_idx, "b": 2.0 + batch_idx}, on_epoch=True, prog_bar=True)

    run.make_trainer()
    run.fit(log, log)


@scenario
def names_with_slashes_and_spaces(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("train/loss of a", 1.0, on_step=True, on_epoch=True)

    run.make_trainer()
    run.fit(log)


@scenario
def metric_objects(run: LogRun) -> None:
    import torchmetrics

    def log(module: Any, batch_idx: int) -> None:
        name = "train" if module.training else "val"
        metric = module.get_submodule(f"{name}_mean")
        metric(torch.tensor([batch_idx + 1.0, batch_idx + 1.0 + module.current_epoch]))
        module.log(f"{name}_metric", metric, on_step=True, on_epoch=True, prog_bar=True)

    run.make_trainer(max_epochs=2)
    module = run.module(log, log)
    module.train_mean, module.val_mean = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()
    run.call("fit", module)
    run.lines.append(f"train_mean has seen {module.train_mean.weight.item():.6g}")
    run.lines.append(f"val_mean has seen {module.val_mean.weight.item():.6g}")


@scenario
def metric_objects_only_updated(run: LogRun) -> None:
    import torchmetrics

    def log(module: Any, batch_idx: int) -> None:
        module.mean.update(torch.tensor(batch_idx + 1.0))
        module.log("mean", module.mean, on_step=False, on_epoch=True)

    run.make_trainer(max_epochs=2)
    module = run.module(log)
    module.mean = torchmetrics.MeanMetric()
    run.call("fit", module)


@scenario
def metric_collection(run: LogRun) -> None:
    import torchmetrics

    def log(module: Any, batch_idx: int) -> None:
        module.both.update(torch.tensor(batch_idx + 1.0))
        module.log_dict(module.both)

    run.make_trainer(max_epochs=2)
    module = run.module(None, log)
    module.both = torchmetrics.MetricCollection(
        {"mean": torchmetrics.MeanMetric(), "max": torchmetrics.MaxMetric()}, prefix="val_"
    )
    run.call("fit", module)


@scenario
def metric_computed_at_the_epoch_end(run: LogRun) -> None:
    import torchmetrics

    def end(module: Any) -> None:
        module.log("mean", module.mean.compute())
        module.mean.reset()

    run.make_trainer(max_epochs=2)
    module = run.module(
        lambda module, batch_idx: module.mean.update(torch.tensor(batch_idx + 1.0)), on_train_epoch_end=end
    )
    module.mean = torchmetrics.MeanMetric()
    run.call("fit", module)


# ------------------------------------------------------------------------------------------------ several loaders


@scenario
def several_val_loaders(run: LogRun) -> None:
    def log(module: Any, batch_idx: int, dataloader_idx: int) -> None:
        value = 10.0 * dataloader_idx + batch_idx
        module.log("a", value)
        module.log("b", value, on_step=True, on_epoch=True, prog_bar=True)
        module.log(f"own_{dataloader_idx}", value, add_dataloader_idx=False)

    run.make_trainer(max_epochs=2)
    run.fit(None, log, loaders=2, samples=2, on_validation_epoch_end=lambda module: module.log("end", 1.0))


@scenario
def several_val_loaders_in_validate_and_test(run: LogRun) -> None:
    def log(module: Any, batch_idx: int, dataloader_idx: int) -> None:
        value = 10.0 * dataloader_idx + batch_idx
        module.log("a", value)
        module.log("b", value, on_step=True, on_epoch=True, logger=False)
        module.log(f"own_{dataloader_idx}", value, add_dataloader_idx=False)

    run.make_trainer()
    ending = {
        "on_validation_epoch_end": lambda module: module.log("end", 1.0),
        "on_test_epoch_end": lambda module: module.log("end", 1.0),
    }
    module = run.module(None, log, log, loaders=2, samples=2, **ending)
    run.call("validate", module)
    run.call("test", module)


@scenario
def several_val_loaders_logging_in_one_only(run: LogRun) -> None:
    def log(module: Any, batch_idx: int, dataloader_idx: int) -> None:
        if dataloader_idx == 1:
            module.log("only", batch_idx + 1.0)

    run.make_trainer()
    module = run.module(None, log, loaders=2, samples=2)
    run.call("validate", module)


@scenario
def several_val_loaders_under_one_name(run: LogRun) -> None:
    def log(module: Any, batch_idx: int, dataloader_idx: int) -> None:
        module.log("shared", 10.0 * dataloader_idx + batch_idx, add_dataloader_idx=False)

    run.make_trainer()
    run.call("validate", run.module(None, log, loaders=2, samples=2))


# ------------------------------------------------------------------------------------------------ hooks and callbacks

TRAIN_HOOKS = (
    *("on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end"),
)
VALIDATION_HOOKS = (
    *("on_validation_start", "on_validation_epoch_start", "on_validation_batch_start"),
    *("on_validation_batch_end", "on_validation_epoch_end"),
)
SILENT_HOOKS = (
    *("on_fit_start", "on_train_end", "on_fit_end", "on_validation_end", "setup", "teardown"),
    *("on_validation_model_eval", "on_validation_model_zero_grad", "configure_optimizers", "train_dataloader"),
    "on_after_batch_transfer",
)


def logging_in(hook: str, owner: type | None = None) -> Callable[..., Any]:
    """A hook that logs the count of its calls under its own name."""
    calls = []

    def log(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        self.log(hook, float(len(calls)))
        return None if owner is None else getattr(owner, hook)(self, *args, **kwargs)

    return log


@scenario
def every_hook_of_the_module(run: LogRun) -> None:
    run.make_trainer(max_epochs=2)
    written = {hook: logging_in(hook) for hook in (*TRAIN_HOOKS, *VALIDATION_HOOKS)}
    run.fit(samples=2, **written)


@scenario
def every_hook_of_a_callback(run: LogRun) -> None:
    written = {hook: logging_in(hook) for hook in (*TRAIN_HOOKS, *VALIDATION_HOOKS)}
    run.make_trainer(max_epochs=2, callbacks=[run.callback(**written)])
    run.fit(samples=2)


@scenario
def hooks_that_may_not_log(run: LogRun) -> None:
    for hook in SILENT_HOOKS:
        run.lines.append(hook)
        run.make_trainer(quiet=True)
        run.fit(samples=1, **{hook: logging_in(hook, run.framework.LightningModule)})


@scenario
def step_values_in_hooks_of_the_epoch(run: LogRun) -> None:
    for hook in ("on_train_epoch_end", "on_validation_epoch_end", "on_train_start"):
        run.lines.append(hook)
        run.make_trainer(quiet=True)
        run.fit(samples=1, **{hook: lambda module: module.log("a", 1.0, on_step=True)})


@scenario
def epoch_ends_of_training_and_validation(run: LogRun) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(
        on_train_epoch_end=lambda module: module.log("train_end", module.current_epoch + 1.0, prog_bar=True),
        on_validation_epoch_end=lambda module: module.log("val_end", module.current_epoch + 2.0, prog_bar=True),
    )


@scenario
def logging_from_inside_forward(run: LogRun) -> None:
    def forward(module: Any, batch: Any) -> Any:
        module.log("inside", 1.0, on_step=module.training)
        return module.layer(batch)

    def step(module: Any, batch: Any, batch_idx: int) -> Any:
        return module(batch).sum()

    run.make_trainer()
    run.fit(forward=forward, training_step=step, validation_step=step)


@scenario
def epoch_value_read_by_a_scheduler_and_a_checkpoint(run: LogRun) -> None:
    checkpoint = run.framework.ModelCheckpoint(dirpath=str(run.folder), monitor="train_epoch", save_top_k=-1)
    run.make_trainer(max_epochs=2, callbacks=[checkpoint], quiet=True)
    run.fit(train_and_validate, train_and_validate)
    run.lines.extend(f"score {score.item():.6g}" for score in checkpoint.best_k_models.values())


# ------------------------------------------------------------------------------------------------ the other verbs


@scenario
def validate_and_test(run: LogRun) -> None:
    run.make_trainer()
    module = run.module(None, fork_names, fork_names)
    run.call("validate", module)
    run.call("test", module)
    run.call("validate", module)


@scenario
def validate_after_fit(run: LogRun) -> None:
    run.make_trainer(max_epochs=2, quiet=True)
    module = run.module(train_and_validate, train_and_validate, fork_names)
    run.call("fit", module)
    run.call("validate", module)
    run.call("test", module)


@scenario
def step_named_in_validation(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("v", batch_idx + 1.0)
        module.log("step", 42.0)

    run.make_trainer()
    run.fit(None, log)


@scenario
def step_named_for_epochs_in_training(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.log("t", batch_idx + 1.0, on_step=False, on_epoch=True)
        module.log("step", float(module.current_epoch), on_step=False, on_epoch=True)

    run.make_trainer(max_epochs=2, quiet=True)
    run.fit(log)


@scenario
def nothing_logged(run: LogRun) -> None:
    run.make_trainer()
    module = run.module()
    run.call("fit", module)
    run.call("validate", module)


@scenario
def fit_again(run: LogRun) -> None:
    run.make_trainer(quiet=True)
    module = run.module(train_and_validate, train_and_validate)
    run.call("fit", module)
    run.trainer.fit_loop.max_epochs = 2
    run.call("fit", module)


@scenario
def resumed(run: LogRun) -> None:
    saving = run.framework.ModelCheckpoint(dirpath=str(run.folder))
    run.make_trainer(callbacks=[saving], quiet=True)
    run.fit(train_and_validate, train_and_validate)
    run.make_trainer(max_epochs=2, quiet=True)
    module = run.module(train_and_validate, train_and_validate)
    run.call("fit", module, ckpt_path=str(run.folder / "epoch=0-step=3.ckpt"))


# ------------------------------------------------------------------------------------------------ loggers


@scenario
def two_loggers(run: LogRun) -> None:
    run.make_trainer(logger=[run.logger("first"), run.logger("second")], quiet=True)
    run.fit(train_and_validate, train_and_validate)


@scenario
def no_logger(run: LogRun) -> None:
    run.make_trainer(logger=False)
    run.fit(train_and_validate, train_and_validate)


@scenario
def calls_of_a_logger(run: LogRun) -> None:
    saving = run.framework.ModelCheckpoint(dirpath=str(run.folder))
    run.make_trainer(logger=run.logger(calls=True), callbacks=[saving], quiet=True)
    module = run.module(train_and_validate, train_and_validate)
    module.save_hyperparameters({"width": 2})
    run.call("fit", module)
    run.call("validate", module)


@scenario
def calls_of_a_logger_at_an_exception(run: LogRun) -> None:
    def fail(module: Any, batch_idx: int) -> None:
        module.log("a", 1.0)
        if batch_idx == 1:
            raise ValueError("asked for")

    run.make_trainer(logger=run.logger(calls=True), quiet=True)
    run.fit(fail)


@scenario
def values_sent_to_the_logger_by_hand(run: LogRun) -> None:
    def log(module: Any, batch_idx: int) -> None:
        module.logger.log_metrics({"mine": 1.0}, step=module.global_step)

    run.make_trainer(quiet=True)
    run.fit(log)
