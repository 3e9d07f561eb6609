"""How parameters change: accumulation, optimizers stepped by hand, single methods written by the user, schedulers."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from ..recorder import Run, Stream
from .registry import full, light, manual, scenario, scheduled, with_batches

# ------------------------------------------------------------------------------------------------ accumulation


@scenario
def accumulate_two_of_three(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=2)
    run.fit(type("Module", (scheduled(run, interval="step"),), {"train_batches": 3})())


@scenario
def accumulate_two_of_four(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=2, max_epochs=2)
    run.fit(with_batches(run, train=4))


@scenario
def accumulate_more_than_an_epoch(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=5, max_epochs=2)
    run.fit(with_batches(run, train=3))


@scenario
def accumulate_with_validation_within_the_window(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=2, val_check_interval=1)
    run.fit(with_batches(run, train=4))


@scenario
def accumulate_until_max_steps(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=2, max_steps=3, max_epochs=-1)
    run.fit(with_batches(run, train=3))


@light
def accumulate_and_stop_within_the_window(run: Run) -> None:
    class Module(run.Module):
        train_batches = 4

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.trainer.should_stop = batch_idx == 2

    run.make_trainer(accumulate_grad_batches=2)
    run.fit(Module())


@light
def accumulate_iterable_without_length(run: Run) -> None:
    run.make_trainer(accumulate_grad_batches=2, limit_val_batches=0)
    run.fit(None, DataLoader(Stream(3)))


# ------------------------------------------------------------------------------------------------ optimization by hand


@scenario
def manual_one_optimizer(run: Run) -> None:
    run.make_trainer(max_epochs=2, callbacks=[run.checkpoint()])
    run.fit(manual(run)())


@scenario
def manual_two_optimizers(run: Run) -> None:
    run.make_trainer()
    run.fit(manual(run, optimizers=2)())


@scenario
def manual_one_scheduler(run: Run) -> None:
    run.make_trainer()
    run.fit(manual(run, schedulers=True)())


@scenario
def manual_two_schedulers(run: Run) -> None:
    run.make_trainer()
    run.fit(manual(run, optimizers=2, schedulers=True)())


@scenario
def manual_two_optimizers_until_max_steps(run: Run) -> None:
    run.make_trainer(max_steps=3, max_epochs=-1)
    run.fit(manual(run, optimizers=2)())


@light
def manual_every_second_batch(run: Run) -> None:
    class Module(manual(run)):
        train_batches = 3

        def training_step(self, batch: Any, batch_idx: int) -> None:
            run.lines.append(f"M.training_step({batch_idx})")
            optimizer = self.optimizers()
            self.manual_backward(self.loss(batch) / 2)
            if batch_idx % 2:
                optimizer.step()
                optimizer.zero_grad()

    run.make_trainer()
    run.fit(Module())


@light
def manual_with_closure(run: Run) -> None:
    class Module(manual(run)):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()

            def closure() -> torch.Tensor:
                run.lines.append("closure")
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
                return loss

            optimizer.step(closure=closure)

    run.make_trainer()
    run.fit(Module())


@light
def manual_clip_by_hand(run: Run) -> None:
    class Module(manual(run)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers()
            loss = self.loss(batch)
            self.toggle_optimizer(optimizer)
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=0.01, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)
            return {"loss": loss, "extra": 1}

    run.make_trainer()
    run.fit(Module())


@light
def manual_raw_optimizer(run: Run) -> None:
    class Module(manual(run)):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers(use_pl_optimizer=False)
            loss = self.loss(batch)
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()

    run.make_trainer()
    run.fit(Module())


@scenario
def lbfgs(run: Run) -> None:
    class Module(run.Module):
        def make_optimizers(self) -> Any:
            return run.watch(torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3))

    run.make_trainer()
    run.fit(Module())


# ------------------------------------------------------------------------------------------------ one method written


@light
def optimizer_step_written(run: Run) -> None:
    class Module(run.Module):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            run.lines.append(f"M.optimizer_step({epoch},{batch_idx}) begin")
            optimizer.step(closure=optimizer_closure)
            run.lines.append(f"M.optimizer_step({epoch},{batch_idx}) end")

    run.make_trainer()
    run.fit(Module())


@light
def optimizer_step_written_with_closure_called_first(run: Run) -> None:
    class Module(run.Module):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            loss = optimizer_closure()
            run.lines.append(f"closure gave {type(loss).__name__}")
            optimizer.step()

    run.make_trainer()
    run.fit(Module())


@light
def optimizer_step_written_to_skip_updates(run: Run) -> None:
    class Module(run.Module):
        train_batches = 4

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            if batch_idx % 2:
                optimizer.step(closure=optimizer_closure)
            else:
                optimizer_closure()

    run.make_trainer()
    run.fit(Module())


@light
def optimizer_step_written_without_calling_the_closure(run: Run) -> None:
    class Module(run.Module):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            optimizer.step()

    run.make_trainer()
    run.fit(Module())


@light
def zero_grad_written(run: Run) -> None:
    class Module(run.Module):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            run.lines.append(f"M.optimizer_zero_grad({epoch},{batch_idx})")
            optimizer.zero_grad(set_to_none=False)

    run.make_trainer()
    run.fit(Module())


@light
def backward_written(run: Run) -> None:
    class Module(run.Module):
        def backward(self, loss: Any) -> None:
            run.lines.append("M.backward")
            loss.backward(retain_graph=True)

    run.make_trainer()
    run.fit(Module())


@light
def clipping_written(run: Run) -> None:
    class Module(run.Module):
        def configure_gradient_clipping(
            self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
        ) -> None:
            algorithm = getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm)
            run.lines.append(f"M.configure_gradient_clipping {gradient_clip_val} {algorithm}")
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    run.make_trainer(gradient_clip_val=0.1, gradient_clip_algorithm="value")
    run.fit(Module())
    run.make_trainer()
    run.fit(Module())


@light
def clipping_by_norm(run: Run) -> None:
    run.make_trainer(gradient_clip_val=0.1, max_epochs=2)
    run.fit()


@full
def callbacks_of_the_module(run: Run) -> None:
    class Second(run.Recorder):
        pass

    class Module(run.Module):
        def configure_callbacks(self) -> Any:
            super().configure_callbacks()
            return [Second()]

    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(Module())
    run.lines.append(f"callbacks {[type(callback).__name__ for callback in run.trainer.callbacks]}")
    run.call("validate", Module())
    run.lines.append(f"callbacks {[type(callback).__name__ for callback in run.trainer.callbacks]}")


@light
def monitoring_callbacks_come_last(run: Run) -> None:
    def told(kind: Any, letters: str) -> Any:
        def tell(name: str) -> Any:
            def hook(self: Any, *args: Any) -> None:
                run.lines.append(f"{letters}.{name}")
                getattr(kind, name)(self, *args)

            return hook

        names = ("on_train_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end", "on_train_end")
        return type(kind.__name__, (kind,), {name: tell(name) for name in names})

    class Module(run.Module):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            self.log("v", 1.0)

        def on_train_start(self) -> None:
            run.lines.append("M.on_train_start")

        def on_train_epoch_end(self) -> None:
            run.lines.append("M.on_train_epoch_end")

        def on_validation_end(self) -> None:
            run.lines.append("M.on_validation_end")

        def on_train_end(self) -> None:
            run.lines.append("M.on_train_end")

    checkpoint = told(run.framework.ModelCheckpoint, "MC")(dirpath=str(run.folder))
    early = told(run.framework.EarlyStopping, "ES")("v")
    run.make_trainer(callbacks=[checkpoint, early, run.Recorder.__bases__[0]()])
    run.fit(Module())
    run.lines.append(f"callbacks {[type(callback).__name__ for callback in run.trainer.callbacks]}")


@scenario
def callback_added_while_training(run: Run) -> None:
    class Late(run.framework.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            run.lines.append(f"Late.on_train_batch_start({batch_idx})")

    class Adder(run.framework.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.callbacks.append(Late())

    run.make_trainer(max_epochs=2, callbacks=[Adder()], limit_val_batches=0)
    run.fit()


# ------------------------------------------------------------------------------------------------ schedulers


def plateau(run: Run, **config: Any) -> Any:
    """A module with a ReduceLROnPlateau that reduces whenever ``m`` does not fall."""

    class Module(run.Module):
        train_batches = 3

        def make_optimizers(self) -> Any:
            optimizer = super().make_optimizers()
            schedule = run.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, **config}}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("m", 1.0, on_step=True, on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            self.log("v", 1.0)

    return Module()


@scenario
def plateau_each_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=3)
    run.fit(plateau(run, monitor="v"))


@scenario
def plateau_each_step(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(plateau(run, monitor="m", interval="step"))


@light
def plateau_each_step_on_a_validation_metric(run: Run) -> None:
    run.make_trainer(val_check_interval=1)
    run.fit(plateau(run, monitor="v", interval="step"))


@light
def plateau_every_second_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=5)
    run.fit(plateau(run, monitor="m", frequency=2))


@light
def plateau_with_metric_missing(run: Run) -> None:
    run.make_trainer()
    run.fit(plateau(run, monitor="absent"))
    run.make_trainer()
    run.fit(plateau(run, monitor="absent", strict=False))


@scenario
def scheduler_each_step(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(scheduled(run, interval="step")())


@scenario
def scheduler_every_second_step(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    run.fit(type("Module", (scheduled(run, interval="step", frequency=2),), {"train_batches": 3})())


@light
def scheduler_every_second_step_while_accumulating(run: Run) -> None:
    run.make_trainer(max_epochs=2, accumulate_grad_batches=2)
    run.fit(type("Module", (scheduled(run, interval="step", frequency=2),), {"train_batches": 5})())


@light
def scheduler_every_second_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=4)
    run.fit(scheduled(run, frequency=2)())


@light
def scheduler_each_epoch_with_several_validations(run: Run) -> None:
    run.make_trainer(max_epochs=2, val_check_interval=0.5)
    run.fit(type("Module", (scheduled(run),), {"train_batches": 4})())


@light
def scheduler_each_epoch_stopped_by_max_steps(run: Run) -> None:
    run.make_trainer(max_epochs=-1, max_steps=3)
    run.fit(scheduled(run)())


@scenario
def two_schedulers(run: Run) -> None:
    class Module(run.Module):
        def make_optimizers(self) -> Any:
            optimizer = super().make_optimizers()
            by_step = {"scheduler": run.StepLR(optimizer, 1, 0.5), "interval": "step"}
            return [optimizer], [by_step, run.StepLR(optimizer, 1, 0.1)]

    run.make_trainer(max_epochs=2)
    run.fit(Module())


@light
def no_optimizer(run: Run) -> None:
    class Module(run.Module):
        def make_optimizers(self) -> None:
            return None

    run.make_trainer()
    run.fit(Module())
