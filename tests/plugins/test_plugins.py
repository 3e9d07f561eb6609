"""``Trainer(plugins=...)``: each kind can be one of the user's, and two that choose the same thing are an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fulmen import LightningModule, Trainer
from fulmen.accelerators import CPUAccelerator
from fulmen.demos.boring_classes import BoringModel
from fulmen.plugins import (
    AsyncCheckpointIO,
    DoublePrecision,
    ExitCodeRequeue,
    HalfPrecision,
    LayerSync,
    Precision,
    SLURMEnvironment,
    TorchCheckpointIO,
    TorchSyncBatchNorm,
)
from fulmen.plugins.environments.lightning import LightningEnvironment
from fulmen.plugins.environments.torchelastic import TorchElasticEnvironment
from fulmen.strategies import DDPStrategy, SingleDeviceStrategy
from fulmen.utilities.exceptions import MisconfigurationException


class OwnStrategy(SingleDeviceStrategy):
    pass


class OwnKind(CPUAccelerator):
    pass


class OwnFiles(TorchCheckpointIO):
    pass


class OwnSync(LayerSync):
    """Marks what it was given."""

    def apply(self, model: nn.Module) -> nn.Module:
        model.shared = True
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        model.shared = False
        return model


class Two(SingleDeviceStrategy):
    """Says that there are two processes, of which this is the first."""

    @property
    def world_size(self) -> int:
        return 2


def test_plugins_of_all_kinds_take_their_places_and_are_used(trainer_of, tmp_path):
    files, numbers, strategy = OwnFiles(), DoublePrecision(), OwnStrategy()
    trainer = trainer_of(plugins=[files, numbers, strategy, ExitCodeRequeue(), OwnSync()], max_steps=1)

    assert trainer.strategy is strategy
    assert trainer.strategy.checkpoint_io is files
    assert trainer.precision_plugin is numbers
    assert isinstance(trainer.accelerator, CPUAccelerator)
    model = BoringModel()
    trainer.fit(model)
    assert model.dtype == torch.float64


def test_kind_of_device_of_the_strategy_is_used_where_none_is_named():
    kind = OwnKind()
    assert Trainer(strategy=OwnStrategy(accelerator=kind), logger=False).accelerator is kind
    assert Trainer(strategy=OwnStrategy(accelerator=kind), accelerator=OwnKind(), logger=False).accelerator is kind


def test_one_plugin_needs_no_list(trainer_of):
    assert trainer_of(plugins=HalfPrecision("bf16-true")).precision == "bf16-true"


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (Precision(), DoublePrecision(), "Precision"),
        (OwnFiles(), AsyncCheckpointIO(), "CheckpointIO"),
        (OwnSync(), TorchSyncBatchNorm(), "LayerSync"),
        (ExitCodeRequeue(), SLURMEnvironment(), "Requeue"),
        (OwnStrategy(), SingleDeviceStrategy(), "Strategy"),
    ],
)
def test_two_plugins_of_a_kind_are_an_error_that_names_both(one, other, kind):
    with pytest.raises(MisconfigurationException, match=f"2 of the kind {kind}") as raised:
        Trainer(plugins=[one, other])
    assert type(one).__name__ in str(raised.value)
    assert type(other).__name__ in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"precision": "bf16-mixed", "plugins": DoublePrecision()}, ValueError, ("'bf16-mixed'", "DoublePrecision")),
        ({"strategy": "single_device", "plugins": OwnStrategy()}, None, ("'single_device'", "OwnStrategy")),
        ({"strategy": Two(), "plugins": [OwnStrategy()]}, None, ("Two", "OwnStrategy")),
        ({"sync_batchnorm": True, "plugins": OwnSync()}, None, ("sync_batchnorm=True", "OwnSync")),
        (
            {"strategy": OwnStrategy(precision_plugin=DoublePrecision()), "plugins": HalfPrecision()},
            None,
            ("DoublePrecision of OwnStrategy", "HalfPrecision"),
        ),
        (
            {"strategy": OwnStrategy(precision_plugin=DoublePrecision()), "precision": "bf16-true"},
            None,
            ("64-true", "OwnStrategy", "bf16-true"),
        ),
        (
            {"strategy": OwnStrategy(checkpoint_io=OwnFiles()), "plugins": AsyncCheckpointIO()},
            None,
            ("OwnFiles of OwnStrategy", "AsyncCheckpointIO"),
        ),
        (
            {"strategy": OwnStrategy(accelerator=OwnKind()), "accelerator": "cpu"},
            None,
            ("OwnStrategy(accelerator=OwnKind)", "accelerator='cpu'"),
        ),
        (
            {
                "strategy": DDPStrategy(cluster_environment=LightningEnvironment()),
                "plugins": TorchElasticEnvironment(),
                "devices": 2,
            },
            None,
            ("LightningEnvironment of DDPStrategy", "TorchElasticEnvironment"),
        ),
    ],
)
def test_two_that_choose_the_same_thing_are_an_error_that_names_both(arguments, error, names):
    with pytest.raises(error or MisconfigurationException) as raised:
        Trainer(**arguments)
    for name in names:
        assert name in str(raised.value)


@pytest.mark.parametrize("plugin", ["bf16-mixed", nn.Linear(1, 1), Precision, 3])
def test_what_is_no_plugin_is_an_error_that_lists_the_kinds(plugin):
    words = "must be a Precision, a CheckpointIO, a ClusterEnvironment, a LayerSync"
    if isinstance(plugin, type):
        words = "instead of an instance"
    with pytest.raises(MisconfigurationException, match=words):
        Trainer(plugins=[plugin])


# -- layers that share their statistics -------------------------------------------------------------------------------


class Normed(BoringModel):
    shared: bool = False
    was_shared: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(4, affine=False)))

    def on_train_start(self) -> None:
        self.was_shared = self.shared


@pytest.mark.parametrize(("strategy", "shares"), [(Two, True), (SingleDeviceStrategy, False)])
def test_own_layer_sync_is_applied_in_fit_with_several_processes_and_reverted(trainer_of, strategy, shares):
    model = Normed()
    trainer = trainer_of(strategy=strategy(), plugins=OwnSync(), max_steps=1)
    trainer.fit(model)
    assert (model.was_shared, model.shared) == (shares, False)

    model.shared = model.was_shared = False
    trainer.validate(model, verbose=False)
    assert not model.shared


def test_own_layer_sync_is_reverted_after_an_error(trainer_of):
    class Fails(Normed):
        def on_train_start(self) -> None:
            assert self.shared
            raise KeyError("stop")

    model = Fails()
    with pytest.raises(KeyError, match="stop"):
        trainer_of(strategy=Two(), plugins=OwnSync(), max_steps=1).fit(model)
    assert not model.shared


def test_sync_batchnorm_replaces_batch_norms_and_puts_them_back():
    model = Normed()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    sync = TorchSyncBatchNorm()

    assert sync.apply(model) is model
    assert [type(layer) for layer in (model.norms[0], model.norms[1][0])] == [nn.SyncBatchNorm] * 2

    assert sync.revert(model) is model
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules())
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for layer, shape, plain in ((model.norms[0], (5, 3), nn.BatchNorm1d(3)), (model.norms[1][0], (5, 4, 2, 2), None)):
        x: Any = torch.randn(shape)
        expected = (plain or nn.BatchNorm2d(4, affine=False))(x)
        assert torch.equal(layer(x), expected)
        assert layer.training


def test_sync_batchnorm_on_processes_of_the_cpu_is_an_error_before_training(trainer_of):
    trainer = trainer_of(strategy=Two(), sync_batchnorm=True, max_steps=1)
    with pytest.raises(MisconfigurationException, match="works on accelerators only"):
        trainer.fit(Normed())


def test_sync_batchnorm_with_one_process_says_that_it_does_nothing():
    with pytest.warns(UserWarning, match="`sync_batchnorm=True` does nothing with one process"):
        Trainer(accelerator="cpu", sync_batchnorm=True, logger=False)


# -- a precision of the user's ----------------------------------------------------------------------------------------


class Recorded(Precision):
    """Written as for Lightning: notes what is called, and halves the loss on the way back."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connect(self, model, optimizers, lr_schedulers):
        self.calls.append(f"connect {type(model).__name__} {len(optimizers)} {len(lr_schedulers)}")
        return super().connect(model, optimizers, lr_schedulers)

    def convert_module(self, module):
        self.calls.append("convert_module")
        return module

    def convert_input(self, data):
        self.calls.append("convert_input")
        return data

    def pre_backward(self, tensor, module):
        self.calls.append("pre_backward")
        return super().pre_backward(tensor / 2, module)

    def backward(self, tensor, model, optimizer, *args, **kwargs):
        self.calls.append(f"backward {type(optimizer).__name__}")
        super().backward(tensor, model, optimizer, *args, **kwargs)

    def post_backward(self, tensor, module):
        self.calls.append("post_backward")
        return super().post_backward(tensor, module)

    def optimizer_step(self, optimizer, model, closure, **kwargs):
        self.calls.append(f"optimizer_step {type(model).__name__}")
        return super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)

    def clip_gradients(self, optimizer, clip_val=0.0, gradient_clip_algorithm="norm"):
        self.calls.append("clip_gradients")
        super().clip_gradients(optimizer, clip_val, gradient_clip_algorithm)


@pytest.mark.parametrize("by_hand", [False, True])
def test_own_precision_is_asked_at_each_place(trainer_of, by_hand):
    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1, bias=False)
            nn.init.ones_(self.layer.weight)
            self.automatic_optimization = not by_hand

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch).mean()
            if not by_hand:
                return loss
            optimizer = self.optimizers()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=10.0)
            optimizer.step()
            return None

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    model, numbers = Model(), Recorded()
    limit = {} if by_hand else {"gradient_clip_val": 10.0}
    trainer = trainer_of(plugins=numbers, max_epochs=1, **limit)
    trainer.fit(model, [torch.ones(4, 2)])

    backward = ["pre_backward", f"backward {'NoneType' if by_hand else 'SGD'}", "post_backward"]
    if by_hand:
        expected = [*backward, "clip_gradients", "optimizer_step Model"]
    else:
        expected = ["optimizer_step Model", *backward, "clip_gradients"]
    assert numbers.calls == ["convert_module", "connect Model 1 0", "convert_input", *expected]
    assert torch.equal(model.layer.weight, torch.full((1, 2), 0.75))  # 1 - 0.5 * (1 / 2)
    assert trainer.global_step == 1
