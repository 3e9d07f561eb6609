"""What fit does: the order of everything, data of every shape, and what the hooks see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..recorder import Listed, Run, Stream, loader, rows
from .registry import full, light, manual, scenario, scheduled, with_batches

# ------------------------------------------------------------------------------------------------ the whole of fit


@scenario
def fit(run: Run) -> None:
    run.make_trainer(max_epochs=2, num_sanity_val_steps=1, gradient_clip_val=1.0, callbacks=[run.checkpoint()])
    run.fit(scheduled(run)())


@scenario
def fit_without_sanity_check(run: Run) -> None:
    run.make_trainer(num_sanity_val_steps=0)
    run.fit()


@scenario
def fit_with_all_sanity_batches(run: Run) -> None:
    run.make_trainer(num_sanity_val_steps=-1)
    run.fit(with_batches(run, train=1, val=3))


@scenario
def fit_without_validation_loader(run: Run) -> None:
    class Module(run.Module):
        val_dataloader = run.framework.LightningModule.val_dataloader

    run.make_trainer(max_epochs=2)
    run.fit(Module())


@full
def fit_without_validation_step(run: Run) -> None:
    class Module(run.Module):
        validation_step = run.framework.LightningModule.validation_step

    run.make_trainer()
    run.fit(Module())


@full
def fit_with_loaders_as_arguments(run: Run) -> None:
    run.make_trainer()
    run.fit(None, loader(2), loader(1))


@scenario
def fit_several_val_loaders(run: Run) -> None:
    class Module(run.Module):
        def val_dataloader(self) -> Any:
            return [super().val_dataloader(), loader(2)]

    run.make_trainer()
    run.fit(Module())


@full
def fit_several_val_loaders_one_empty(run: Run) -> None:
    class Module(run.Module):
        def val_dataloader(self) -> Any:
            return [loader(0), loader(2)]

    run.make_trainer()
    run.fit(Module())


@full
def fit_dict_of_val_loaders(run: Run) -> None:
    class Module(run.Module):
        def val_dataloader(self) -> Any:
            return {"a": loader(1), "b": loader(2)}

    run.make_trainer()
    run.fit(Module())


def shape(run: Run, batch: Any) -> None:
    """A line that tells what kind of batch came."""
    if isinstance(batch, dict):
        run.lines.append(f"batch {{{', '.join(f'{k}: {v is not None}' for k, v in batch.items())}}}")
    else:
        run.lines.append(f"batch {type(batch).__name__} of {len(batch)}")


@scenario
def fit_dict_of_train_loaders(run: Run) -> None:
    class Module(run.Module):
        def train_dataloader(self) -> Any:
            return {"a": super().train_dataloader(), "b": loader(3)}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            shape(run, batch)
            return super().training_step(batch["a"] + batch["b"], batch_idx)

    run.make_trainer(max_epochs=2)
    run.fit(Module())


@full
def fit_list_of_train_loaders(run: Run) -> None:
    class Module(run.Module):
        def train_dataloader(self) -> Any:
            return [super().train_dataloader(), loader(3)]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            shape(run, batch)
            return super().training_step(batch[0] + batch[1], batch_idx)

    run.make_trainer()
    run.fit(Module())


@full
def fit_any_iterable_as_loader(run: Run) -> None:
    run.make_trainer()
    run.fit(None, Listed(*(row[None] for row in rows(2))), Listed(rows(1)[0][None]))


@scenario
def fit_datamodule(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(run.Module(), datamodule=run.DataModule())


@full
def fit_datamodule_as_second_argument(run: Run) -> None:
    run.make_trainer()
    run.fit(run.Module(), run.DataModule())


@light
def fit_with_transfer_hooks_in_the_module_and_a_datamodule(run: Run) -> None:
    class Module(run.Module):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            run.lines.append(f"M.on_before_batch_transfer({dataloader_idx})")
            return batch

    run.make_trainer()
    run.fit(Module(), datamodule=run.DataModule())


@scenario
def fit_two_epochs_of_three_batches(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(with_batches(run, train=3))


@scenario
def fit_batch_idx_not_asked_for(run: Run) -> None:
    class Module(run.Module):
        def training_step(self, batch: Any) -> Any:
            return super().training_step(batch, -1)

        def validation_step(self, batch: Any) -> Any:
            return super().validation_step(batch, -1)

    run.make_trainer()
    run.fit(Module())


# ------------------------------------------------------------------------------------------------ what the hooks see


def tell_the_clock(run: Run) -> Any:
    """A callback that writes down what the trainer says about time in each hook."""

    def tell(name: str) -> Callable[..., None]:
        def hook(self: Any, trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
            stage = trainer.state.stage
            run.lines.append(
                f"  clock in {name}: epoch {trainer.current_epoch} step {trainer.global_step}"
                f" last {trainer.is_last_batch} stage {getattr(stage, 'value', stage)} train_mode {module.training}"
                f" grad {torch.is_grad_enabled()} inference {torch.is_inference_mode_enabled()}"
                f" batches {trainer.num_training_batches} {trainer.num_val_batches} {trainer.num_sanity_val_batches}"
            )

        return hook

    names = [
        *(f"on_{stage}_{when}" for stage in ("train", "validation") for when in ("start", "end")),
        *(f"on_{stage}_epoch_{when}" for stage in ("train", "validation") for when in ("start", "end")),
        *(f"on_{stage}_batch_{when}" for stage in ("train", "validation") for when in ("start", "end")),
        *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"),
        *("setup", "on_fit_start", "on_sanity_check_start", "on_sanity_check_end", "on_fit_end", "teardown"),
        *("on_test_start", "on_test_batch_start", "on_test_end", "on_predict_start", "on_predict_batch_start"),
        *("on_predict_end", "on_save_checkpoint"),
    ]
    return type("Clock", (run.framework.Callback,), {name: tell(name) for name in names})()


@scenario
def clock_in_fit(run: Run) -> None:
    run.make_trainer(max_epochs=2, callbacks=[tell_the_clock(run), run.checkpoint()])
    run.fit(with_batches(run, train=2, val=2))


@light
def clock_in_accumulation(run: Run) -> None:
    run.make_trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=[tell_the_clock(run)])
    run.fit(with_batches(run, train=3))


@light
def clock_in_manual_optimization(run: Run) -> None:
    run.make_trainer(callbacks=[tell_the_clock(run)])
    run.fit(manual(run)())


@light
def clock_in_validate_test_predict(run: Run) -> None:
    run.make_trainer(callbacks=[tell_the_clock(run)])
    module = run.Module()
    for verb in ("validate", "test", "predict"):
        run.call(verb, module)


@light
def outputs_of_train_batches(run: Run) -> None:
    class Outputs(run.framework.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            run.lines.append(f"outputs {type(outputs).__name__} {readable(outputs)}")

        def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
            run.lines.append(f"loss {loss.item():.6g}")

    class Module(run.Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            returned = [loss, {"loss": loss, "extra": loss * 2}, None, {"loss": loss}]
            return returned[batch_idx]

    run.make_trainer(callbacks=[Outputs()], limit_val_batches=0)
    run.fit(type("Four", (Module,), {"train_batches": 4})())
    run.make_trainer(callbacks=[Outputs()], limit_val_batches=0, accumulate_grad_batches=2)
    run.fit(type("Four", (Module,), {"train_batches": 4})())


def readable(value: Any) -> Any:
    """A batch's outputs as text."""
    if isinstance(value, torch.Tensor):
        return f"tensor {value.item():.6g} requires_grad={value.requires_grad}"
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value


