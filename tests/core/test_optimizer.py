"""All forms of `configure_optimizers`, when a scheduler is stepped, and the wrapped optimizer."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from fulmen import LightningModule
from fulmen.core.optimizer import LightningOptimizer, LRSchedulerConfig, NoOptimizer, Schedulers, configured_optimizers
from fulmen.loops.progress import Progress
from fulmen.utilities.exceptions import MisconfigurationException


class Module(LightningModule):
    def __init__(self, automatic=True):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.automatic_optimization = automatic


MODULE, MANUAL = Module(), Module(automatic=False)
SGD = torch.optim.SGD(MODULE.parameters(), lr=1.0)
ADAM = torch.optim.Adam(MODULE.parameters(), lr=1.0)
STEP, OTHER = StepLR(SGD, 1), ExponentialLR(ADAM, 0.5)
PLATEAU = ReduceLROnPlateau(SGD)


@pytest.mark.parametrize(
    ("returned", "optimizers", "schedulers"),
    [
        (SGD, [SGD], []),
        ([SGD], [SGD], []),
        ((SGD,), [SGD], []),
        ({"optimizer": SGD}, [SGD], []),
        ({"optimizer": SGD, "lr_scheduler": STEP}, [SGD], [STEP]),
        ({"optimizer": SGD, "lr_scheduler": {"scheduler": STEP}}, [SGD], [STEP]),
        ({"optimizer": SGD, "lr_scheduler": None}, [SGD], []),
        (([SGD], [STEP]), [SGD], [STEP]),
        (([SGD], STEP), [SGD], [STEP]),
        (([SGD], [{"scheduler": STEP}]), [SGD], [STEP]),
        (([SGD], []), [SGD], []),
        ([{"optimizer": SGD, "lr_scheduler": STEP}], [SGD], [STEP]),
    ],
)
def test_forms_of_one_optimizer_are_read(returned, optimizers, schedulers):
    found, configs = configured_optimizers(MODULE, returned)

    assert found == optimizers
    assert [config.scheduler for config in configs] == schedulers
    assert all(config == LRSchedulerConfig(config.scheduler, "epoch", 1) for config in configs)


@pytest.mark.parametrize(
    "returned",
    [
        [SGD, ADAM],
        (SGD, ADAM),
        ([SGD, ADAM], []),
        [{"optimizer": SGD}, {"optimizer": ADAM}],
    ],
)
def test_forms_of_two_optimizers_are_read_in_manual_optimization_only(returned):
    assert configured_optimizers(MANUAL, returned)[0] == [SGD, ADAM]
    with pytest.raises(RuntimeError, match="automatic_optimization = False"):
        configured_optimizers(MODULE, returned)


def test_schedulers_of_two_optimizers_stand_in_their_order():
    returned = [{"optimizer": SGD, "lr_scheduler": STEP}, {"optimizer": ADAM, "lr_scheduler": {"scheduler": OTHER}}]

    assert [config.scheduler for config in configured_optimizers(MANUAL, returned)[1]] == [STEP, OTHER]


@pytest.mark.parametrize(
    ("entry", "interval", "frequency"),
    [
        ({}, "epoch", 1),
        ({"interval": "step"}, "step", 1),
        ({"frequency": 3}, "epoch", 3),
        ({"interval": "100step"}, "step", 100),
        ({"interval": "2epoch"}, "epoch", 2),
        ({"interval": "5 steps", "frequency": 2}, "step", 10),
    ],
)
def test_interval_of_a_scheduler_may_have_a_unit(entry, interval, frequency):
    returned = {"optimizer": SGD, "lr_scheduler": {"scheduler": STEP, **entry}}
    ((config,),) = configured_optimizers(MODULE, returned)[1:]

    assert (config.interval, config.frequency) == (interval, frequency)


@pytest.mark.parametrize(
    "returned",
    [
        {"optimizer": SGD, "lr_scheduler": PLATEAU, "monitor": "x"},
        {"optimizer": SGD, "lr_scheduler": {"scheduler": PLATEAU, "monitor": "x"}},
        [{"optimizer": SGD, "lr_scheduler": PLATEAU, "monitor": "x"}],
        ([SGD], [{"scheduler": PLATEAU, "monitor": "x", "strict": True}]),
    ],
)
def test_scheduler_on_a_plateau_knows_its_monitor(returned):
    ((config,),) = configured_optimizers(MODULE, returned)[1:]

    assert (config.reduce_on_plateau, config.monitor, config.strict) == (True, "x", True)


def test_no_optimizer_changes_nothing_and_warns():
    with pytest.warns(UserWarning, match="changes no parameter"):
        (optimizer,), _ = configured_optimizers(MODULE, None)

    assert isinstance(optimizer, NoOptimizer)
    assert optimizer.step(lambda: 3) == 3
    assert optimizer.state_dict() == {}


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        (3, MisconfigurationException, "none of its forms"),
        ([], MisconfigurationException, "none of its forms"),
        ([SGD, STEP], MisconfigurationException, "cannot stand where an optimizer"),
        ({"lr_scheduler": STEP}, MisconfigurationException, "without an optimizer"),
        ({"optimizer": SGD, "lr_scheduler": {"interval": "step"}}, MisconfigurationException, "but not 'scheduler'"),
        ({"optimizer": SGD, "lr_scheduler": PLATEAU}, MisconfigurationException, "'monitor'"),
        ({"optimizer": SGD, "lr_scheduler": {"scheduler": STEP, "interval": "day"}}, Exception, "day"),
        ({"optimizer": SGD, "lr_scheduler": {"scheduler": STEP, "frequency": 0}}, MisconfigurationException, "from 1"),
        ({"optimizer": SGD, "lr_scheduler": OTHER}, MisconfigurationException, "did not return"),
        ({"optimizer": SGD, "lr_scheduler": object()}, TypeError, "state_dict"),
    ],
)
def test_wrong_forms_are_refused(returned, error, match):
    with pytest.raises(error, match=match):
        configured_optimizers(MODULE, returned)


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        ({"optimizer": SGD, "scheduler": STEP}, "'scheduler'"),
        ({"optimizer": SGD, "lr_scheduler": {"scheduler": STEP, "intervall": "step"}}, "intervall"),
        ({"optimizer": SGD, "lr_scheduler": OneCycleLR(SGD, 0.1, total_steps=9)}, "'interval': 'step'"),
    ],
)
def test_doubtful_forms_warn(returned, match):
    with pytest.warns(RuntimeWarning, match=match):
        configured_optimizers(MODULE, returned)


# -- when schedulers step ---------------------------------------------------------------------------------------------


def stepped(config, batches, epochs, accumulate=1):
    """After which batches, counted over all epochs, the scheduler was stepped."""
    progress, calls = Progress(accumulate_grad_batches=accumulate), []
    schedulers = Schedulers([config], lambda scheduler, metric: calls.append(progress.total_batches), dict)
    for _ in range(epochs):
        progress.start_epoch(batches)
        for index in range(batches):
            progress.start_batch(index, index + 1 == batches)
            progress.finish_batch()
            schedulers.step(progress)
            progress.count_logger_step()
        schedulers.finish_epoch(progress)
        progress.close_epoch()
        progress.finish_epoch()
    return calls


@pytest.mark.parametrize(
    ("interval", "frequency", "accumulate", "expected"),
    [
        ("step", 1, 1, [1, 2, 3, 4, 5, 6]),
        ("step", 2, 1, [2, 4, 6]),
        ("step", 4, 1, [4]),
        ("step", 1, 2, [2, 3, 5, 6]),
        ("step", 3, 2, [5]),
        ("epoch", 1, 1, [3, 6]),
        ("epoch", 2, 1, [6]),
        ("epoch", 1, 2, [3, 6]),
        ("epoch", 3, 1, []),
    ],
)
def test_frequency_counts_what_the_interval_names(interval, frequency, accumulate, expected):
    config = LRSchedulerConfig(STEP, interval, frequency)

    assert stepped(config, batches=3, epochs=2, accumulate=accumulate) == expected


def test_scheduler_on_a_plateau_without_its_metric_is_an_error_or_a_warning():
    progress = Progress()
    for strict in (True, False):
        config = LRSchedulerConfig(PLATEAU, "epoch", 1, True, "x", strict)
        schedulers = Schedulers([config], lambda scheduler, metric: None, lambda: {"y": torch.tensor(1.0)})
        if strict:
            with pytest.raises(MisconfigurationException, match=r"'x'.*\['y'\]"):
                schedulers.finish_epoch(progress)
        else:
            with pytest.warns(RuntimeWarning, match="'x'"):
                schedulers.finish_epoch(progress)


def test_scheduler_of_ones_own_is_stepped_by_the_modules_method(trainer_of):
    class Own:
        def __init__(self, optimizer):
            self.optimizer, self.steps = optimizer, []

        def state_dict(self):
            return {"steps": self.steps}

        def load_state_dict(self, state_dict):
            self.steps = state_dict["steps"]

    class Steps(Module):
        def training_step(self, batch, batch_idx):
            return self.layer(batch).mean()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return [optimizer], [Own(optimizer)]

        def lr_scheduler_step(self, scheduler, metric):
            scheduler.steps.append((self.current_epoch, metric))

    trainer = trainer_of(max_epochs=2)
    trainer.fit(Steps(), [torch.ones(1, 1)])

    assert trainer.lr_scheduler_configs[0].scheduler.steps == [(0, None), (1, None)]


# -- the wrapped optimizer --------------------------------------------------------------------------------------------


def test_wrapped_optimizer_is_of_the_optimizers_class_and_reads_and_writes_through():
    optimizer = torch.optim.SGD(MODULE.parameters(), lr=0.3, momentum=0.9)
    wrapped = LightningOptimizer(optimizer)

    assert isinstance(wrapped, torch.optim.SGD)
    assert isinstance(wrapped, LightningOptimizer)
    assert wrapped.optimizer is optimizer
    assert wrapped.param_groups is optimizer.param_groups
    assert wrapped.state is optimizer.state
    assert wrapped.state_dict() == optimizer.state_dict()
    wrapped.param_groups[0]["lr"] = 0.1
    wrapped.note = "x"
    assert (optimizer.param_groups[0]["lr"], optimizer.note) == (0.1, "x")
    assert repr(wrapped).startswith("LightningSGD")


def test_wrapped_optimizer_steps_as_the_optimizer_does():
    module = nn.Linear(2, 1)
    wrapped = LightningOptimizer(torch.optim.SGD(module.parameters(), lr=0.5))
    before = module.weight.detach().clone()

    def closure():
        wrapped.zero_grad()
        loss = module(torch.ones(1, 2)).sum()
        loss.backward()
        return loss.detach()

    loss = wrapped.step(closure)

    assert torch.equal(module.weight, before - 0.5)
    assert loss.ndim == 0
    with pytest.raises(MisconfigurationException, match="cannot be called"):
        wrapped.step("loss")


def test_wrapped_optimizer_can_be_copied_and_pickled():
    wrapped = LightningOptimizer(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.3))

    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert isinstance(other, LightningOptimizer)
        assert other.param_groups[0]["lr"] == 0.3


def test_wrapped_optimizer_takes_torch_schedulers():
    wrapped = LightningOptimizer(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))
    scheduler = LambdaLR(wrapped.optimizer, lambda step: 0.5**step)
    wrapped.step()
    scheduler.step()

    assert wrapped.param_groups[0]["lr"] == 0.5
