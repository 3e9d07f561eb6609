"""Training by the Trainer gives the weights of the loop that everyone writes by hand, bit for bit."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader

from fulmen import Callback
from fulmen.core.optimizer import LRSchedulerConfig

from .by_hand import (
    Regressor,
    assert_same_optimizer,
    assert_same_weights,
    dataset,
    loader,
    sgd,
    train_by_hand,
    twins,
)

OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "nesterov": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_with_an_optimizer_equal_the_hand_written_loop(trainer_of, name):
    make = OPTIMIZERS[name]
    module, twin = twins(configure=lambda m: make(m.parameters()))
    trainer = trainer_of(max_epochs=3)

    trainer.fit(module, loader(22))
    optimizer = make(twin.parameters())
    train_by_hand(twin, loader(22), 3, optimizer)

    assert_same_weights(module, twin)
    assert_same_optimizer(trainer.optimizers[0], optimizer)
    assert trainer.global_step == 18
    assert trainer.current_epoch == 3


def test_weights_with_lbfgs_equal_the_hand_written_closure(trainer_of):
    make = functools.partial(torch.optim.LBFGS, lr=0.1, max_iter=4)
    module, twin = twins(configure=lambda m: make(m.parameters()))

    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, loader(12))
    optimizer = make(twin.parameters())
    for _ in range(2):
        for batch in loader(12):

            def closure(batch=batch):
                optimizer.zero_grad()
                loss = twin.loss(batch)
                loss.backward()
                return loss

            optimizer.step(closure)

    assert_same_weights(module, twin)
    assert trainer.global_step == 6  # one per batch, however often the closure was called


@pytest.mark.parametrize(
    ("entry", "per_step", "every"),
    [
        ({}, False, 1),
        ({"interval": "epoch", "frequency": 2}, False, 2),
        ({"interval": "step"}, True, 1),
        ({"interval": "step", "frequency": 4}, True, 4),
        ({"interval": "3step"}, True, 3),
        ({"interval": "2epoch"}, False, 2),
    ],
)
def test_weights_with_a_scheduler_equal_the_hand_written_loop(trainer_of, entry, per_step, every):
    def configure(module):
        optimizer = sgd(module)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": ExponentialLR(optimizer, 0.5), **entry}}

    module, twin = twins(configure=configure)
    trainer = trainer_of(max_epochs=4)
    trainer.fit(module, loader(20))

    optimizer = sgd(twin)
    scheduler = ExponentialLR(optimizer, 0.5)
    counts = [0]

    def step():
        counts[0] += 1
        if counts[0] % every == 0:
            scheduler.step()

    train_by_hand(twin, loader(20), 4, optimizer, **{"after_step" if per_step else "after_epoch": step})

    assert_same_weights(module, twin)
    assert_same_optimizer(trainer.optimizers[0], optimizer)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_with_one_cycle_per_step_equal_the_hand_written_loop(trainer_of, accumulate):
    def schedule(optimizer, steps):
        return OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)

    def configure(module):
        optimizer = sgd(module)
        steps = int(module.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule(optimizer, steps), "interval": "step"}]

    module, twin = twins(configure=configure)
    trainer_of(max_epochs=3, accumulate_grad_batches=accumulate).fit(module, loader(20))  # 5 batches

    optimizer = sgd(twin)
    scheduler = schedule(optimizer, 3 * 5 if accumulate == 1 else 3 * 3)
    train_by_hand(twin, loader(20), 3, optimizer, accumulate=accumulate, after_step=scheduler.step)

    assert_same_weights(module, twin)


def test_weights_with_two_schedulers_equal_the_hand_written_loop(trainer_of):
    def schedulers(optimizer):
        return StepLR(optimizer, 1, gamma=0.7), ExponentialLR(optimizer, 0.9)

    def configure(module):
        optimizer = sgd(module)
        one, other = schedulers(optimizer)
        return [optimizer], [one, {"scheduler": other, "interval": "step"}]

    module, twin = twins(configure=configure)
    trainer_of(max_epochs=3).fit(module, loader(12))

    optimizer = sgd(twin)
    one, other = schedulers(optimizer)
    train_by_hand(twin, loader(12), 3, optimizer, after_step=other.step, after_epoch=one.step)

    assert_same_weights(module, twin)


class Watched(Regressor):
    """Logs its loss, for a scheduler on a plateau."""

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.3)


@pytest.mark.parametrize(("interval", "monitor"), [("step", "loss_step"), ("epoch", "loss_epoch"), ("epoch", "loss")])
def test_weights_with_a_scheduler_on_a_plateau_equal_the_hand_written_loop(trainer_of, interval, monitor):
    def configure(module):
        optimizer = sgd(module)
        entry = {"scheduler": plateau(optimizer), "monitor": monitor, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": entry}

    torch.manual_seed(1)
    module = Watched(configure)
    twin = Regressor()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=4)
    trainer.fit(module, loader(18))

    optimizer = sgd(twin)
    scheduler = plateau(optimizer)
    for _ in range(4):
        total, samples = 0.0, 0
        for batch in loader(18):
            optimizer.zero_grad()
            loss = twin.loss(batch)
            loss.backward()
            optimizer.step()
            total, samples = total + loss.item() * len(batch[0]), samples + len(batch[0])
            if interval == "step":
                scheduler.step(loss.detach())
        if interval == "epoch":
            scheduler.step(torch.tensor(total / samples))

    assert_same_weights(module, twin)
    assert optimizer.param_groups[0]["lr"] < 0.05  # the schedule did something
    assert trainer.optimizers[0].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("algorithm", "clip"),
    [(None, clip_grad_norm_), ("norm", clip_grad_norm_), ("value", clip_grad_value_)],
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_weights_with_clipped_gradients_equal_the_hand_written_loop(trainer_of, algorithm, clip, accumulate):
    module, twin = twins()
    trainer = trainer_of(
        max_epochs=2, gradient_clip_val=0.1, gradient_clip_algorithm=algorithm, accumulate_grad_batches=accumulate
    )
    trainer.fit(module, loader(20))

    train_by_hand(
        twin, loader(20), 2, sgd(twin), accumulate=accumulate, before_step=lambda: clip(twin.parameters(), 0.1)
    )

    assert_same_weights(module, twin)


@given(accumulate=st.integers(1, 5), batches=st.integers(1, 9), epochs=st.integers(1, 3), ragged=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_with_accumulation_equal_the_hand_written_loop(trainer_of, accumulate, batches, epochs, ragged):
    samples = batches * 2 - ragged
    module, twin = twins()
    trainer = trainer_of(max_epochs=epochs, accumulate_grad_batches=accumulate)
    trainer.fit(module, loader(samples, 2))

    train_by_hand(twin, loader(samples, 2), epochs, sgd(twin), accumulate=accumulate)

    assert_same_weights(module, twin)
    assert trainer.global_step == epochs * -(-batches // accumulate)


@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_weights_with_accumulation_over_a_limit_divide_by_what_the_window_really_has(trainer_of, accumulate):
    module, twin = twins()
    trainer_of(max_epochs=2, limit_train_batches=5, accumulate_grad_batches=accumulate).fit(module, loader(40))

    few = list(loader(40))[:5]
    train_by_hand(twin, few, 2, sgd(twin), accumulate=accumulate)

    assert_same_weights(module, twin)


def test_weights_with_accumulation_of_equal_batches_equal_one_big_batch_in_double_precision(trainer_of):
    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    data = dataset(24, torch.float64)
    trainer = trainer_of(max_epochs=2, accumulate_grad_batches=3, precision="64-true")
    trainer.fit(module, DataLoader(data, batch_size=4))

    twin.double()
    train_by_hand(twin, DataLoader(data, batch_size=12), 2, sgd(twin))

    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_weights_with_shuffling_and_dropout_draw_random_numbers_as_the_loop_does(trainer_of, accumulate):
    module, twin = twins(dropout=0.5)

    torch.manual_seed(7)
    trainer_of(max_epochs=3, accumulate_grad_batches=accumulate).fit(module, loader(18, shuffle=True))
    after = torch.rand(1)

    torch.manual_seed(7)
    train_by_hand(twin, loader(18, shuffle=True), 3, sgd(twin), accumulate=accumulate)

    assert_same_weights(module, twin)
    assert torch.equal(after, torch.rand(1))


def test_random_numbers_of_a_data_set_do_not_change_those_of_the_model(trainer_of):
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            noise = torch.randn(4)  # drawn, and not used
            return torch.full_like(noise, float(index)), torch.ones(1)

    class Calm(Noisy):
        def __getitem__(self, index):
            return torch.full((4,), float(index)), torch.ones(1)

    module, twin = twins(dropout=0.3)

    torch.manual_seed(7)
    trainer_of(max_epochs=2).fit(module, DataLoader(Noisy(), batch_size=3))
    torch.manual_seed(7)
    train_by_hand(twin, DataLoader(Calm(), batch_size=3), 2, sgd(twin))

    assert_same_weights(module, twin)


def test_weights_with_a_generator_of_its_own_equal_the_hand_written_loop(trainer_of):
    def shuffled():
        return loader(18, shuffle=True, generator=torch.Generator().manual_seed(3))

    module, twin = twins()
    trainer_of(max_epochs=2).fit(module, shuffled())
    train_by_hand(twin, shuffled(), 2, sgd(twin))

    assert_same_weights(module, twin)


@pytest.mark.parametrize("persistent", [False, True])
def test_weights_with_workers_equal_the_hand_written_loop(trainer_of, persistent):
    def with_workers(persistent=False):
        return loader(12, shuffle=True, num_workers=2, persistent_workers=persistent)

    module, twin = twins(dropout=0.5)

    torch.manual_seed(7)
    trainer_of(max_epochs=2).fit(module, with_workers(persistent))  # which changes nothing in the order
    torch.manual_seed(7)
    train_by_hand(twin, with_workers(), 2, sgd(twin))

    assert_same_weights(module, twin)


def test_weights_in_mixed_precision_equal_the_hand_written_loop_with_autocast(trainer_of):
    module, twin = twins()
    trainer_of(max_epochs=2, precision="bf16-mixed").fit(module, loader(20))

    train_by_hand(
        twin,
        loader(20),
        2,
        sgd(twin),
        context=lambda: torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False),
    )

    assert_same_weights(module, twin)
    plain, _ = twins()
    trainer_of(max_epochs=2).fit(plain, loader(20))
    assert not torch.equal(plain.net[0].weight, module.net[0].weight)  # and it was not 32-bit


def test_weights_in_double_precision_equal_the_hand_written_loop_in_double(trainer_of):
    seen = []

    class Curious(Regressor):
        def training_step(self, batch, batch_idx):
            seen.append(torch.zeros(1).dtype)
            return super().training_step(batch, batch_idx)

    torch.manual_seed(1)
    module = Curious()
    twin = Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2, precision="64-true").fit(module, loader(20))

    twin.double()
    train_by_hand(twin, [tuple(t.double() for t in batch) for batch in loader(20)], 2, sgd(twin))

    assert_same_weights(module, twin)
    assert module.dtype == torch.float64
    assert set(seen) == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_weights_in_bfloat16_equal_the_hand_written_loop_in_bfloat16(trainer_of):
    module, twin = twins()
    trainer_of(max_epochs=2, precision="bf16-true").fit(module, loader(20))

    twin.bfloat16()
    train_by_hand(twin, [tuple(t.bfloat16() for t in batch) for batch in loader(20)], 2, sgd(twin))

    assert_same_weights(module, twin)


def test_weights_with_validation_in_between_equal_the_hand_written_loop_without(trainer_of):
    class Validated(Regressor):
        def validation_step(self, batch, batch_idx):
            return self.loss(batch)

    torch.manual_seed(1)
    module = Validated(dropout=0.0)
    twin = Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2, val_check_interval=2).fit(module, loader(20), loader(8))

    train_by_hand(twin, loader(20), 2, sgd(twin))

    assert_same_weights(module, twin)


def test_weights_with_a_frozen_layer_leave_it_alone(trainer_of):
    def configure(module):
        return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)

    module, twin = twins(configure=configure)
    for one in (module, twin):
        one.net[0].requires_grad_(False)
    before = module.net[0].weight.clone()
    trainer_of(max_epochs=2).fit(module, loader(12))
    train_by_hand(twin, loader(12), 2, configure(twin))

    assert_same_weights(module, twin)
    assert torch.equal(module.net[0].weight, before)


def test_weights_with_no_optimizer_do_not_change(trainer_of):
    module, twin = twins(configure=lambda m: None)
    trainer = trainer_of(max_epochs=1)

    with pytest.warns(UserWarning, match="changes no parameter"):
        trainer.fit(module, loader(8))

    assert_same_weights(module, twin)


@pytest.mark.parametrize("own_step", [False, True])
def test_weights_with_optimizer_and_scheduler_put_there_by_a_callback_equal_the_hand_written_loop(trainer_of, own_step):
    class Steps(Regressor):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            optimizer.step(closure=optimizer_closure)

    class Replaces(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.optimizers = [torch.optim.Adam(pl_module.parameters(), lr=0.05)]
                scheduler = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizers[0], 0.5)
                trainer.lr_scheduler_configs = [LRSchedulerConfig(scheduler)]

    torch.manual_seed(1)
    module, twin = (Steps if own_step else Regressor)(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=3, callbacks=Replaces()).fit(module, loader(12))

    train_by_hand(twin, loader(12), 1, sgd(twin))
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    train_by_hand(twin, loader(12), 1, optimizer)
    optimizer.param_groups[0]["lr"] *= 0.5
    train_by_hand(twin, loader(12), 1, optimizer)
    assert_same_weights(module, twin)
