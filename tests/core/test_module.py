"""The module by itself, and its services within a run."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fulmen import LightningModule
from fulmen.utilities.exceptions import MisconfigurationException


class Small(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.5)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


DATA = [torch.ones(2, 1), torch.ones(2, 1)]


def test_module_without_a_trainer_answers_as_far_as_it_can(capsys):
    module = Small()

    assert (module.current_epoch, module.global_step, module.global_rank, module.local_rank) == (0, 0, 0, 0)
    assert (module.logger, module.loggers) == (None, [])
    assert (module.device, module.dtype) == (torch.device("cpu"), torch.float32)
    assert module.automatic_optimization
    assert module.strict_loading
    assert not module.on_gpu
    assert torch.equal(module.all_gather(DATA[0]), DATA[0])
    module.print("text")
    assert capsys.readouterr().out == "text\n"
    with pytest.raises(RuntimeError, match="not attached to a Trainer"):
        _ = module.trainer


def test_log_without_a_trainer_warns_and_does_nothing():
    with pytest.warns(UserWarning, match="not attached"):
        Small().log("x", 1.0)


def test_dtype_and_device_are_those_of_the_parameters():
    assert Small().double().dtype == torch.float64
    assert Small().to(torch.bfloat16).dtype == torch.bfloat16
    assert Small().to("meta").device == torch.device("meta")


def test_module_without_parameters_has_the_default_dtype_and_device():
    module = LightningModule()

    assert (module.dtype, module.device) == (torch.float32, torch.device("cpu"))
    module.register_buffer("numbers", torch.ones(1, dtype=torch.float64))
    assert module.dtype == torch.float64


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module(1),
        lambda module: module.training_step(1, 0),
        lambda module: module.validation_step(1, 0),
        lambda module: module.test_step(1, 0),
        lambda module: module.configure_optimizers(),
    ],
)
def test_method_that_was_not_written_says_what_to_define(call):
    with pytest.raises(NotImplementedError, match=r"Define `(def |forward)"):
        call(LightningModule())


def test_predict_step_is_forward_by_default():
    class Doubles(LightningModule):
        def forward(self, x):
            return x * 2

    assert Doubles().predict_step(3, 0) == 6
    assert Doubles().predict_step(batch=4, batch_idx=0) == 8


def test_freeze_and_unfreeze_switch_gradients_and_mode():
    module = Small()

    assert module.freeze() is module
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.dropout.training
    module.unfreeze()
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.dropout.training


def test_module_is_copied_and_pickled_without_its_trainer(trainer_of):
    module = Small()
    trainer_of(max_epochs=1).fit(module, DATA)
    assert module.trainer is not None

    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other.layer.weight, module.layer.weight)
        with pytest.raises(RuntimeError, match="not attached"):
            _ = other.trainer


def test_state_dict_holds_parameters_only():
    assert list(Small().state_dict()) == ["layer.weight", "layer.bias"]


def test_module_within_a_module_has_the_same_trainer(trainer_of):
    class Outer(Small):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList([Small()])

    module = Outer()
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, DATA)

    assert module.inner[0].trainer is trainer


def test_print_goes_to_the_trainer(trainer_of, capsys):
    class Prints(Small):
        def on_train_start(self):
            self.print("a", "b", sep="-")

    trainer_of(max_epochs=1).fit(Prints(), DATA)

    assert capsys.readouterr().out == "a-b\n"


@pytest.mark.parametrize(
    ("given", "arguments", "match"),
    [
        ({"gradient_clip_val": 0.5}, {"gradient_clip_val": 1.0}, "contradicts"),
        (
            {"gradient_clip_algorithm": "norm", "gradient_clip_val": 1.0},
            {"gradient_clip_algorithm": "value"},
            "contradicts",
        ),
        ({}, {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "half"}, "'half'"),
    ],
)
def test_clip_gradients_refuses_what_contradicts_the_trainer(trainer_of, given, arguments, match):
    class Clips(Small):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            self.clip_gradients(optimizer, **arguments)

    with pytest.raises(MisconfigurationException, match=match):
        trainer_of(max_epochs=1, **given).fit(Clips(), DATA)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clip_gradients_clips_the_optimizers_parameters(trainer_of, algorithm):
    seen = []

    class Clips(Small):
        def training_step(self, batch, batch_idx):
            return self.layer(batch * 100).mean()

        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm=algorithm)
            seen.append(torch.stack([p.grad.flatten()[0] for p in self.parameters()]))

    trainer_of(max_epochs=1, limit_train_batches=1).fit(Clips(), DATA)

    size = seen[0].norm() if algorithm == "norm" else seen[0].abs().max()
    assert size.item() == pytest.approx(0.5, rel=1e-4)


def test_lr_schedulers_and_optimizers_are_none_one_or_a_list(trainer_of):
    seen = []

    class Several(Small):
        def __init__(self, number, schedulers):
            super().__init__()
            self.automatic_optimization = False
            self.number, self.schedulers = number, schedulers

        def training_step(self, batch, batch_idx):
            seen.append((type(self.optimizers()).__name__, type(self.lr_schedulers()).__name__))

        def configure_optimizers(self):
            optimizers = [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.number)]
            return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1) for _ in range(self.schedulers)]

    for number, schedulers in ((1, 0), (1, 1), (2, 2)):
        trainer_of(max_epochs=1, limit_train_batches=1).fit(Several(number, schedulers), DATA)

    assert seen == [("LightningSGD", "NoneType"), ("LightningSGD", "StepLR"), ("list", "list")]


def test_automatic_optimization_and_the_like_are_no_submodules_or_parameters():
    module = Small()
    module.automatic_optimization = False
    module.strict_loading = False
    module.example_input_array = torch.ones(2, 1)

    assert not module.automatic_optimization
    assert not module.strict_loading
    assert module.example_input_array.shape == (2, 1)
    assert len(module.state_dict()) == 2
    assert Small().automatic_optimization  # of the instance, not of the class


def test_both_spellings_written_keep_the_right_one():
    class Both(LightningModule):
        def train_step(self, batch, batch_idx):
            return "other"

        def training_step(self, batch, batch_idx):
            return "right"

    assert Both().training_step(0, 0) == "right"


def test_module_is_in_training_mode_and_on_the_cpu_after_a_run(trainer_of):
    module = Small()
    trainer_of(max_epochs=1).fit(module, DATA)

    assert module.training
    assert module.device.type == "cpu"
