"""Validation within fit, and the other verbs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from ..recorder import Run, loader, rows
from .registry import full, light, scenario, with_batches

# ------------------------------------------------------------------------------------------------ when to validate


@scenario
def validate_twice_per_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=2, val_check_interval=0.5, callbacks=[run.checkpoint()])
    run.fit(with_batches(run, train=5))


@light
def validate_every_two_batches(run: Run) -> None:
    run.make_trainer(max_epochs=2, val_check_interval=2)
    run.fit(with_batches(run, train=3))


@light
def validate_every_two_batches_across_epochs(run: Run) -> None:
    run.make_trainer(max_epochs=3, val_check_interval=2, check_val_every_n_epoch=None)
    run.fit(with_batches(run, train=3))


@light
def validate_less_often_than_once_per_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=3, val_check_interval=4, check_val_every_n_epoch=None)
    run.fit(with_batches(run, train=3))


@light
def validate_every_second_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=4, check_val_every_n_epoch=2, callbacks=[run.checkpoint()])
    run.fit()


@light
def validate_every_second_epoch_twice(run: Run) -> None:
    run.make_trainer(max_epochs=3, check_val_every_n_epoch=2, val_check_interval=0.5)
    run.fit(with_batches(run, train=4))


@light
def validate_every_third_epoch_without_sanity_check(run: Run) -> None:
    run.make_trainer(max_epochs=3, check_val_every_n_epoch=3, num_sanity_val_steps=0)
    run.fit()


@scenario
def fast_dev_run(run: Run) -> None:
    run.make_trainer(fast_dev_run=True, callbacks=[run.checkpoint()])
    run.fit(with_batches(run, train=3, val=3))


@light
def fast_dev_run_of_two(run: Run) -> None:
    run.make_trainer(fast_dev_run=2)
    module = with_batches(run, train=3, val=3)
    for verb in ("fit", "validate", "test", "predict"):
        run.call(verb, module)


@light
def overfit_batches(run: Run) -> None:
    for share in (1, 0.5):
        run.make_trainer(overfit_batches=share, max_epochs=2)
        run.fit(with_batches(run, train=4, val=2))


@light
def overfit_batches_of_shuffled_data(run: Run) -> None:
    class Module(run.Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            run.lines.append(f"batch {[round(v, 4) for v in batch.flatten().tolist()]}")
            return super().training_step(batch, batch_idx)

    run.make_trainer(overfit_batches=2, max_epochs=2)
    shuffled = DataLoader(rows(6), shuffle=True)  # type: ignore[arg-type]
    run.fit(Module(), shuffled, loader(2))


@light
def limits(run: Run) -> None:
    for arguments in ({"limit_train_batches": 0.5}, {"limit_train_batches": 1, "limit_val_batches": 2}):
        run.make_trainer(**arguments)
        run.fit(with_batches(run, train=4, val=3))
    run.make_trainer(limit_val_batches=0)
    run.fit()


# ------------------------------------------------------------------------------------------------ the other verbs


@scenario
def validate(run: Run) -> None:
    run.make_trainer()
    run.call("validate", with_batches(run, train=1, val=2))


@scenario
def test(run: Run) -> None:
    run.make_trainer()
    run.call("test", run.Module())


@scenario
def predict(run: Run) -> None:
    run.make_trainer()
    returned = run.call("predict", run.Module())
    run.lines.append(f"returned {[[round(v, 5) for v in batch.flatten().tolist()] for batch in returned]}")


def several(run: Run) -> Any:
    """A module with two loaders for each evaluating verb."""

    class Module(run.Module):
        def val_dataloader(self) -> Any:
            return [loader(2), loader(1)]

        test_dataloader = predict_dataloader = val_dataloader

    return Module()


@full
def validate_several_loaders(run: Run) -> None:
    run.make_trainer()
    run.lines.append(f"returned {run.call('validate', several(run))}")


@full
def test_several_loaders(run: Run) -> None:
    run.make_trainer()
    run.lines.append(f"returned {run.call('test', several(run))}")


@full
def predict_several_loaders(run: Run) -> None:
    run.make_trainer()
    returned = run.call("predict", several(run))
    run.lines.append(f"returned {[len(part) for part in returned]}")


@full
def predict_without_predictions(run: Run) -> None:
    run.make_trainer()
    run.lines.append(f"returned {run.call('predict', run.Module(), return_predictions=False)}")


@light
def predict_by_forward(run: Run) -> None:
    class Module(run.Module):
        predict_step = run.framework.LightningModule.predict_step

    run.make_trainer()
    run.lines.append(f"returned {len(run.call('predict', Module()))}")


@full
def validate_test_predict_with_a_datamodule(run: Run) -> None:
    run.make_trainer()
    module, data = run.Module(), run.DataModule()
    for verb in ("validate", "test", "predict"):
        run.call(verb, module, datamodule=data)


@light
def validate_the_fitted_model_again(run: Run) -> None:
    run.make_trainer(max_epochs=2, callbacks=[run.checkpoint()])
    run.fit()
    run.call("validate")
    run.call("test", ckpt_path="best")


@light
def validate_with_limits(run: Run) -> None:
    run.make_trainer(limit_val_batches=2, limit_test_batches=0.5, limit_predict_batches=0)
    module = type("Module", (run.Module,), {"val_batches": 3, "test_batches": 4})()
    for verb in ("validate", "test", "predict"):
        run.lines.append(f"returned {run.call(verb, module)}")


@full
def model_train_written(run: Run) -> None:
    class Module(run.Module):
        def on_validation_model_train(self) -> None:
            run.lines.append("M.on_validation_model_train")
            super().on_validation_model_train()

        def on_test_model_train(self) -> None:
            run.lines.append("M.on_test_model_train")
            super().on_test_model_train()

    run.make_trainer()
    run.fit(Module())
    run.call("test", Module())


@light
def frozen_parts_stay_in_evaluation_mode(run: Run) -> None:
    class Module(run.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.Dropout().eval()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            run.lines.append(f"modes {self.training} {self.layer.training} {self.frozen.training}")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            run.lines.append(f"modes {self.training} {self.layer.training} {self.frozen.training}")
            return super().validation_step(batch, batch_idx)

    run.make_trainer(max_epochs=2)
    module = Module()
    run.fit(module)
    run.lines.append(f"modes {module.training} {module.layer.training} {module.frozen.training}")
    run.call("validate", module)
    run.lines.append(f"modes {module.training} {module.layer.training} {module.frozen.training}")