@light
def outputs_of_evaluation_batches(run: Run) -> None:
    class Outputs(run.framework.Callback):
        def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
            run.lines.append(f"outputs {readable(outputs)}")

        def on_predict_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
            run.lines.append(f"outputs {readable(outputs)}")

    class Module(run.Module):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return [None, {"some": 1}, "text"][batch_idx]

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return [None, {"some": 1}][batch_idx]

    run.make_trainer(callbacks=[Outputs()])
    run.call("validate", type("Three", (Module,), {"val_batches": 3})())
    run.lines.append(f"returned {run.call('predict', Module())}")


# ------------------------------------------------------------------------------------------------ loaders


@full
def stream_without_length(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(None, DataLoader(Stream(3)), DataLoader(Stream(2)))


@light
def stream_with_limits(run: Run) -> None:
    run.make_trainer(max_epochs=2, limit_train_batches=2, limit_val_batches=1)
    run.fit(None, DataLoader(Stream(3)), DataLoader(Stream(2)))


@light
def stream_shorter_than_its_limit(run: Run) -> None:
    run.make_trainer(max_epochs=2, limit_train_batches=5)
    run.fit(None, DataLoader(Stream(3)), DataLoader(Stream(2)))


@light
def stream_validated_every_two_batches(run: Run) -> None:
    run.make_trainer(max_epochs=2, val_check_interval=2)
    run.fit(None, DataLoader(Stream(3)), DataLoader(Stream(1)))


@light
def empty_stream(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(None, DataLoader(Stream(0)), DataLoader(Stream(1)))


@light
def reload_loaders_each_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1)
    run.fit()


@light
def reload_loaders_every_second_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=4, reload_dataloaders_every_n_epochs=2)
    run.fit(run.Module(), datamodule=run.DataModule())


@light
def reload_loaders_without_sanity_check(run: Run) -> None:
    run.make_trainer(max_epochs=2, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0)
    run.fit()


@light
def epoch_told_to_the_sampler(run: Run) -> None:
    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            run.lines.append(f"set_epoch {epoch}")

    data = rows(2)
    run.make_trainer(max_epochs=2)
    run.fit(None, DataLoader(data, sampler=Sampler(data)), DataLoader(data, sampler=Sampler(data)))  # type: ignore[arg-type]
