"""Hooks of Lightning 1 are called with what they got then."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule
from fulmen.compat import old
from fulmen.loggers.logger import DummyLogger

pytestmark = [
    pytest.mark.usefixtures("enabled"),
    pytest.mark.filterwarnings("ignore::fulmen.utilities.warnings.LightningDeprecationWarning"),
]
BATCHES = list(torch.arange(8.0).reshape(4, 2, 1))


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_outputs_of_training_come_at_the_end_before_other_hooks(quiet: Any) -> None:
    class Model(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 1 else {"loss": super().training_step(batch, batch_idx), "index": batch_idx}

        def training_epoch_end(self, outputs: Any) -> None:
            self.seen.append([output["index"] for output in outputs])
            assert not any(output["loss"].requires_grad for output in outputs)
            self.log("mean", torch.stack([output["loss"] for output in outputs]).mean())

    class Reader(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            assert "mean" in trainer.callback_metrics

    model = Model()
    quiet(max_epochs=2, callbacks=Reader()).fit(model, BATCHES)
    assert model.seen == [[0, 2, 3], [0, 2, 3]]


def test_a_loss_alone_comes_as_a_dict(quiet: Any) -> None:
    class Model(Line):
        def training_epoch_end(self, outputs: Any) -> None:
            self.seen += [sorted(output) for output in outputs]

    model = Model()
    quiet().fit(model, BATCHES)
    assert model.seen == [["loss"]] * 4


def test_outputs_of_validation_are_a_list_or_a_list_for_each_loader(quiet: Any) -> None:
    class Model(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return None if batch_idx == 1 else (dataloader_idx, batch_idx)

        def validation_epoch_end(self, outputs: Any) -> None:
            self.seen.append(outputs)

    model = Model()
    trainer = quiet()
    trainer.validate(model, BATCHES[:3], verbose=False)
    trainer.validate(model, [DataLoader(BATCHES[:number], batch_size=None) for number in (1, 3, 2)], verbose=False)  # type: ignore[arg-type]
    assert model.seen == [[(0, 0), (0, 2)], [[(0, 0)], [(1, 0), (1, 2)], [(2, 0)]]]


def test_a_test_may_end_as_a_validation_does_and_log(quiet: Any) -> None:
    class Model(Line):
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": batch.mean()}

        def validation_epoch_end(self, outputs: Any) -> None:
            self.log("mean", torch.stack([output["loss"] for output in outputs]).mean())

        def test_epoch_end(self, outputs: Any) -> None:
            return self.validation_epoch_end(outputs)

    assert quiet().test(Model(), BATCHES, verbose=False) == [{"mean": 3.5}]


def test_what_a_step_end_returns_is_the_output(quiet: Any) -> None:
    class Model(Line):
        def training_step_end(self, output: Any) -> Any:
            return {"loss": output * 2, "by": "end"}

        def training_epoch_end(self, outputs: Any) -> None:
            self.seen += [output["by"] for output in outputs]

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return batch_idx

        def validation_step_end(self, output: Any) -> Any:
            return output + 10

        def validation_epoch_end(self, outputs: Any) -> None:
            self.seen.append(outputs)

    model, twice = Model(), Line()
    twice.load_state_dict(model.state_dict())
    quiet(num_sanity_val_steps=0).fit(model, BATCHES[:1], BATCHES[:2])
    assert model.seen == [[10, 11], "end"]
    loss = twice.training_step(BATCHES[0], 0) * 2
    loss.backward()
    twice.configure_optimizers().step()
    expected = [p - 0.01 * p.grad for p in twice.parameters()]
    assert [p.item() for p in model.parameters()] != [p.item() for p in expected]  # twice has been stepped already
    assert [p.item() for p in model.parameters()] == [p.item() for p in twice.parameters()]


def test_dicts_to_log_of_the_first_years_are_logged(quiet: Any) -> None:
    class Model(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return {"loss": loss, "log": {"train": loss}, "progress_bar": {"bar": batch_idx}}

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return {"val_loss": batch.mean()}

        def validation_end(self, outputs: Any) -> Any:
            mean = torch.stack([output["val_loss"] for output in outputs]).mean()
            return {"val_loss": mean, "log": {"val": mean}, "progress_bar": {"val_bar": mean}}

    trainer = quiet(logger=DummyLogger())
    trainer.fit(Model(), BATCHES, BATCHES)
    metrics = trainer.callback_metrics
    assert metrics["val_loss"] == metrics["val"] == metrics["val_bar"] == 3.5
    assert metrics["bar"] == 3
    assert {"train", "val"} <= trainer.logged_metrics.keys()
    assert not {"bar", "val_bar", "val_loss"} & trainer.logged_metrics.keys()
    assert {"bar", "val_bar"} <= trainer.progress_bar_metrics.keys()


def test_hooks_that_went_are_called_where_they_were(quiet: Any) -> None:
    seen: list[str] = []

    def note(name: str) -> Any:
        return lambda *given: seen.append(f"{name}{len(given) - 1}")

    names = ["on_init_start", "on_init_end", "on_pretrain_routine_start", "on_pretrain_routine_end"]
    names += ["on_epoch_start", "on_epoch_end", "on_batch_start", "on_batch_end", "on_train_batch_start"]
    names += ["on_train_batch_end", "on_train_epoch_start", "on_train_epoch_end", "on_fit_start", "setup"]
    names += ["on_before_accelerator_backend_setup", "on_configure_sharded_model"]
    listener = type("Listener", (Callback,), {name: note(name) for name in names})
    quiet(callbacks=listener()).fit(Line(), BATCHES[:1])
    assert seen == [
        *("on_init_start1", "on_init_end1", "on_before_accelerator_backend_setup2", "setup3"),
        *("on_configure_sharded_model2", "on_fit_start2", "on_pretrain_routine_start2", "on_pretrain_routine_end2"),
        *("on_epoch_start2", "on_train_epoch_start2", "on_batch_start2", "on_train_batch_start4"),
        *("on_train_batch_end5", "on_batch_end2", "on_train_epoch_end2", "on_epoch_end2"),
    ]


def test_hooks_of_the_module_that_went_are_called_too(quiet: Any) -> None:
    class Model(Line):
        def on_epoch_start(self) -> None:
            self.seen.append("epoch")

        def on_batch_start(self, batch: Any) -> None:
            self.seen.append(batch.shape)

        def on_epoch_end(self) -> None:
            self.log("end", 1.0)

    model = Model()
    trainer = quiet()
    trainer.fit(model, BATCHES[:1])
    assert model.seen == ["epoch", torch.Size([2, 1])]
    assert trainer.callback_metrics["end"] == 1


def test_ctrl_c_reaches_its_former_hook_and_an_error_does_not(quiet: Any) -> None:
    class Listener(Callback):
        heard = 0

        def on_keyboard_interrupt(self, trainer: Any, pl_module: Any) -> None:
            self.heard += 1

    class Ending(Line):
        by: BaseException

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise self.by

    for error, heard in ((ValueError("no"), 0), (KeyboardInterrupt(), 1)):
        model, listener = Ending(), Listener()
        model.by = error
        with pytest.raises((ValueError, SystemExit)):
            quiet(callbacks=listener).fit(model, BATCHES)
        assert listener.heard == heard


def test_hooks_get_the_arguments_that_they_had(quiet: Any) -> None:
    class Listener(Callback):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_train_batch_end(  # type: ignore[override]
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
        ) -> None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)  # type: ignore[call-arg]
            self.seen.append(("train", sorted(outputs), batch_idx, dataloader_idx))

        def on_validation_batch_end(  # type: ignore[override]
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
        ) -> None:
            self.seen.append(("val", outputs, batch_idx, dataloader_idx))

        def on_train_epoch_end(self, trainer: Any, pl_module: Any, outputs: Any) -> None:  # type: ignore[override]
            self.seen.append([sorted(output) for output in outputs])

    class Model(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return "output"

        def transfer_batch_to_device(self, batch: Any, device: Any) -> Any:  # type: ignore[override]
            return super().transfer_batch_to_device(batch, device, 0)

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:  # type: ignore[override]
            return (batch_idx, dataloader_idx)

    listener, model = Listener(), Model()
    trainer = quiet(callbacks=listener, num_sanity_val_steps=0)
    trainer.fit(model, BATCHES[:2], BATCHES[:1])
    train = [("train", ["loss"], index, 0) for index in (0, 1)]
    assert listener.seen == [*train, ("val", "output", 0, 0), [["loss"], ["loss"]]]
    assert trainer.predict(model, BATCHES[:2]) == [(0, 0), (1, 0)]


def test_a_callback_gets_back_the_state_that_it_returned(quiet: Any, tmp_path: Path) -> None:
    class Counter(Callback):
        count = 0

        def on_train_batch_end(self, *given: Any) -> None:
            self.count += 1

        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> Any:
            return {"count": self.count}

        def on_load_checkpoint(self, trainer: Any, pl_module: Any, callback_state: Any) -> None:  # type: ignore[override]
            self.count = callback_state["count"]

    trainer = quiet(callbacks=Counter())
    trainer.fit(Line(), BATCHES)

    class Saving(Counter):  # in the run, where its hooks are adapted
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "file.ckpt")

    quiet(callbacks=Saving()).fit(Line(), BATCHES)
    second = Saving()
    quiet(callbacks=second, max_epochs=2).fit(Line(), BATCHES, ckpt_path=tmp_path / "file.ckpt")
    assert second.count == 8


def test_configure_sharded_model_builds_the_model(quiet: Any) -> None:
    class Model(Line):
        def configure_sharded_model(self) -> None:
            self.seen.append("built")

    model = Model()
    quiet().fit(model, BATCHES)
    assert model.seen == ["built"]


def test_outputs_after_a_start_in_mid_epoch_are_said_to_be_few(quiet: Any, tmp_path: Path) -> None:
    class Model(Line):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1 and not (tmp_path / "file.ckpt").exists():
                self.trainer.save_checkpoint(tmp_path / "file.ckpt")

        def training_epoch_end(self, outputs: Any) -> None:
            self.seen.append(len(outputs))

    quiet().fit(Model(), BATCHES)
    model = Model()
    with pytest.warns(UserWarning, match="its first 2 batches are not among the `outputs`"):
        quiet().fit(model, BATCHES, ckpt_path=tmp_path / "file.ckpt")
    assert model.seen == [2]


def test_a_module_is_its_own_again_after_the_run_and_copies_of_it_always_are(quiet: Any) -> None:
    class Model(Line):
        def training_step_end(self, output: Any) -> Any:
            return output

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            assert "training_step" in vars(self)
            assert "training_step" not in vars(copy.deepcopy(self))

    model = Model()
    before = set(vars(model))
    quiet().fit(model, BATCHES)
    assert set(vars(model)) - before <= {"_trainer"}


def test_without_the_translation_the_house_says_what_to_write(quiet: Any) -> None:
    class Model(Line):
        def training_epoch_end(self, outputs: Any) -> None: ...

    old.disable()
    with pytest.raises(NotImplementedError, match="on_train_epoch_end"):
        quiet().fit(Model(), BATCHES)
