"""Users who write a part of the step themselves get the weights that the loop's own, shorter way gives."""

from __future__ import annotations

import pytest
import torch

from fulmen import Callback
from fulmen.core.optimizer import LightningOptimizer

from .by_hand import Regressor, assert_same_optimizer, assert_same_weights, loader, sgd, train_by_hand


class WritesOptimizerStep(Regressor):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.step(closure=optimizer_closure)


class CallsTheClosureFirst(Regressor):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        loss = optimizer_closure()
        assert loss is None or loss.ndim == 0
        optimizer.step()


class CallsSuper(Regressor):
    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)


class WritesBackward(Regressor):
    def backward(self, loss, *args, **kwargs):
        loss.backward(*args, **kwargs)


class WritesClipping(Regressor):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


class WritesZeroGrad(Regressor):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


class WritesSchedulerStep(Regressor):
    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step()


class WritesTransfer(Regressor):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return [part.to(device) for part in batch]


class WritesBatchHooks(Regressor):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


class WritesEveryEvent(Regressor):
    def on_before_zero_grad(self, optimizer): ...
    def on_before_backward(self, loss): ...
    def on_after_backward(self): ...
    def on_before_optimizer_step(self, optimizer): ...
    def on_train_batch_start(self, batch, batch_idx): ...
    def on_train_batch_end(self, outputs, batch, batch_idx): ...


class ReturnsADict(Regressor):
    def training_step(self, batch, batch_idx):
        return {"loss": self.loss(batch), "extra": batch_idx}


class IsCalledThroughForward(Regressor):
    def training_step(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self(x), y)


def plain_sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def scheduled(module):
    optimizer = sgd(module)
    return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    "kind",
    [
        WritesOptimizerStep,
        CallsTheClosureFirst,
        CallsSuper,
        WritesBackward,
        WritesClipping,
        WritesZeroGrad,
        WritesSchedulerStep,
        WritesTransfer,
        WritesBatchHooks,
        WritesEveryEvent,
        ReturnsADict,
        IsCalledThroughForward,
    ],
)
def test_weights_of_a_module_that_writes_an_operation_equal_those_of_one_that_does_not(trainer_of, kind, accumulate):
    torch.manual_seed(1)
    plain, module = Regressor(scheduled, dropout=0.2), kind(scheduled, dropout=0.2)
    module.load_state_dict(plain.state_dict())
    trainers = []
    for one in (plain, module):
        torch.manual_seed(5)
        trainers.append(trainer_of(max_epochs=2, accumulate_grad_batches=accumulate, gradient_clip_val=0.2))
        trainers[-1].fit(one, loader(20, shuffle=True))

    assert_same_weights(module, plain)
    assert_same_optimizer(trainers[1].optimizers[0], trainers[0].optimizers[0])
    assert trainers[1].global_step == trainers[0].global_step


def test_optimizer_step_that_steps_every_second_time_equals_the_hand_written_loop(trainer_of):
    class EverySecond(Regressor):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            if batch_idx % 2 == 0:
                optimizer.step(closure=optimizer_closure)
            else:
                optimizer_closure()

    torch.manual_seed(1)
    module, twin = EverySecond(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, loader(20))

    optimizer = sgd(twin)
    for _ in range(2):
        for index, batch in enumerate(loader(20)):
            optimizer.zero_grad()
            twin.loss(batch).backward()
            if index % 2 == 0:
                optimizer.step()

    assert_same_weights(module, twin)


def test_optimizer_step_that_warms_up_equals_the_hand_written_loop(trainer_of):
    class WarmsUp(Regressor):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * min(1.0, (self.trainer.global_step + 1) / 4)
            optimizer.step(closure=optimizer_closure)

    torch.manual_seed(1)
    module, twin = WarmsUp(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, loader(20))

    optimizer, steps = sgd(twin), 0
    for _ in range(2):
        for batch in loader(20):
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (steps + 1) / 4)
            optimizer.zero_grad()
            twin.loss(batch).backward()
            optimizer.step()
            steps += 1

    assert_same_weights(module, twin)


