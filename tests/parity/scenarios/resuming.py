"""Fitting again, resuming, and the files that are left."""

from __future__ import annotations

from typing import Any

import torch

from ..recorder import Run
from .registry import full, light, manual, scenario, scheduled

# ------------------------------------------------------------------------------------------------ again, and resuming


@scenario
def fit_again_with_the_same_trainer(run: Run) -> None:
    module = run.Module()
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(module)
    run.fit(module)
    run.trainer.fit_loop.max_epochs = 2
    run.fit(module)


@light
def fit_again_with_another_model(run: Run) -> None:
    run.make_trainer(max_epochs=1)
    run.fit()
    run.fit()


def resume(run: Run, name: str, module: Any, **arguments: Any) -> None:
    """Forget what was recorded so far and go on from the checkpoint called ``name`` with a new trainer."""
    run.lines.clear()
    run.lines.append(f"found {run.files()}")
    run.make_trainer(**arguments)
    run.fit(module, datamodule=run.DataModule(), ckpt_path=str(run.folder / name))


@scenario
def resume_after_an_epoch(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(scheduled(run)(), datamodule=run.DataModule())
    resume(run, "epoch=0-step=2.ckpt", scheduled(run)(), max_epochs=3, callbacks=[run.checkpoint()])


@full
def resume_when_all_is_done(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(run.Module(), datamodule=run.DataModule())
    resume(run, "epoch=0-step=2.ckpt", run.Module(), max_epochs=1)


@light
def resume_beyond_max_epochs(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[run.checkpoint()])
    run.fit(run.Module(), datamodule=run.DataModule())
    resume(run, "epoch=2-step=6.ckpt", run.Module(), max_epochs=1)


def resumable(run: Run) -> Any:
    """A module and datamodule kind of four batches per epoch, saved after each step."""
    run.DataModule.train_batches = 4
    run.make_trainer(callbacks=[run.checkpoint(every_n_train_steps=1, save_top_k=-1)])
    run.fit(scheduled(run)(), datamodule=run.DataModule())
    return scheduled(run)()


@scenario
def resume_in_mid_epoch(run: Run) -> None:
    resume(run, "epoch=0-step=2.ckpt", resumable(run), max_epochs=2)


@light
def resume_from_the_last_batch_of_an_epoch(run: Run) -> None:
    resume(run, "epoch=0-step=4.ckpt", resumable(run), max_epochs=2)


@light
def resume_from_a_validation_in_mid_epoch(run: Run) -> None:
    run.DataModule.train_batches = 4
    saving = run.checkpoint(save_top_k=-1, save_on_train_epoch_end=False)
    run.make_trainer(callbacks=[saving], val_check_interval=0.5)
    run.fit(run.Module(), datamodule=run.DataModule())
    resume(run, "epoch=0-step=2.ckpt", run.Module(), max_epochs=2, val_check_interval=0.5)


@light
def resume_from_a_validation_at_the_end_of_an_epoch(run: Run) -> None:
    saving = run.checkpoint(save_top_k=-1, save_on_train_epoch_end=False)
    run.make_trainer(callbacks=[saving])
    run.fit(run.Module(), datamodule=run.DataModule())
    resume(run, "epoch=0-step=2.ckpt", run.Module(), max_epochs=2)


@light
def resume_in_mid_window(run: Run) -> None:
    class Saver(run.framework.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            trainer.save_checkpoint(run.folder / f"batch-{batch_idx}.ckpt")

    run.DataModule.train_batches = 4
    run.make_trainer(callbacks=[Saver()], accumulate_grad_batches=2)
    run.fit(run.Module(), datamodule=run.DataModule())
    resume(run, "batch-2.ckpt", run.Module(), max_epochs=2, accumulate_grad_batches=2)


@light
def resume_manual_optimization(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(manual(run, optimizers=2)(), datamodule=run.DataModule())
    resume(run, "epoch=0-step=4.ckpt", manual(run, optimizers=2)(), max_epochs=2)


@full
def validate_test_predict_from_a_checkpoint(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(run.Module(), datamodule=run.DataModule())
    run.lines.clear()
    for verb in ("validate", "test", "predict"):
        run.make_trainer()
        module = run.Module()
        run.call(verb, module, datamodule=run.DataModule(), ckpt_path=str(run.folder / "epoch=0-step=2.ckpt"))


@full
def save_by_hand(run: Run) -> None:
    run.make_trainer()
    run.fit()
    run.lines.append("saving")
    run.trainer.save_checkpoint(run.folder / "mine.ckpt")
    run.lines.append("saving weights only")
    run.trainer.save_checkpoint(run.folder / "weights.ckpt", weights_only=True)
    for name in run.files():
        checkpoint = torch.load(run.folder / name, weights_only=False)
        known = [key for key in sorted(checkpoint) if not key.endswith("_version")]
        run.lines.append(f"{name} {known} epoch {checkpoint['epoch']} step {checkpoint['global_step']}")


# ------------------------------------------------------------------------------------------------ which files are left


@light
def files_kept(run: Run) -> None:
    values = [3.0, 1.0, 2.0, 4.0]

    class Module(run.Module):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("v", values[self.current_epoch])

    for number, arguments in enumerate(
        (
            {},
            {"monitor": "v"},
            {"monitor": "v", "mode": "max", "save_top_k": 2},
            {"save_top_k": -1},
            {"save_top_k": 0, "save_last": True},
            {"save_last": True},
            {"monitor": "v", "save_last": True},
            {"filename": "m-{epoch:02d}-{v:.2f}-{step}", "monitor": "v"},
            {"filename": "m-{epoch:02d}-{v:.2f}", "auto_insert_metric_name": False, "monitor": "v"},
            {"filename": "c"},
            {"filename": "c", "save_top_k": -1},
            {"every_n_train_steps": 3, "save_top_k": -1},
            {"every_n_epochs": 2, "save_top_k": -1},
            {"monitor": "v", "save_on_train_epoch_end": False},
            {"monitor": "v", "save_weights_only": True},
        )
    ):
        folder = run.folder / str(number)
        saving = run.framework.ModelCheckpoint(dirpath=str(folder), **arguments)
        run.make_trainer(max_epochs=4, callbacks=[saving])
        run.lines.clear() if number == 0 else None
        before = len(run.lines)
        run.trainer.fit(Module())
        del run.lines[before:]
        best = str(saving.best_model_path).rpartition("/")[2]
        last = str(saving.last_model_path).rpartition("/")[2]
        left = sorted(path.name for path in folder.glob("*.ckpt"))
        run.lines.append(f"{arguments}: {left} best '{best}' last '{last}' score {saving.best_model_score}")
