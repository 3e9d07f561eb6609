"""A run that stops at the end of an epoch and goes on from its file equals the run that never stopped, bit for bit."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from fulmen import Callback, LightningDataModule
from fulmen.callbacks import EarlyStopping, ModelCheckpoint

from .by_hand import Regressor, assert_same_optimizer, assert_same_weights, loader, sgd


def with_epoch_schedule(module):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    return [optimizer], [ExponentialLR(optimizer, 0.7)]


def with_step_schedule(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    return [optimizer], [{"scheduler": OneCycleLR(optimizer, 0.1, total_steps=24), "interval": "step"}]


def with_plateau(module):
    optimizer = sgd(module)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


class Validated(Regressor):
    def validation_step(self, batch, batch_idx):
        self.log("val", self.loss(batch))


def new(configure=None):
    torch.manual_seed(1)
    return Validated(configure)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(
    ("configure", "arguments"),
    [
        (sgd, {}),
        (with_epoch_schedule, {}),
        (with_step_schedule, {}),
        (with_plateau, {}),
        (functools.partial(torch.optim.LBFGS, max_iter=2), {}),
        (sgd, {"accumulate_grad_batches": 4}),
        (sgd, {"precision": "bf16-mixed", "gradient_clip_val": 0.1}),
        (sgd, {"precision": "64-true"}),
    ],
    ids=["sgd", "epoch_schedule", "step_schedule", "plateau", "lbfgs", "accumulation", "mixed", "double"],
)
def test_resumed_run_equals_the_run_that_never_stopped(trainer_of, tmp_path, configure, arguments, stop):
    if isinstance(configure, functools.partial):
        make = configure

        def configure(module):
            return make(module.parameters())

    whole = new(configure)
    straight = trainer_of(max_epochs=4, **arguments)
    straight.fit(whole, loader(24), loader(8))

    first = trainer_of(max_epochs=stop, **arguments)
    first.fit(new(configure), loader(24), loader(8))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    torch.manual_seed(99)
    resumed = Validated(configure)  # other weights, which the file replaces
    second = trainer_of(max_epochs=4, **arguments)
    second.fit(resumed, loader(24), loader(8), ckpt_path=tmp_path / "stop.ckpt")

    assert_same_weights(resumed, whole)
    assert_same_optimizer(second.optimizers[0], straight.optimizers[0])
    for one, other in zip(second.lr_scheduler_configs, straight.lr_scheduler_configs, strict=True):
        assert one.scheduler.state_dict() == other.scheduler.state_dict()
    assert (second.current_epoch, second.global_step) == (straight.current_epoch, straight.global_step)
    assert second.callback_metrics["val"] == straight.callback_metrics["val"]


def test_resumed_manual_optimization_equals_the_run_that_never_stopped(trainer_of, tmp_path):
    class ByHand(Regressor):
        def __init__(self):
            super().__init__(lambda m: [sgd(m.net[0]), torch.optim.Adam(m.net[3].parameters())])
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

    def fresh():
        torch.manual_seed(1)
        return ByHand()

    whole, stopped, resumed = fresh(), fresh(), fresh()
    straight = trainer_of(max_epochs=3)
    straight.fit(whole, loader(12))
    first = trainer_of(max_epochs=2)
    first.fit(stopped, loader(12))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    second = trainer_of(max_epochs=3)
    second.fit(resumed, loader(12), ckpt_path=tmp_path / "stop.ckpt")

    assert_same_weights(resumed, whole)
    for one, other in zip(second.optimizers, straight.optimizers, strict=True):
        assert_same_optimizer(one, other)
    assert second.global_step == straight.global_step == 18


@pytest.mark.parametrize("when", ["on_train_epoch_end", "on_validation_end", "checkpoint"])
def test_file_written_at_the_end_of_an_epoch_goes_on_with_the_next(trainer_of, tmp_path, when):
    path = tmp_path / "epoch1.ckpt"

    class Saves(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if when == "on_train_epoch_end" and trainer.current_epoch == 1:
                trainer.save_checkpoint(path)

        def on_validation_end(self, trainer, pl_module):
            if when == "on_validation_end" and trainer.current_epoch == 1 and not trainer.sanity_checking:
                trainer.save_checkpoint(path)

    def writers():
        if when != "checkpoint":
            return []
        return [ModelCheckpoint(tmp_path, filename="epoch{epoch}", auto_insert_metric_name=False, save_top_k=-1)]

    whole = new(with_epoch_schedule)
    first = trainer_of(max_epochs=4, callbacks=[Saves(), *writers()], enable_checkpointing=when == "checkpoint")
    first.fit(whole, loader(24), loader(8))

    resumed = new(with_epoch_schedule)
    epochs = []

    class Looks(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            epochs.append(trainer.current_epoch)

    second = trainer_of(max_epochs=4, callbacks=[Looks(), *writers()], enable_checkpointing=when == "checkpoint")
    second.fit(resumed, loader(24), loader(8), ckpt_path=path)

    assert_same_weights(resumed, whole)
    assert epochs == [2] * 6 + [3] * 6


def test_best_and_last_name_the_files_that_the_checkpoint_callback_wrote(trainer_of, tmp_path):
    class Worsens(Validated):
        def validation_step(self, batch, batch_idx):
            self.log("val", float(self.current_epoch != 1))

    torch.manual_seed(1)
    module = Worsens()
    weights = []

    class Keeps(Callback):
        def on_validation_end(self, trainer, pl_module):
            weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    writer = ModelCheckpoint(tmp_path, monitor="val", save_last=True)
    trainer = trainer_of(max_epochs=3, enable_checkpointing=True, callbacks=[writer, Keeps()], num_sanity_val_steps=0)
    trainer.fit(module, loader(12), loader(8))

    trainer.validate(module, loader(8), ckpt_path="best", verbose=False)
    assert all(torch.equal(value, weights[1][name]) for name, value in module.state_dict().items())
    trainer.validate(module, loader(8), ckpt_path="last", verbose=False)
    assert all(torch.equal(value, weights[2][name]) for name, value in module.state_dict().items())

    trainer.max_epochs = 4
    trainer.fit(module, loader(12), loader(8), ckpt_path="last")
    torch.manual_seed(1)
    whole = Worsens()
    trainer_of(max_epochs=4).fit(whole, loader(12), loader(8))
    assert_same_weights(module, whole)


def test_file_is_plain_data_and_loads_weights_only(trainer_of, tmp_path):
    trainer = trainer_of(
        max_epochs=2,
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(tmp_path, monitor="val"), EarlyStopping("val")],
    )
    trainer.fit(new(with_plateau), loader(12), loader(8))
    trainer.save_checkpoint(tmp_path / "all.ckpt")

    checkpoint = torch.load(tmp_path / "all.ckpt", weights_only=True)

    assert checkpoint["epoch"] == 2
    assert checkpoint["global_step"] == 6
    assert {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops"} <= checkpoint.keys()
    _assert_plain(checkpoint)


def _assert_plain(value):
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) in (str, int)
            _assert_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _assert_plain(item)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), value


def test_file_in_the_form_of_lightning_is_resumed(trainer_of, tmp_path):
    """As Lightning 2.6 writes it: its own counters, and nothing that only we know."""
    whole, stopped = new(with_epoch_schedule), new(with_epoch_schedule)
    trainer_of(max_epochs=4).fit(whole, loader(24), loader(8))
    first = trainer_of(max_epochs=2)
    first.fit(stopped, loader(24), loader(8))

    def counters(ready, completed, **more):
        both = {"ready": ready, "completed": completed, **more}
        return {"total": dict(both), "current": dict(both)}

    batches = {
        "total": {"ready": 12, "started": 12, "processed": 12, "completed": 12},
        "current": {"ready": 6, "started": 6, "processed": 6, "completed": 6},
        "is_last_batch": True,
    }
    torch.save(
        {
            "epoch": 1,
            "global_step": 12,
            "pytorch-lightning_version": "2.6.0",
            "state_dict": stopped.state_dict(),
            "loops": {
                "fit_loop": {
                    "state_dict": {},
                    "epoch_loop.state_dict": {"_batches_that_stepped": 12},
                    "epoch_loop.batch_progress": batches,
                    "epoch_loop.scheduler_progress": counters(2, 2),
                    "epoch_loop.automatic_optimization.state_dict": {},
                    "epoch_loop.automatic_optimization.optim_progress": {
                        "optimizer": {"step": counters(12, 12), "zero_grad": counters(12, 12, started=12)}
                    },
                    "epoch_loop.manual_optimization.state_dict": {},
                    "epoch_loop.manual_optimization.optim_step_progress": counters(0, 0),
                    "epoch_loop.val_loop.state_dict": {},
                    "epoch_progress": counters(2, 1, started=2, processed=2),
                },
            },
            "callbacks": {},
            "optimizer_states": [first.optimizers[0].state_dict()],
            "lr_schedulers": [first.lr_scheduler_configs[0].scheduler.state_dict()],
        },
        tmp_path / "lightning.ckpt",
    )

    resumed = new(with_epoch_schedule)
    second = trainer_of(max_epochs=4)
    second.fit(resumed, loader(24), loader(8), ckpt_path=tmp_path / "lightning.ckpt")

    assert_same_weights(resumed, whole)
    assert (second.current_epoch, second.global_step) == (4, 24)


def test_state_of_callbacks_and_datamodule_comes_back(trainer_of, tmp_path):
    class Counts(Callback):
        batches = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.batches += 1

        def state_dict(self):
            return {"batches": self.batches}

        def load_state_dict(self, state_dict):
            self.batches = state_dict["batches"]

    class Data(LightningDataModule):
        epochs = 0

        def train_dataloader(self):
            self.epochs += 1
            return loader(12)

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state_dict):
            self.epochs = state_dict["epochs"]

    first = trainer_of(max_epochs=2, callbacks=Counts())
    first.fit(Regressor(), datamodule=Data())
    first.save_checkpoint(tmp_path / "stop.ckpt")
    counts, data = Counts(), Data()
    trainer_of(max_epochs=3, callbacks=counts).fit(Regressor(), datamodule=data, ckpt_path=tmp_path / "stop.ckpt")

    assert (counts.batches, data.epochs) == (9, 1)  # the run that never stopped has asked for its loader once


def test_on_save_and_on_load_checkpoint_add_to_the_file(trainer_of, tmp_path):
    class Remembers(Regressor):
        memory = None

        def on_save_checkpoint(self, checkpoint):
            checkpoint["memory"] = [1, 2, 3]

        def on_load_checkpoint(self, checkpoint):
            self.memory = checkpoint["memory"]

    first = trainer_of(max_epochs=1)
    first.fit(Remembers(), loader(4))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    module = Remembers()
    trainer_of(max_epochs=2).fit(module, loader(4), ckpt_path=tmp_path / "stop.ckpt")

    assert module.memory == [1, 2, 3]


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, 8])
def test_file_written_within_an_accumulation_window_takes_the_window_from_its_beginning(trainer_of, tmp_path, at):
    class Saves(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.progress.total_batches == at:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    torch.manual_seed(1)
    whole = Regressor()
    straight = trainer_of(max_epochs=2, accumulate_grad_batches=3, callbacks=Saves())
    straight.fit(whole, loader(20))

    resumed = Regressor()
    second = trainer_of(max_epochs=2, accumulate_grad_batches=3)
    second.fit(resumed, loader(20), ckpt_path=tmp_path / "within.ckpt")

    assert_same_weights(resumed, whole)
    assert (second.global_step, second.progress.total_batches) == (
        straight.global_step,
        straight.progress.total_batches,
    )


@pytest.mark.filterwarnings("ignore:.*the best checkpoint is used")
@pytest.mark.parametrize("given", [True, False])
def test_best_is_known_when_the_module_makes_its_checkpoint_callback_itself(trainer_of, tmp_path, given):
    class Own(Validated):
        def configure_callbacks(self):
            return ModelCheckpoint(tmp_path, monitor="val")

    torch.manual_seed(1)
    module = Own()
    trainer = trainer_of(max_epochs=2, enable_checkpointing=True)
    trainer.fit(module, loader(12), loader(8))
    best = trainer.checkpoint_callback.best_model_path

    trainer.validate(module if given else None, loader(8), ckpt_path="best" if given else None, verbose=False)

    assert best
    assert trainer.loaded_ckpt_path == best


@pytest.mark.filterwarnings("ignore:.*state of callbacks")
def test_file_written_by_the_validation_that_ends_an_epoch_is_resumed_with_what_that_validation_logged(
    trainer_of, tmp_path
):
    arguments = {"max_epochs": 6, "check_val_every_n_epoch": 2}

    def with_plateau_of_every_other_epoch(module):
        configured = with_plateau(module)
        return {**configured, "lr_scheduler": {**configured["lr_scheduler"], "frequency": 2}}

    whole = new(with_plateau_of_every_other_epoch)
    writer = ModelCheckpoint(tmp_path, monitor="val", save_top_k=-1, filename="{epoch}")
    straight = trainer_of(**arguments, enable_checkpointing=True, callbacks=writer)
    straight.fit(whole, loader(12), loader(8))

    resumed = Validated(with_plateau_of_every_other_epoch)
    second = trainer_of(**arguments)
    second.fit(resumed, loader(12), loader(8), ckpt_path=tmp_path / "epoch=3.ckpt")

    assert_same_weights(resumed, whole)
    schedulers = [trainer.lr_scheduler_configs[0].scheduler.state_dict() for trainer in (straight, second)]
    assert schedulers[0] == schedulers[1]
