"""The guard keeps what is not finite away from the weights, and says where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import NonFiniteGuard
from fulmen.plugins.precision.precision import Precision
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException

BAD = 7  # the sample that spoils its batch
BATCH = 2  # so it is in batch 3, which step 4 is made of
SAMPLES = [(index, torch.tensor([index * 0.1, 1.0 - index * 0.05])) for index in range(16)]


class Spoils(torch.autograd.Function):
    """Passes numbers on, and gives back a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float) -> Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient * ctx.value, None


class Model(LightningModule):
    """Two layers. What goes wrong with the bad sample: ``"loss"``, ``"gradient"`` of the first layer, or nothing."""

    def __init__(self, fault: str = "loss", value: float = float("nan"), leaves_out: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.fault, self.value, self.leaves_out = fault, value, leaves_out
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 1)
        self.weights: list[Tensor] = []

    def loss(self, batch: Any) -> Tensor:
        indices, x = batch
        spoilt = BAD in indices.tolist()
        hidden = self.first(x)
        if spoilt and self.fault == "gradient":
            hidden = Spoils.apply(hidden, self.value)
        loss = self.second(hidden).square().mean()
        return loss * self.value if spoilt and self.fault == "loss" else loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        self.weights.append(weights_of(self))
        return None if self.trainer.global_step + 1 in self.leaves_out else self.loss(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}]


