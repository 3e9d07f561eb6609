"""Manual optimization: the user steps, and every service is still there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fulmen import Callback, LightningModule
from fulmen.utilities.exceptions import MisconfigurationException

from .by_hand import Regressor, assert_same_optimizer, assert_same_weights, loader, sgd, train_by_hand


class Rivals(LightningModule):
    """Two networks with an optimizer each: the one makes samples, the other tells them from real ones.

    Args:
        service: how the other's parameters are kept from getting gradients.
    """

    def __init__(self, service: str = "toggle_optimizer") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.service = service
        self.maker, self.judge = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1))

    def losses(self, batch):
        noise = torch.randn(len(batch), 2)
        yield -self.judge(self.maker(noise)).mean()
        yield (self.judge(self.maker(noise)) - self.judge(batch)).mean() + self.judge(batch).square().mean()

    def training_step(self, batch, batch_idx):
        for optimizer, loss in zip(self.optimizers(), self.losses(batch[0])):
            if self.service == "toggle_model":
                with optimizer.toggle_model():
                    optimizer.zero_grad()
                    self.manual_backward(loss)
                    optimizer.step()
                continue
            if self.service == "toggle_optimizer":
                self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if self.service == "toggle_optimizer":
                self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [torch.optim.Adam(self.maker.parameters(), lr=0.01), torch.optim.SGD(self.judge.parameters(), lr=0.01)]


@pytest.mark.parametrize("service", ["toggle_optimizer", "toggle_model", "nothing"])
def test_two_optimizers_by_hand_equal_the_hand_written_loop(trainer_of, service):
    torch.manual_seed(1)
    module = Rivals(service)
    twin = copy.deepcopy(module)
    trainer = trainer_of(max_epochs=2)
    torch.manual_seed(3)
    trainer.fit(module, loader(20, shuffle=True))

    optimizers = twin.configure_optimizers()
    torch.manual_seed(3)
    for _ in range(2):
        for x, _ in loader(20, shuffle=True):
            for optimizer, loss in zip(optimizers, twin.losses(x)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    assert_same_weights(module, twin)
    for one, other in zip(trainer.optimizers, optimizers, strict=True):
        assert_same_optimizer(one, other)
    assert trainer.global_step == 2 * 5 * 2  # steps of both optimizers


def test_toggle_optimizer_keeps_gradients_from_the_others(trainer_of):
    seen = []

    class Looks(Rivals):
        def training_step(self, batch, batch_idx):
            maker, judge = self.optimizers()
            self.judge[0].bias.requires_grad_(False)  # frozen by the user: it stays so
            for optimizer in (maker, judge):
                self.toggle_optimizer(optimizer)
                seen.append({name: p.requires_grad for name, p in self.named_parameters()})
                self.untoggle_optimizer(optimizer)
            seen.append({name: p.requires_grad for name, p in self.named_parameters()})

    trainer_of(max_epochs=1, limit_train_batches=1).fit(Looks(), loader(4))

    of_maker, of_judge, after = seen
    assert {name for name, requires in of_maker.items() if requires} == {"maker.weight", "maker.bias"}
    assert {name for name, requires in of_judge.items() if requires} == {
        "judge.0.weight",
        "judge.2.weight",
        "judge.2.bias",
    }
    assert {name for name, requires in after.items() if not requires} == {"judge.0.bias"}


class ByHand(Regressor):
    """One optimizer by hand."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


def test_one_optimizer_by_hand_equals_automatic_optimization(trainer_of):
    torch.manual_seed(1)
    module, plain = ByHand(), Regressor()
    plain.load_state_dict(module.state_dict())
    for one in (module, plain):
        trainer = trainer_of(max_epochs=2)
        trainer.fit(one, loader(20))

        assert trainer.global_step == 10

    assert_same_weights(module, plain)


def test_accumulation_clipping_and_schedulers_by_hand_equal_automatic_optimization(trainer_of):
    def configure(module):
        optimizer = sgd(module)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    class Accumulates(ByHand):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            self.manual_backward(self.loss(batch) / 2)
            if batch_idx % 2 == 1:
                self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
                optimizer.step()
                optimizer.zero_grad()
                self.lr_schedulers().step()

    torch.manual_seed(1)
    module, plain = Accumulates(configure), Regressor(configure)
    plain.load_state_dict(module.state_dict())
    by_hand = trainer_of(max_epochs=2)
    by_hand.fit(module, loader(16))
    automatic = trainer_of(max_epochs=2, accumulate_grad_batches=2, gradient_clip_val=0.1)
    automatic.fit(plain, loader(16))

    assert_same_weights(module, plain)
    assert by_hand.global_step == automatic.global_step == 4
    assert by_hand.optimizers[0].param_groups[0]["lr"] == automatic.optimizers[0].param_groups[0]["lr"]


def test_steps_of_the_naked_optimizer_are_counted(trainer_of):
    class Naked(ByHand):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert type(optimizer) is torch.optim.SGD
            optimizer.zero_grad()
            self.loss(batch).backward()
            optimizer.step()

    class Listens(Callback):
        steps = 0

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.steps += 1

    listens = Listens()
    trainer = trainer_of(max_epochs=2, callbacks=listens)
    trainer.fit(Naked(), loader(12))

    assert trainer.global_step == listens.steps == 6


def test_max_steps_by_hand_counts_the_steps_of_all_optimizers(trainer_of):
    trainer = trainer_of(max_steps=6)
    trainer.fit(Rivals(), loader(40))

    assert trainer.global_step == 6


def test_closure_by_hand_equals_the_hand_written_closure(trainer_of):
    class Closes(ByHand):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()

            def closure():
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
                return loss

            optimizer.step(closure=closure)

    torch.manual_seed(1)
    module, twin = Closes(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, loader(12))
    train_by_hand(twin, loader(12), 2, sgd(twin))

    assert_same_weights(module, twin)
    assert trainer.global_step == 6


def test_mixed_precision_by_hand_equals_automatic_optimization(trainer_of):
    torch.manual_seed(1)
    module, plain = ByHand(), Regressor()
    plain.load_state_dict(module.state_dict())
    for one in (module, plain):
        trainer_of(max_epochs=2, precision="bf16-mixed").fit(one, loader(20))

    assert_same_weights(module, plain)


def test_optimizers_list_of_one_is_the_optimizer_itself(trainer_of):
    class Alone(ByHand):
        def configure_optimizers(self):
            return [sgd(self)]

    module = Alone()
    trainer_of(max_epochs=1).fit(module, loader(4))

    assert isinstance(module.optimizers(), torch.optim.SGD)


def test_manual_backward_in_automatic_optimization_says_what_to_do(trainer_of):
    class Confused(Regressor):
        def training_step(self, batch, batch_idx):
            self.manual_backward(self.loss(batch))

    with pytest.raises(MisconfigurationException, match="automatic_optimization = False"):
        trainer_of(max_epochs=1).fit(Confused(), loader(4))


def test_outputs_by_hand_reach_the_callbacks_without_a_graph(trainer_of):
    seen = []

    class Keeps(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(outputs)

    trainer_of(max_epochs=1, callbacks=Keeps()).fit(ByHand(), loader(8))

    assert [list(outputs) for outputs in seen] == [["loss"], ["loss"]]
    assert not any(outputs["loss"].requires_grad for outputs in seen)
