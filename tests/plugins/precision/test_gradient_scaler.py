"""16-bit mixed precision: the trainer does what a hand-written loop with a gradient scaler does, number for number."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.loops.by_hand import Regressor, assert_same_optimizer, assert_same_weights, loader, sgd, twins
from torch import nn
from torch.amp.grad_scaler import GradScaler

from fulmen import Callback
from fulmen.plugins import MixedPrecision
from fulmen.utilities.exceptions import MisconfigurationException

#: so large at first that gradients overflow and steps are left out, and growing again soon
SHAKY = {"init_scale": 2.0**24, "growth_interval": 3}


def shaky() -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", **SHAKY))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.float16, cache_enabled=False)


def train_by_hand(
    module: Regressor,
    batches: Any,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    *,
    accumulate: int = 1,
    before_step: Callable[[], Any] = lambda: None,
    after_step: Callable[[], Any] = lambda: None,
) -> int:
    """As torch's documentation writes it; returns how many steps were left out."""
    module.train()
    skipped = 0
    for _ in range(epochs):
        for index, batch in enumerate(batches):
            place = index % accumulate
            window = min(accumulate, len(batches) - (index - place))
            if place == 0:
                optimizer.zero_grad()
            with autocast():
                loss = module.loss(batch)
            scaler.scale(loss / window if window > 1 else loss).backward()
            if place + 1 == window:
                scaler.unscale_(optimizer)
                before_step()
                scaler.step(optimizer)
                scale = scaler.get_scale()
                scaler.update()
                skipped += scaler.get_scale() < scale
                after_step()
    return skipped


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=0.02)


def fused(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=0.02, fused=True)


# -- the default loop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configure", [sgd, adam, fused])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, "norm", "value"])
def test_weights_equal_the_hand_written_loop_also_where_steps_are_left_out(trainer_of, configure, accumulate, clip):
    module, twin = twins(configure=configure)
    limit = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": clip} if clip else {}
    trainer = trainer_of(max_epochs=3, plugins=shaky(), accumulate_grad_batches=accumulate, **limit)
    trainer.fit(module, loader(28))

    scaler, optimizer = GradScaler("cpu", **SHAKY), configure(twin)
    limits = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}
    skipped = train_by_hand(
        twin,
        loader(28),
        3,
        optimizer,
        scaler,
        accumulate=accumulate,
        before_step=lambda: limits[clip](twin.parameters(), 0.05) if clip else None,
    )

    assert_same_weights(module, twin)
    assert_same_optimizer(trainer.optimizers[0], optimizer)
    assert skipped > 0
    assert trainer.precision_plugin.skipped_steps == skipped
    assert trainer.scaler.state_dict() == scaler.state_dict()


@pytest.mark.parametrize("spelling", [16, "16", "16-mixed"])
def test_all_spellings_on_the_cpu_train_in_16_bits_with_torchs_scaler(trainer_of, spelling):
    module, twin = twins()
    trainer = trainer_of(max_epochs=2, precision=spelling)
    trainer.fit(module, loader(20))

    scaler = GradScaler("cpu")
    train_by_hand(twin, loader(20), 2, sgd(twin), scaler)

    assert_same_weights(module, twin)
    assert trainer.precision == "16-mixed"
    assert trainer.scaler.state_dict() == scaler.state_dict()
    assert module.dtype == torch.float32
    coarser, _ = twins()
    trainer_of(max_epochs=2, precision="bf16-mixed").fit(coarser, loader(20))
    assert not torch.equal(coarser.net[0].weight, module.net[0].weight)