def weights_of(model: LightningModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def trainer_with(guard: Callback | None, root: Path, **arguments: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    callbacks = [callback for callback in (guard, arguments.pop("also", None)) if callback is not None]
    return Trainer(
        **{
            "max_epochs": 1,
            "accelerator": "cpu",
            "callbacks": callbacks,
            "default_root_dir": root,
            **quiet,
            **arguments,
        }
    )


def fit(model: Model, guard: NonFiniteGuard | None, root: Path, ckpt: Any = None, **arguments: Any) -> Trainer:
    trainer = trainer_with(guard, root, **arguments)
    trainer.fit(model, DataLoader(SAMPLES, batch_size=BATCH), ckpt_path=ckpt)  # type: ignore[arg-type]
    return trainer


def written_in(root: Path) -> Any:
    return json.loads((root / "nonfinite.json").read_text())


# -- stop -------------------------------------------------------------------------------------------------------------


def test_stop_raises_before_the_step_and_leaves_the_weights_of_the_one_before(tmp_path: Path) -> None:
    model = Model()
    with pytest.raises(NonFiniteException):
        fit(model, NonFiniteGuard(), tmp_path)
    assert model.trainer.global_step == 3
    assert torch.equal(weights_of(model), model.weights[3])


def test_stop_says_step_batch_samples_loss_parameter_and_command(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteException) as caught:
        fit(Model(), NonFiniteGuard(), tmp_path)
    text = str(caught.value)
    for part in (
        "Step 4 (epoch 0)",
        "the loss of batch 3 is nan",
        "`first.weight`",
        "samples of the batch are 6, 7.",
        f"fulmen replay {tmp_path} --step 4",
    ):
        assert part in text


def test_stop_writes_what_it_found_as_plain_json(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteException):
        fit(Model(value=float("inf")), NonFiniteGuard(), tmp_path)
    [found] = written_in(tmp_path)["findings"]
    expected = {"step": 4, "epoch": 0, "batch": 3, "loss": "inf", "indices": [6, 7], "parameter": "first.weight"}
    assert {name: found[name] for name in expected} == expected
    assert found["weight"] is None
    assert found["input_is_finite"] is True


def test_gradient_that_is_not_finite_is_found_though_the_loss_is(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteException, match=r"the gradient of `first.weight` \(and of 1 more\) of batch 3 has nan"
    ):
        fit(Model("gradient"), NonFiniteGuard(), tmp_path)


def test_large_but_finite_gradients_pass(tmp_path: Path) -> None:
    fit(Model("gradient", 1e30), NonFiniteGuard(), tmp_path, gradient_clip_val=1.0)
    assert not (tmp_path / "nonfinite.json").exists()


def test_batch_that_holds_nan_is_named_as_the_cause(tmp_path: Path) -> None:
    samples = [*SAMPLES[:5], (5, torch.tensor([1.0, float("nan")]))]
    trainer = trainer_with(NonFiniteGuard(), tmp_path)
    with pytest.raises(NonFiniteException, match="The batch itself holds numbers that are not finite"):
        trainer.fit(Model(), DataLoader(samples, batch_size=2))  # type: ignore[arg-type]


def test_weight_that_is_not_finite_before_the_step_is_named(tmp_path: Path) -> None:
    model = Model("nothing")
    nn.init.constant_(model.second.bias, float("nan"))
    with pytest.raises(NonFiniteException, match=r"The weights were not finite before, `second.bias` first"):
        fit(model, NonFiniteGuard(), tmp_path)


def test_nothing_is_written_in_a_trial_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteException):
        fit(Model(), NonFiniteGuard(), tmp_path, fast_dev_run=8)
    assert not list(tmp_path.iterdir())


def test_infinite_gradients_are_left_to_the_gradient_scaler(tmp_path: Path) -> None:
    class Scaling(Precision):
        """Steps as with a gradient scaler: not at all when a gradient is infinite."""

        scaler = object()

        def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:
            loss = closure()
            gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
            if all(gradient.isfinite().all() for gradient in gradients):
                optimizer.step(**kwargs)
            return loss

    fit(Model("gradient", float("inf")), NonFiniteGuard(), tmp_path, plugins=[Scaling()])
    with pytest.raises(NonFiniteException):
        fit(Model("loss"), NonFiniteGuard(), tmp_path, plugins=[Scaling()])


# -- skip -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["loss", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_skip_is_the_run_whose_steps_return_none(fault: str, accumulate: int, tmp_path: Path) -> None:
    straight, skipping = Model("nothing", leaves_out=(1 + 3 // accumulate,)), Model(fault)
    fit(straight, None, tmp_path, accumulate_grad_batches=accumulate, max_epochs=2)
    guard = NonFiniteGuard("skip")
    with pytest.warns(UserWarning, match="The step is left out"):
        trainer = fit(skipping, guard, tmp_path, accumulate_grad_batches=accumulate, max_epochs=1)
    assert guard.skips == 1
    assert trainer.global_step == len(range(0, 8, accumulate))
    assert torch.equal(weights_of(skipping), straight.weights[8])


def test_skip_in_a_window_names_the_batch_that_was_bad(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the loss of batch 3 is nan"):
        fit(Model(), NonFiniteGuard("skip"), tmp_path, accumulate_grad_batches=3)
    [found] = written_in(tmp_path)["findings"]
    assert [batch["batch"] for batch in found["batches"]] == [3, 4, 5]
    assert found["batch"] == 3


def test_skip_of_a_summed_loss_leaves_the_window_out(tmp_path: Path) -> None:
    class Summing(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if loss is None else {"loss_sum": loss * BATCH, "weight": BATCH}

    straight, skipping = Summing("nothing", leaves_out=(2,)), Summing()
    fit(straight, None, tmp_path, accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match="left out"):
        fit(skipping, NonFiniteGuard("skip"), tmp_path, accumulate_grad_batches=2)
    assert torch.equal(weights_of(skipping), weights_of(straight))


def test_skip_more_often_than_max_skips_stops(tmp_path: Path) -> None:
    guard = NonFiniteGuard("skip", max_skips=1)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(
            NonFiniteException, match=r"1 step was left out, as many as NonFiniteGuard\(max_skips=1\) allows"
        ),
    ):
        fit(Model(), guard, tmp_path, max_epochs=3)
    assert [found["action"] for found in written_in(tmp_path)["findings"]] == ["skip", "stop"]


def test_skip_in_manual_optimization_leaves_out_the_step_of_that_optimizer(tmp_path: Path) -> None:
    class Manual(Model):
        def __init__(self, **faults: Any) -> None:
            super().__init__(**faults)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.weights.append(weights_of(self))
            one, two = self.optimizers()
            for optimizer, fault in ((one, self.fault), (two, "nothing")):
                self.fault, outer = fault, self.fault
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                optimizer.step()
                self.fault = outer

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.first, self.second)]

    model = Manual()
    with pytest.warns(UserWarning, match=r"Step 7 \(epoch 0\) is not finite: the loss of batch 3"):
        trainer = fit(model, NonFiniteGuard("skip"), tmp_path)
    assert trainer.global_step == 16
    before, after = model.weights[3], model.weights[4]
    first = sum(parameter.numel() for parameter in model.first.parameters())
    assert torch.equal(before[:first], after[:first])
    assert not torch.equal(before[first:], after[first:])


def test_skip_with_lbfgs_leaves_the_weights_finite(tmp_path: Path) -> None:
    class Newton(Model):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    model = Newton()
    with pytest.warns(UserWarning, match="left out"):
        fit(model, NonFiniteGuard("skip"), tmp_path)
    assert weights_of(model).isfinite().all()


# -- roll back --------------------------------------------------------------------------------------------------------


def test_rollback_goes_back_to_the_snapshot_and_on_with_the_next_batches(tmp_path: Path) -> None:
    model, guard = Model(), NonFiniteGuard("rollback", snapshot_every_n_steps=2)
    with pytest.warns(UserWarning, match="The weights go back to those of step 2"):
        trainer = fit(model, guard, tmp_path)
    assert torch.equal(model.weights[4], model.weights[2])
    assert torch.equal(weights_of(model), trained_by_hand(0, 1, 4, 5, 6, 7))
    assert trainer.global_step == 8
    assert guard.skips == 1


def test_rollback_goes_back_to_the_same_snapshot_twice(tmp_path: Path) -> None:
    model = Model()
    with pytest.warns(UserWarning, match="The weights go back") as told:
        fit(model, NonFiniteGuard("rollback", snapshot_every_n_steps=10), tmp_path, max_epochs=3)
    assert [str(warning.message)[-3:-1].strip() for warning in told] == ["0", "10", "10"]
    assert torch.equal(weights_of(model), trained_by_hand(4, 5, 6, 7, 8, 9, 20, 21, 22, 23))


def trained_by_hand(*batches_of_the_run: int) -> Tensor:
    """The weights after these batches alone, at the learning rates of their steps."""
    model = Model("nothing")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    batches = list(DataLoader(SAMPLES, batch_size=BATCH))  # type: ignore[arg-type]
    for number in batches_of_the_run:
        optimizer.zero_grad()
        model.loss(batches[number % len(batches)]).backward()
        optimizer.param_groups[0]["lr"] = learning_rate(number)
        optimizer.step()
    return weights_of(model)


def learning_rate(steps: int) -> float:
    """What the scheduler comes to, by its own arithmetic."""
    rate = 0.1
    for _ in range(steps):
        rate *= 0.9
    return rate


def test_rollback_puts_buffers_back(tmp_path: Path) -> None:
    class Normed(Model):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)
            self.means: list[Tensor] = []

        def loss(self, batch: Any) -> Tensor:
            assert self.norm.running_mean is not None
            self.means.append(self.norm.running_mean.clone())
            return super().loss([batch[0], self.norm(batch[1])])

    model = Normed()
    with pytest.warns(UserWarning, match="go back"):
        fit(model, NonFiniteGuard("rollback", snapshot_every_n_steps=2), tmp_path)
    assert torch.equal(model.means[4], model.means[2])


# -- going on ---------------------------------------------------------------------------------------------------------


class SaveAt(Callback):
    """Writes a checkpoint at the end of the step of one batch."""

    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: trainer.save_checkpoint(self.path))