def test_optimizer_step_that_was_patched_onto_the_instance_is_used(trainer_of):
    torch.manual_seed(1)
    module, calls = Regressor(), []

    def optimizer_step(epoch, batch_idx, optimizer, closure):
        calls.append((epoch, batch_idx))
        optimizer.step(closure=closure)

    module.optimizer_step = optimizer_step
    trainer_of(max_epochs=2).fit(module, loader(8))

    assert calls == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_gradients_at_every_hook_equal_those_of_the_hand_written_loop(trainer_of):
    seen = {}

    def norm(module):
        return sum(p.grad.abs().sum() for p in module.parameters() if p.grad is not None)

    class Looks(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            seen.setdefault("zero_grad", []).append(norm(pl_module))

        def on_before_backward(self, trainer, pl_module, loss):
            seen.setdefault("before_backward", []).append(norm(pl_module))

        def on_after_backward(self, trainer, pl_module):
            seen.setdefault("after_backward", []).append(norm(pl_module))

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.setdefault("step", []).append(norm(pl_module))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.setdefault("end", []).append(norm(pl_module))

    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=1, accumulate_grad_batches=2, gradient_clip_val=0.05, callbacks=Looks())
    trainer.fit(module, loader(16))

    expected = {name: [] for name in ("zero_grad", "before_backward", "after_backward", "step", "end")}
    optimizer = sgd(twin)
    for index, batch in enumerate(loader(16)):
        if index % 2 == 0:
            expected["zero_grad"].append(norm(twin))
            optimizer.zero_grad()
        loss = twin.loss(batch) / 2
        expected["before_backward"].append(norm(twin))
        loss.backward()
        expected["after_backward"].append(norm(twin))
        if index % 2 == 1:
            expected["step"].append(norm(twin))  # before clipping
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.05)
            optimizer.step()
        expected["end"].append(norm(twin))

    assert seen == expected


def test_gradients_changed_in_on_before_optimizer_step_are_what_is_stepped(trainer_of):
    class Halves(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            for parameter in pl_module.parameters():
                parameter.grad.mul_(0.5)

    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2, callbacks=Halves()).fit(module, loader(16))

    def halve():
        for parameter in twin.parameters():
            parameter.grad.mul_(0.5)

    train_by_hand(twin, loader(16), 2, sgd(twin), before_step=halve)

    assert_same_weights(module, twin)


def test_clipping_of_a_part_of_the_parameters_is_the_users(trainer_of):
    class ClipsTheHead(Regressor):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            torch.nn.utils.clip_grad_norm_(self.net[3].parameters(), 0.01)

    torch.manual_seed(1)
    module, twin = ClipsTheHead(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, loader(16))

    def clip():
        torch.nn.utils.clip_grad_norm_(twin.net[3].parameters(), 0.01)

    train_by_hand(twin, loader(16), 2, sgd(twin), before_step=clip)

    assert_same_weights(module, twin)


def test_training_step_that_returns_none_leaves_the_batch_out(trainer_of):
    class SkipsOdd(Regressor):
        def training_step(self, batch, batch_idx):
            return self.loss(batch) if batch_idx % 2 == 0 else None

    torch.manual_seed(1)
    module, twin = SkipsOdd(plain_sgd), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, loader(20))

    even = [batch for index, batch in enumerate(loader(20)) if index % 2 == 0]
    train_by_hand(twin, even, 2, plain_sgd(twin))

    assert_same_weights(module, twin)


def test_training_step_that_returns_none_in_a_window_divides_by_the_batches_that_gave_a_loss(trainer_of):
    class SkipsSecond(Regressor):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else self.loss(batch)

    torch.manual_seed(1)
    module, twin = SkipsSecond(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=1, accumulate_grad_batches=3, precision="64-true").fit(module, loader(12))

    twin.double()
    batches = [[part.double() for part in batch] for index, batch in enumerate(loader(12)) if index != 1]
    train_by_hand(twin, batches, 1, sgd(twin), accumulate=2)

    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight_kind", [int, float, torch.tensor])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_loss_sum_and_weight_over_a_window_equal_one_big_batch(trainer_of, accumulate, weight_kind):
    class Sums(Regressor):
        def training_step(self, batch, batch_idx):
            x, y = batch
            errors = (self.net(x) - y) ** 2
            return {"loss_sum": errors.sum(), "weight": weight_kind(len(x))}

    torch.manual_seed(1)
    module, twin = Sums(), Regressor()
    twin.load_state_dict(module.state_dict())
    sizes = [1, 5, 3, 7, 2, 2]
    x, y = (part.double() for part in next(iter(loader(20, 20))))
    small = list(zip(x.split(sizes), y.split(sizes)))
    trainer_of(max_epochs=3, accumulate_grad_batches=accumulate, precision="64-true").fit(module, small)

    twin.double()
    big = []
    for start in range(0, len(small), accumulate):
        window = small[start : start + accumulate]
        big.append((torch.cat([x for x, _ in window]), torch.cat([y for _, y in window])))
    train_by_hand(twin, big, 3, sgd(twin))

    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_loss_sum_with_no_weight_at_all_changes_no_parameter_of_plain_sgd(trainer_of):
    class Empty(Regressor):
        def training_step(self, batch, batch_idx):
            return {"loss_sum": self.loss(batch) * 0.0, "weight": 0}

    module = Empty(plain_sgd)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer_of(max_epochs=1).fit(module, loader(8))

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
