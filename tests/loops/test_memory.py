"""What a step made is gone when the step is over."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from fulmen import Callback

from .by_hand import Regressor, loader


def with_graph() -> list[torch.Tensor]:
    """All tensors alive that hold on to a graph."""
    gc.collect()
    found = []
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.grad_fn is not None:
            found.append(thing)
    return found


class Logs(Regressor):
    """Logs its loss in all ways, and returns more than the loss."""

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        hidden = self.net(batch[0])
        self.log("step", loss, prog_bar=True)
        self.log("both", loss, on_step=True, on_epoch=True)
        self.log("epoch", hidden.mean(), on_step=False, on_epoch=True, reduce_fx="max")
        self.log_dict({"hidden": hidden.sum()}, on_epoch=True)
        return {"loss": loss, "hidden": hidden, "nested": [hidden, {"deep": hidden * 2}]}

    def validation_step(self, batch, batch_idx):
        self.log("val", self.loss(batch))


class LogsByHand(Logs):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        output = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(output["loss"])
        optimizer.step()
        return output


class StepsItself(Logs):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.step(closure=optimizer_closure)


class ReadsAll(Callback):
    """Reads what was logged, which keeps nothing alive either."""

    def __init__(self):
        self.alive = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        dict(trainer.callback_metrics), dict(trainer.logged_metrics), dict(trainer.progress_bar_metrics)
        self.alive.append(with_graph())


@pytest.mark.parametrize(
    ("kind", "accumulate"), [(Logs, 1), (Logs, 2), (LogsByHand, 1), (StepsItself, 1), (StepsItself, 2)]
)
def test_no_tensor_with_a_graph_is_alive_when_a_batch_ends(trainer_of, kind, accumulate):
    reads = ReadsAll()
    assert with_graph() == []
    trainer = trainer_of(max_epochs=1, callbacks=reads, accumulate_grad_batches=accumulate, log_every_n_steps=1)
    trainer.fit(kind(), loader(12), loader(4))

    assert reads.alive == [[], [], []]


def test_batch_is_gone_when_the_next_one_is_there(trainer_of):
    alive, batches = [], []

    class Watches(Regressor):
        def training_step(self, batch, batch_idx):
            alive.append(sum(one() is not None for one in batches))
            batches.append(weakref.ref(batch[0]))
            return self.loss(batch)

    trainer_of(max_epochs=2).fit(Watches(), loader(16))

    assert max(alive) <= 1  # the one before may live while the next one is on its way


def test_batch_and_module_are_gone_after_the_run(trainer_of):
    kept = []

    class Watches(Regressor):
        def training_step(self, batch, batch_idx):
            kept.append(weakref.ref(batch[0]))
            return self.loss(batch)

    module = Watches()
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, loader(8))
    kept.append(weakref.ref(trainer))
    module._trainer = None
    del trainer
    gc.collect()

    assert [one() for one in kept] == [None] * 3


def test_predictions_are_held_by_nobody_if_not_wanted(trainer_of):
    kept = []

    class Predicts(Regressor):
        def predict_step(self, batch, batch_idx):
            prediction = self.net(batch[0])
            kept.append(weakref.ref(prediction))
            return prediction

    trainer_of().predict(Predicts(), loader(8), return_predictions=False)
    gc.collect()

    assert [one() for one in kept] == [None, None]


def test_gradients_are_gone_while_validating_within_fit(trainer_of):
    seen = []

    class Looks(Logs):
        def validation_step(self, batch, batch_idx):
            seen.append([parameter.grad is None for parameter in self.parameters()])

    trainer_of(max_epochs=2, num_sanity_val_steps=0).fit(Looks(), loader(8), loader(4))

    assert seen == [[True] * 4] * 2