@pytest.mark.parametrize("action", ["skip", "rollback"])
@pytest.mark.parametrize("batch", [2, 3, 5, 11])
@pytest.mark.filterwarnings("ignore:Step .* is not finite")
def test_run_that_is_resumed_ends_as_the_one_that_never_stopped(action: Any, batch: int, tmp_path: Path) -> None:
    guards = [NonFiniteGuard(action, snapshot_every_n_steps=2) for _ in range(2)]
    straight, resumed = Model(), Model()
    path = tmp_path / "saved.ckpt"
    fit(straight, guards[0], tmp_path, also=SaveAt(path, batch), accumulate_grad_batches=2, max_epochs=2)
    fit(resumed, guards[1], tmp_path, path, accumulate_grad_batches=2, max_epochs=2)
    assert torch.equal(weights_of(resumed), weights_of(straight))
    assert guards[1].skips == guards[0].skips == 2


@pytest.mark.filterwarnings("ignore:Step .* is not finite")
def test_another_training_begins_with_no_skips(tmp_path: Path) -> None:
    guard = NonFiniteGuard("skip")
    for _ in range(2):
        fit(Model(), guard, tmp_path)
        assert guard.skips == 1


@pytest.mark.parametrize(
    "arguments", [{"action": "ignore"}, {"max_skips": -1}, {"max_skips": True}, {"snapshot_every_n_steps": 0}]
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any]) -> None:
    [(name, value)] = arguments.items()
    with pytest.raises(MisconfigurationException, match=f"{name}={value!r}"):
        NonFiniteGuard(**arguments)
