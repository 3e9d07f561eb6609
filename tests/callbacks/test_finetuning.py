"""Parts that are frozen first and trained later: as a loop by hand does it, also in a run that was stopped between."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import BackboneFinetuning, BaseFinetuning, Checkpoint
from fulmen.utilities.exceptions import MisconfigurationException

BATCHES, UNFREEZE_AT, EPOCHS = 3, 1, 4
DATA = torch.randn(BATCHES * 4, 4, generator=torch.Generator().manual_seed(5))


class Net(LightningModule):
    """A backbone with a batch norm, and a head."""

    def __init__(self, scheduler: Any = None, only_what_is_trained: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
        self.head = nn.Linear(4, 1)
        self.scheduler, self.only_what_is_trained = scheduler, only_what_is_trained
        self.rates: list[list[float]] = []  # of the groups, in each step

    def loss(self, batch: Tensor) -> Tensor:
        return (self.head(self.backbone(batch)) - batch.sum(1, keepdim=True)).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
        return self.loss(batch)

    def train_dataloader(self) -> Any:
        return DataLoader(DATA, batch_size=4)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        params = [one for one in self.parameters() if one.requires_grad or not self.only_what_is_trained]
        optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.9)
        return optimizer if self.scheduler is None else ([optimizer], [self.scheduler(optimizer)])


class FromEpochOne(BaseFinetuning):
    """Freezes the backbone, also its batch norm, until epoch 1."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone, train_bn=False)  # type: ignore[arg-type]

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Any) -> None:
        if epoch == UNFREEZE_AT:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)  # type: ignore[arg-type]


class StopAfter(Callback):
    """Saves after so many batches of the run, and ends it."""

    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **more: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise KeyboardInterrupt


class StopAfterEpoch(Checkpoint):
    """The same, when the epoch is over."""

    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_epoch_end(self, trainer: Trainer, *args: Any, **more: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def trainer_of(*callbacks: Callback, **flags: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saves = any(isinstance(one, Checkpoint) for one in callbacks)
    flags = {**quiet, "enable_checkpointing": saves, "accelerator": "cpu", "max_epochs": EPOCHS, **flags}
    return Trainer(callbacks=list(callbacks), **flags)


def fit(module: Net, *callbacks: Callback, ckpt_path: Any = None, **flags: Any) -> Trainer:
    trainer = trainer_of(*callbacks, **flags)
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def groups_of(trainer: Trainer) -> list[dict[str, Any]]:
    names = {parameter: name for name, parameter in trainer.lightning_module.named_parameters()}
    return [
        {**group, "params": [names[parameter] for parameter in group["params"]]}
        for group in trainer.optimizers[0].param_groups
    ]


def assert_same_weights(module: nn.Module, other: nn.Module) -> None:
    for name, value in other.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name


# -- as by hand -------------------------------------------------------------------------------------------------------


def backbone_by_hand(module: Net, scheduler: Any = None) -> list[list[float]]:
    """What ``BackboneFinetuning(1, lambda_func=lambda epoch: 1.5, backbone_initial_ratio_lr=0.2)`` stands for."""
    linear = [module.backbone[0], module.backbone[2]]
    for layer in linear:
        layer.requires_grad_(False)
    optimizer = torch.optim.SGD([one for one in module.parameters() if one.requires_grad], lr=0.05, momentum=0.9)
    steps = scheduler(optimizer) if scheduler is not None else None
    rates, rate = [], 0.0
    for epoch in range(EPOCHS):
        head = optimizer.param_groups[0]["lr"]
        if epoch == UNFREEZE_AT:
            rate = head * 0.2
            for layer in linear:
                layer.requires_grad_(True)
            optimizer.add_param_group({"params": [one for layer in linear for one in layer.parameters()], "lr": rate})
        elif epoch > UNFREEZE_AT:
            rate = min(1.5 * rate, head)
            optimizer.param_groups[1]["lr"] = rate
        for batch in DATA.split(4):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.zero_grad()
            module.loss(batch).backward()
            optimizer.step()
        if steps is not None:
            steps.step()
    return rates


@pytest.mark.parametrize("scheduler", [None, lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5)])
def test_backbone_finetuning_trains_as_a_loop_by_hand(scheduler: Any) -> None:
    by_hand = Net()
    rates = backbone_by_hand(by_hand, scheduler)
    module = Net(scheduler)
    finetuning = BackboneFinetuning(UNFREEZE_AT, lambda epoch: 1.5, backbone_initial_ratio_lr=0.2)
    fit(module, finetuning)
    assert_same_weights(module, by_hand)
    assert module.rates == rates
    assert finetuning.previous_backbone_lr == rates[-1][1]


def test_frozen_part_keeps_its_weights_and_statistics_until_it_is_thawed() -> None:
    module = Net()
    before = deepcopy(module.backbone.state_dict())
    fit(module, FromEpochOne(), max_epochs=UNFREEZE_AT)
    for name, value in before.items():
        assert torch.equal(module.backbone.state_dict()[name], value), name
    fit(module, FromEpochOne(), max_epochs=UNFREEZE_AT + 1)
    assert not torch.equal(module.backbone.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(module.backbone.state_dict()["1.running_mean"], before["1.running_mean"])


def test_thawed_part_gets_a_tenth_of_the_first_learning_rate_or_the_given_one() -> None:
    layers = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)])
    BaseFinetuning.freeze(layers[1:])
    optimizer = torch.optim.SGD(layers[0].parameters(), lr=0.5)
    BaseFinetuning.unfreeze_and_add_param_group(layers[1], optimizer)
    BaseFinetuning.unfreeze_and_add_param_group(layers[2], optimizer, lr=0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05, 0.3]
    assert all(parameter.requires_grad for parameter in layers.parameters())