def test_skipped_step_counts_for_global_step_and_schedulers_and_torch_does_not_warn(trainer_of):
    def scheduled(module: nn.Module) -> Any:
        optimizer = sgd(module)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module, _ = twins(configure=scheduled)
    before = copy.deepcopy(module.net[0].weight)
    trainer = trainer_of(max_steps=2, plugins=shaky())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(module, loader(20))

    assert torch.equal(module.net[0].weight, before)
    assert (trainer.precision_plugin.skipped_steps, trainer.global_step) == (2, 2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.05 * 0.5**2


def test_hooks_and_own_clipping_see_unscaled_gradients(trainer_of):
    seen: dict[str, float] = {}

    def norm(module: nn.Module) -> float:
        return float(nn.utils.get_total_norm([parameter.grad for parameter in module.parameters()]))

    class Curious(Regressor):
        def on_before_optimizer_step(self, optimizer):
            seen["hook"] = norm(self)

        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            seen["clipping"] = norm(self)
            self.clip_gradients(optimizer, gradient_clip_val=0.01, gradient_clip_algorithm="norm")
            seen["after"] = norm(self)

    torch.manual_seed(1)
    module = Curious()
    trainer_of(max_steps=1, precision="16-mixed").fit(module, loader(4))
    torch.manual_seed(1)
    twin = Regressor()
    twin.loss(next(iter(loader(4)))).backward()

    assert seen["hook"] == seen["clipping"] == pytest.approx(norm(twin), rel=1e-2)
    assert seen["after"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("style", ["closure in step", "closure first", "super"])
def test_own_optimizer_step_equals_the_hand_written_loop(trainer_of, style):
    class Own(Regressor):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            if style == "closure in step":
                optimizer.step(closure=optimizer_closure)
            elif style == "closure first":
                optimizer_closure()
                optimizer.step()
            else:
                super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    _, twin = twins()
    module = Own()
    module.load_state_dict(twin.state_dict())
    trainer_of(max_epochs=2, plugins=shaky(), gradient_clip_val=0.05).fit(module, loader(20))

    clip = lambda: nn.utils.clip_grad_norm_(twin.parameters(), 0.05)  # noqa: E731
    skipped = train_by_hand(twin, loader(20), 2, sgd(twin), GradScaler("cpu", **SHAKY), before_step=clip)

    assert skipped
    assert_same_weights(module, twin)


def test_step_that_returns_none_leaves_weights_and_scale_alone(trainer_of):
    class Silent(Regressor):
        def training_step(self, batch, batch_idx):
            return None if batch_idx in (0, 2) else super().training_step(batch, batch_idx)

    _, twin = twins()
    module = Silent()
    module.load_state_dict(twin.state_dict())
    trainer = trainer_of(max_epochs=1, precision="16-mixed")
    trainer.fit(module, loader(16))

    scaler = GradScaler("cpu")
    train_by_hand(twin, [batch for index, batch in enumerate(loader(16)) if index not in (0, 2)], 1, sgd(twin), scaler)

    assert_same_weights(module, twin)
    assert trainer.scaler.state_dict() == scaler.state_dict()


def test_many_steps_left_out_in_a_row_are_reported_with_the_first_parameter(trainer_of):
    class Broken(Regressor):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * float("inf")

    trainer = trainer_of(max_steps=40, precision="16-mixed")
    with pytest.warns(UserWarning, match=r"left out 16 steps in a row \(16 of this run\).*'net.0.weight'") as told:
        trainer.fit(Broken(), loader(80))

    assert len([one for one in told if "in a row" in str(one.message)]) == 1
    assert trainer.precision_plugin.skipped_steps == 40


def test_another_model_starts_with_a_new_scale_and_the_same_goes_on(trainer_of):
    trainer = trainer_of(max_epochs=1, plugins=shaky())
    first, second = twins()
    trainer.fit(first, loader(12))
    scale, skipped = trainer.scaler.get_scale(), trainer.precision_plugin.skipped_steps
    assert (scale, skipped) == (SHAKY["init_scale"] / 8, 3)

    trainer.max_epochs = 2
    trainer.fit(first, loader(12))
    assert trainer.precision_plugin.skipped_steps > skipped

    trainer.max_epochs = 1
    trainer.fit(second, loader(12))
    assert (trainer.scaler.get_scale(), trainer.precision_plugin.skipped_steps) == (scale, skipped)


def test_run_that_failed_between_unscaling_and_the_step_leaves_nothing_behind(trainer_of):
    class Fails(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            raise KeyError("once")

    module, twin = twins()
    optimizer = sgd(module)
    module.configure = lambda module: optimizer  # the same in both runs
    trainer = trainer_of(max_epochs=1, precision="16-mixed", callbacks=Fails())
    with pytest.raises(KeyError, match="once"):
        trainer.fit(module, loader(20))
    trainer.callbacks = []
    trainer.fit(module, loader(20))

    scaler = GradScaler("cpu")
    train_by_hand(twin, loader(20), 1, sgd(twin), scaler)
    assert_same_weights(module, twin)


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configure", [sgd, fused])
@pytest.mark.parametrize("stop", [2, 5, 12])
def test_resumed_run_equals_the_run_that_never_stopped(trainer_of, tmp_path, configure, stop):
    """Stopped before the first step that is made, and within an accumulation window, too."""
    options = {"max_epochs": 4, "gradient_clip_val": 0.1, "accumulate_grad_batches": 2}

    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.progress.total_batches == stop:
                trainer.save_checkpoint(tmp_path / "stop.ckpt")

    whole, stopped = twins(configure=configure)
    straight = trainer_of(plugins=shaky(), **options)
    straight.fit(whole, loader(28))
    trainer_of(plugins=shaky(), callbacks=Stops(), **options).fit(stopped, loader(28))
    resumed, _ = twins(configure=configure)
    second = trainer_of(plugins=shaky(), **options)
    second.fit(resumed, loader(28), ckpt_path=tmp_path / "stop.ckpt")

    assert_same_weights(resumed, whole)
    assert_same_optimizer(second.optimizers[0], straight.optimizers[0])
    assert second.precision_plugin.state_dict() == straight.precision_plugin.state_dict()
    assert second.precision_plugin.skipped_steps > 0


def test_checkpoint_holds_the_scaler_under_lightnings_key_in_plain_data(trainer_of, tmp_path):
    trainer = trainer_of(max_epochs=1, plugins=shaky())
    trainer.fit(Regressor(), loader(20))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")

    state = torch.load(tmp_path / "whole.ckpt", weights_only=True)["MixedPrecision"]

    assert state == {**trainer.scaler.state_dict(), "skipped_steps": trainer.precision_plugin.skipped_steps}
    loaded = GradScaler("cpu")
    loaded.load_state_dict(state)  # as Lightning does it
    assert loaded.state_dict() == trainer.scaler.state_dict()


# -- manual optimization ----------------------------------------------------------------------------------------------


class ByHand(Regressor):
    """Two optimizers, whose gradients come from one loss or from one each.

    Args:
        losses: 1 or 2.
    """

    def __init__(self, losses: int, clip: bool = False) -> None:
        super().__init__(lambda module: [sgd(module.net[0]), torch.optim.Adam(module.net[3].parameters(), lr=0.02)])
        self.automatic_optimization = False
        self.losses, self.clip = losses, clip
        self.announced: list[str] = []

    def on_before_optimizer_step(self, optimizer):
        self.announced.append(type(optimizer).__name__)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        for optimizer in (first, second):
            optimizer.zero_grad()
            if self.losses == 2:
                self.manual_backward(self.loss(batch) * (1.0 if optimizer is first else 3.0))
                self._step(optimizer)
        if self.losses == 1:
            self.manual_backward(self.loss(batch))
            self._step(first)
            self._step(second)

    def _step(self, optimizer):
        if self.clip:
            self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm="norm")
        optimizer.step()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("losses", [1, 2])
def test_several_optimizers_by_hand_equal_the_hand_written_loop(trainer_of, losses, clip):
    torch.manual_seed(1)
    module = ByHand(losses, clip)
    twin = copy.deepcopy(module)
    trainer = trainer_of(max_epochs=3, plugins=shaky())
    trainer.fit(module, loader(20))

    scaler, optimizers = GradScaler("cpu", **SHAKY), twin.configure(twin)
    parameters = [[*twin.net[0].parameters()], [*twin.net[3].parameters()]]
    skipped = 0

    def step(position: int) -> None:
        nonlocal skipped
        scaler.unscale_(optimizers[position])
        skipped += not all(parameter.grad.isfinite().all() for parameter in parameters[position])
        if clip:
            nn.utils.clip_grad_norm_(parameters[position], 0.05)
        scaler.step(optimizers[position])

    def backward(batch: Any, factor: float) -> None:
        with autocast():
            loss = twin.loss(batch)
            loss = loss * factor if losses == 2 else loss
        scaler.scale(loss).backward()

    for batch in [batch for _ in range(3) for batch in loader(20)]:
        if losses == 1:
            for optimizer in optimizers:
                optimizer.zero_grad()
            backward(batch, 1.0)
            step(0)
            step(1)
            scaler.update()
            continue
        for position in (0, 1):
            optimizers[position].zero_grad()
            backward(batch, (1.0, 3.0)[position])
            step(position)
            scaler.update()

    assert_same_weights(module, twin)
    assert skipped > 0
    assert trainer.precision_plugin.state_dict() == {**scaler.state_dict(), "skipped_steps": skipped}
    assert trainer.global_step == len(module.announced) == 2 * 3 * 5  # steps that were left out are among them


def test_fused_optimizer_by_hand_counts_each_step_once(trainer_of):
    class Own(Regressor):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    _, twin = twins(configure=fused)
    module = Own(fused)
    module.load_state_dict(twin.state_dict())
    module.automatic_optimization = False
    trainer = trainer_of(max_epochs=2, plugins=shaky())
    trainer.fit(module, loader(20))

    train_by_hand(twin, loader(20), 2, fused(twin), GradScaler("cpu", **SHAKY))

    assert_same_weights(module, twin)
    assert trainer.global_step == 10


@pytest.mark.parametrize("fault", ["backward", "step"])
def test_gradients_that_would_go_past_the_scaler_are_an_error(trainer_of, fault):
    class Forgets(Regressor):
        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            if fault == "backward":
                loss.backward()
                self.optimizers().step()
            else:
                self.manual_backward(loss)
                self.optimizers(use_pl_optimizer=False).step()

    module = Forgets()
    module.automatic_optimization = False
    advice = {"backward": r"self\.manual_backward\(loss\)", "step": r"self\.optimizers\(\)"}[fault]
    with pytest.raises(MisconfigurationException, match=advice):
        trainer_of(max_epochs=1, precision="16-mixed").fit(module, loader(8))


def test_direct_step_in_an_own_optimizer_step_is_an_error(trainer_of):
    class PastIt(Regressor):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            optimizer.optimizer.step(closure=optimizer_closure)

    with pytest.raises(MisconfigurationException, match="SGD was stepped directly"):
        trainer_of(max_epochs=1, precision="16-mixed").fit(PastIt(), loader(8))


def test_own_use_of_the_scaler_is_left_alone(trainer_of):
    class Own(Regressor):
        def training_step(self, batch, batch_idx):
            scaler, optimizer = self.trainer.scaler, self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            scaler.scale(self.loss(batch)).backward()
            scaler.step(optimizer)
            scaler.update()

    _, twin = twins()
    module = Own()
    module.load_state_dict(twin.state_dict())
    module.automatic_optimization = False
    trainer_of(max_epochs=2, precision="16-mixed").fit(module, loader(20))

    train_by_hand(twin, loader(20), 2, sgd(twin), GradScaler("cpu"))
    assert_same_weights(module, twin)


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_lbfgs_is_refused_before_training(trainer_of):
    module = Regressor(lambda module: torch.optim.LBFGS(module.parameters()))
    with pytest.raises(MisconfigurationException, match="LBFGS do not go together"):
        trainer_of(max_epochs=1, precision="16-mixed").fit(module, loader(8))


class UnscalesItself(torch.optim.SGD):
    """Takes the scaler in its step."""

    _step_supports_amp_scaling = True

    def step(self, closure=None, grad_scaler=None):
        grad_scaler.unscale_(self)
        if not any(bool(found) for found in grad_scaler._found_inf_per_device(self).values()):
            super().step()


@pytest.mark.filterwarnings("ignore:GradScaler is going to stop:FutureWarning")
def test_optimizer_that_unscales_itself_trains_but_cannot_be_clipped(trainer_of):
    module, twin = twins(configure=lambda module: UnscalesItself(module.parameters(), lr=0.05, momentum=0.9))
    trainer = trainer_of(max_epochs=2, plugins=shaky())
    trainer.fit(module, loader(20))
    skipped = train_by_hand(twin, loader(20), 2, sgd(twin), GradScaler("cpu", **SHAKY))
    assert_same_weights(module, twin)
    assert trainer.precision_plugin.skipped_steps == skipped > 0

    with pytest.raises(RuntimeError, match="UnscalesItself unscales its gradients itself"):
        trainer_of(max_epochs=1, plugins=shaky(), gradient_clip_val=0.1).fit(module, loader(8))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("bf16-mixed", "cpu", GradScaler("cpu")), MisconfigurationException, "needs no gradient scaler"),
        (("16-true", "cpu"), ValueError, "'16-mixed' or 'bf16-mixed'"),
    ],
)
def test_plugin_with_arguments_that_contradict_each_other_is_an_error(arguments, error, words):
    with pytest.raises(error, match=words):
        MixedPrecision(*arguments)