# -- a run that goes on -----------------------------------------------------------------------------------------------

SCHEDULES = {
    "own": FromEpochOne,
    "backbone": lambda: BackboneFinetuning(UNFREEZE_AT, lambda epoch: 1.5),
    "backbone without batch norms": lambda: BackboneFinetuning(UNFREEZE_AT, train_bn=False),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("batches", range(1, 8))
def test_run_that_was_stopped_around_the_thawing_goes_on_exactly(schedule: str, batches: int, tmp_path: Path) -> None:
    def scheduler(optimizer: Any) -> Any:
        return {"scheduler": lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step), "interval": "step"}

    path, flags = tmp_path / "state.ckpt", {"accumulate_grad_batches": 2}
    whole = Net(scheduler)
    expected = fit(whole, SCHEDULES[schedule](), **flags)
    with pytest.raises(SystemExit):
        fit(Net(scheduler), SCHEDULES[schedule](), StopAfter(path, batches), **flags)
    module = Net(scheduler)
    resumed = fit(module, SCHEDULES[schedule](), ckpt_path=path, **flags)
    assert_same_weights(module, whole)
    assert module.rates == whole.rates[batches:]
    assert groups_of(resumed) == groups_of(expected)
    torch.testing.assert_close(resumed.optimizers[0].state_dict(), expected.optimizers[0].state_dict(), rtol=0, atol=0)
    for one, other in zip(module.parameters(), whole.parameters()):
        assert one.requires_grad == other.requires_grad
    assert module.backbone[1].track_running_stats == whole.backbone[1].track_running_stats


def test_run_that_was_stopped_twice_after_the_thawing_goes_on_exactly(tmp_path: Path) -> None:
    whole, module = Net(), Net()
    fit(whole, FromEpochOne())
    with pytest.raises(SystemExit):
        fit(Net(), FromEpochOne(), StopAfterEpoch(tmp_path / "1.ckpt", 2 * BATCHES))
    with pytest.raises(SystemExit):
        fit(Net(), FromEpochOne(), StopAfter(tmp_path / "2.ckpt", 8), ckpt_path=tmp_path / "1.ckpt")
    fit(module, FromEpochOne(), ckpt_path=tmp_path / "2.ckpt")
    assert_same_weights(module, whole)


def test_file_of_lightning_thaws_what_its_run_has_added(tmp_path: Path) -> None:
    path = tmp_path / "epoch.ckpt"
    whole, module = Net(), Net()
    finetuning = BackboneFinetuning(UNFREEZE_AT)
    fit(whole, finetuning)
    with pytest.raises(SystemExit):
        fit(Net(), BackboneFinetuning(UNFREEZE_AT), StopAfterEpoch(path, 2 * BATCHES))
    checkpoint = torch.load(path)
    del checkpoint["resume"]  # which Lightning does not write
    torch.save(checkpoint, path)
    fit(module, BackboneFinetuning(UNFREEZE_AT), ckpt_path=path)
    assert_same_weights(module, whole)


class InMidEpoch(FromEpochOne):
    """Thaws when it likes."""

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Any) -> None:
        pass

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.progress.total_batches == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, trainer.optimizers[0])  # type: ignore[arg-type]


def test_group_that_was_added_in_mid_epoch_is_there_when_the_run_goes_on(tmp_path: Path) -> None:
    whole, module = Net(), Net()
    fit(whole, InMidEpoch())
    with pytest.raises(SystemExit):
        fit(Net(), InMidEpoch(), StopAfter(tmp_path / "2.ckpt", 2))
    fit(module, InMidEpoch(), ckpt_path=tmp_path / "2.ckpt")
    assert_same_weights(module, whole)


class AddsByItself(FromEpochOne):
    """Adds its group as torch does, which refuses to have a parameter twice."""

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Any) -> None:
        if epoch == UNFREEZE_AT:
            self.make_trainable(pl_module.backbone)  # type: ignore[arg-type]
            optimizer.add_param_group({"params": list(pl_module.backbone.parameters()), "lr": 0.01})  # type: ignore[union-attr]


def test_what_was_done_when_the_epoch_began_is_not_done_again_in_its_middle(tmp_path: Path) -> None:
    whole, module = Net(), Net()
    fit(whole, AddsByItself())
    with pytest.raises(SystemExit):
        fit(Net(), AddsByItself(), StopAfter(tmp_path / "4.ckpt", UNFREEZE_AT * BATCHES + 1))
    fit(module, AddsByItself(), ckpt_path=tmp_path / "4.ckpt")
    assert_same_weights(module, whole)


class Evaluated(Net):
    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("loss", self.loss(batch))


def test_fit_after_a_test_of_a_finetuned_checkpoint_begins_frozen(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(Evaluated(), BackboneFinetuning(UNFREEZE_AT), StopAfterEpoch(tmp_path / "2.ckpt", 2 * BATCHES))
    module, fresh, trainer = Evaluated(), Evaluated(), trainer_of(BackboneFinetuning(UNFREEZE_AT))
    data = DataLoader(DATA, batch_size=4)  # type: ignore[arg-type]
    trainer.test(Evaluated(), data, ckpt_path=tmp_path / "2.ckpt", verbose=False)
    trainer.fit(module)
    fit(fresh, BackboneFinetuning(UNFREEZE_AT))
    assert module.rates == fresh.rates
    assert_same_weights(module, fresh)


def test_second_fit_begins_frozen_again() -> None:
    finetuning = BackboneFinetuning(UNFREEZE_AT)
    trainer, module, fresh = trainer_of(finetuning), Net(), Net()
    trainer.fit(Net())
    trainer.fit(module)
    fit(fresh, BackboneFinetuning(UNFREEZE_AT))
    assert module.rates == fresh.rates
    assert_same_weights(module, fresh)


def test_test_of_a_finetuned_module_freezes_nothing() -> None:
    module = Evaluated()
    trainer = fit(module, FromEpochOne())
    trainer.test(module, DataLoader(DATA, batch_size=4), verbose=False)  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_checkpoint_names_a_parameter_that_the_module_lacks(tmp_path: Path) -> None:
    path = tmp_path / "epoch.ckpt"
    with pytest.raises(SystemExit):
        fit(Net(), FromEpochOne(), StopAfterEpoch(path, 2 * BATCHES))
    checkpoint = torch.load(path)
    groups = checkpoint["callbacks"]["FromEpochOne"]["internal_optimizer_metadata"][0]
    groups[1]["params"][0] = "backbone.9.weight"
    torch.save(checkpoint, path)
    with pytest.raises(KeyError, match=r"has the parameter 'backbone\.9\.weight', which the module has not"):
        fit(Net(), FromEpochOne(), ckpt_path=path)


# -- learning rates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1)),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=EPOCHS * BATCHES),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 2),
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=2),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5), lr_scheduler.ExponentialLR(optimizer, 0.5)],
            milestones=[5],
        ),
    ],
    ids=["lambda", "one cycle", "cosine", "cyclic", "sequential"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's SequentialLR uses its own deprecated argument
def test_scheduler_moves_an_added_group_in_proportion_to_the_first(scheduler: Any) -> None:
    module = Net(lambda optimizer: {"scheduler": scheduler(optimizer), "interval": "step"})
    fit(module, FromEpochOne())
    heads = [rates[0] for rates in module.rates]
    assert len(set(heads)) >= 3
    for head, rates in list(zip(heads, module.rates))[BATCHES:]:
        assert rates[1] == pytest.approx(head / 10)


def test_rate_set_in_an_epoch_lasts_through_the_steps_of_a_lambda_scheduler() -> None:
    scheduled = {"interval": "step"}
    module = Net(lambda optimizer: {"scheduler": lr_scheduler.LambdaLR(optimizer, lambda step: 1.0), **scheduled})
    fit(module, BackboneFinetuning(UNFREEZE_AT, lambda epoch: 1.5))
    assert [rates[1] for rates in module.rates[BATCHES:]] == pytest.approx([0.005] * 3 + [0.0075] * 3 + [0.01125] * 3)


def test_optimizer_that_has_the_frozen_parameters_is_told_and_keeps_its_rate() -> None:
    module = Net(only_what_is_trained=False)
    with pytest.warns(UserWarning, match="SGD has 4 of the 4 parameters that are to be thawed by now"):
        fit(module, BackboneFinetuning(UNFREEZE_AT))
    assert module.rates == [[0.05]] * (EPOCHS * BATCHES)


def test_batch_norms_that_were_trained_all_along_are_no_reason_to_warn() -> None:
    fit(Net(), BackboneFinetuning(UNFREEZE_AT))  # a warning is an error here


def test_initial_denominator_that_has_no_effect_is_told() -> None:
    with pytest.warns(UserWarning, match=r"initial_denom_lr=4.0\) has no effect.* 0.25 would be"):
        BackboneFinetuning(initial_denom_lr=4.0)


def test_rates_are_told_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(Net(), BackboneFinetuning(UNFREEZE_AT, verbose=True, rounding=4), max_epochs=2)
    assert "learning rate 0.05, of the backbone 0.005" in caplog.text


# -- what is frozen ---------------------------------------------------------------------------------------------------


class WithOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm1d(1)


def names_of(net: nn.Module, found: Any) -> list[str]:
    known = {id(one): name for name, one in [*net.named_modules(), *net.named_parameters()]}
    return [known[id(one)] for one in found]


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(WithOwn(), nn.Sequential(nn.Linear(1, 1), nn.ReLU()))


def test_flatten_modules_gives_leaves_and_owners_of_parameters_once(net: nn.Sequential) -> None:
    everything = ["0", "0.norm", "1.0", "1.1"]
    assert names_of(net, BaseFinetuning.flatten_modules(net)) == everything
    assert names_of(net, BaseFinetuning.flatten_modules([net[0], [net[1], net[0]]])) == everything
    assert names_of(net, BaseFinetuning.flatten_modules(nn.ModuleDict({"a": net[1]}))) == ["1.0", "1.1"]


def test_parameter_of_two_modules_is_given_once() -> None:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    layers[1].weight = layers[0].weight
    assert len(list(BaseFinetuning.filter_params(layers))) == 3


@pytest.mark.parametrize("wrong", ["backbone", {"a": nn.ReLU()}, [nn.ReLU(), 3], None])
def test_flatten_modules_refuses_what_is_no_module(wrong: Any) -> None:
    with pytest.raises(TypeError, match="is no module, and no iterable of modules"):
        BaseFinetuning.flatten_modules(wrong)


@pytest.mark.parametrize("train_bn", [True, False])
def test_freeze_spares_batch_norms_when_told(train_bn: bool, net: nn.Sequential) -> None:
    BaseFinetuning.freeze(net, train_bn=train_bn)
    norms = ["0.norm.weight", "0.norm.bias"]
    assert names_of(net, BaseFinetuning.filter_params(net)) == (norms if train_bn else [])
    assert net.get_submodule("0.norm").track_running_stats == train_bn
    frozen = names_of(net, BaseFinetuning.filter_params(net, requires_grad=False))
    assert frozen == ["0.scale", *([] if train_bn else norms), "1.0.weight", "1.0.bias"]
    BaseFinetuning.make_trainable(net)
    assert names_of(net, BaseFinetuning.filter_params(net, train_bn=False)) == ["0.scale", "1.0.weight", "1.0.bias"]
    assert net.get_submodule("0.norm").track_running_stats


def test_freeze_module_leaves_its_children_alone(net: nn.Sequential) -> None:
    BaseFinetuning.freeze_module(net[0])
    assert names_of(net, BaseFinetuning.filter_params(net, requires_grad=False)) == ["0.scale"]


def test_integers_are_not_made_trainable() -> None:
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.ones(1, 1, dtype=torch.int8), requires_grad=False)
    BaseFinetuning.make_trainable(layer)
    assert not layer.weight.requires_grad


def test_filter_on_optimizer_gives_those_that_are_new_and_warns_of_the_others(net: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(net[0].parameters(), lr=1.0)
    with pytest.warns(UserWarning, match="SGD has 3 of the 5 parameters"):
        new = BaseFinetuning.filter_on_optimizer(optimizer, net.parameters())
    assert names_of(net, new) == ["1.0.weight", "1.0.bias"]


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("unfreeze_backbone_at_epoch", -1),
        ("unfreeze_backbone_at_epoch", 1.5),
        ("lambda_func", 1.5),
        ("backbone_initial_ratio_lr", -0.1),
        ("backbone_initial_lr", float("nan")),
        ("rounding", -1),
    ],
)
def test_argument_that_cannot_be_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(MisconfigurationException, match=rf"BackboneFinetuning\({argument}={value}"):
        BackboneFinetuning(**{argument: value})


def test_module_without_a_backbone_is_refused() -> None:
    class Headless(Net):
        def __init__(self) -> None:
            super().__init__()
            del self.backbone

    with pytest.raises(MisconfigurationException, match="Headless has no `backbone`"):
        fit(Headless(), BackboneFinetuning())


def test_schedule_that_is_not_written_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="must define `freeze_before_training"):
        fit(Net(), BaseFinetuning())
