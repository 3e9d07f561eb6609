"""Whatever a module, its optimizers and the user's callbacks keep goes on where it stood."""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from resuming import Model, assert_same, loader, run
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, weight_norm

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint


class Rivals(Model):
    """Two networks that are trained in turn, each with a scheduler; gradients of two batches are added up by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.judge = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch[0].tolist())
        made, value = self.net(batch[1]), batch[1].mean(1, keepdim=True)
        losses = [-self.judge(made).mean(), self.judge(made.detach()).mean() + self.judge(value).square().mean()]
        for optimizer, scheduler, loss in zip(self.optimizers(), self.lr_schedulers(), losses):
            self.toggle_optimizer(optimizer)
            self.manual_backward(loss / 2)
            if batch_idx % 2:
                self.clip_gradients(optimizer, 0.5, "norm")
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.Adam(self.net.parameters(), lr=0.01), torch.optim.RMSprop(self.judge.parameters())]
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(one, 0.9) for one in optimizers]


class Lbfgs(Model):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3, history_size=4)


class OwnStep(Model):
    """Steps only every second batch, by a step of its own, and clears gradients itself."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        if batch_idx % 2:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + self.trainer.global_step)
            optimizer.step(closure=closure)
        else:
            closure()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if batch_idx % 2 == 0:
            optimizer.zero_grad()


class Moody(Model):
    """Freezes and thaws, and switches a layer, in the middle of the run."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.trainer.global_step >= 1:
            self.net[0].weight.requires_grad_(False)
        if self.trainer.global_step >= 3:
            self.net[0].weight.requires_grad_(True)
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.trainer.progress.total_batches == 2:
            self.net[2].eval()  # once, and for the rest of the run
            self.net[3].bias.requires_grad_(False)


class Keeps(nn.Module):
    """Dropout by a generator of its own, and more state than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.numbers = {"torch": torch.Generator().manual_seed(2), "numpy": np.random.default_rng(3)}
        self.others = random.Random(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        kept = torch.rand(x.shape, generator=self.numbers["torch"]) < 0.9
        return x * kept + self.numbers["numpy"].random() + self.others.random() * self.calls

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


class Stateful(Model):
    """State in hooks of torch and of the module, frozen and re-parametrised layers, and a lazy one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            weight_norm(nn.Linear(4, 8)), Keeps(), nn.BatchNorm1d(8), orthogonal(nn.Linear(8, 8)), nn.LazyLinear(1)
        )
        self.net[3].requires_grad_(False)
        self.net(torch.zeros(2, 4))
        self.scale, self.shift, self.rises = 1.0, 0.0, 0
        self.register_state_dict_post_hook(self.add_scale)
        self.register_load_state_dict_pre_hook(self.take_scale)

    @staticmethod
    def add_scale(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        state[prefix + "scale"] = torch.tensor(module.scale, dtype=torch.float64)

    @staticmethod
    def take_scale(module: Any, state: dict[str, Any], prefix: str, *args: Any) -> None:
        module.scale = state.pop(prefix + "scale").item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"shift": self.shift, "rises": np.int64(self.rises).item()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.shift, self.rises = checkpoint["mine"]["shift"], checkpoint["mine"]["rises"]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.scale *= 0.99
        self.shift += 0.1
        self.rises += 1
        return super().training_step(batch, batch_idx) * self.scale + self.shift * self.net[4].weight.sum() / self.rises


class Shadow(Callback):
    """A moving average of the weights, which stands in for them in validation."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        for name, value in module.net.named_parameters():
            self.average[name] = 0.9 * self.average.get(name, value.detach()) + 0.1 * value.detach()

    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        self.own = {name: value.detach().clone() for name, value in module.net.named_parameters()}
        self.put(module, self.average or self.own)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self.put(module, self.own)

    def put(self, module: Any, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in module.net.named_parameters():
                value.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = state["average"]


class ShadowInModule(Callback):
    """The same, with the average among the buffers of the module."""

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        if not hasattr(module, "average"):
            module.average = copy.deepcopy(module.net).requires_grad_(False)

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        with torch.no_grad():
            for average, value in zip(module.average.parameters(), module.net.parameters()):
                average.lerp_(value, 0.1)


class Draws(Callback):
    """Disturbs the weights by generators of its own, and counts in the file by its hooks."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(8)
        self.numbers = np.random.RandomState(9)
        self.saved = 0

    def on_train_batch_start(self, trainer: Trainer, module: Any, *args: Any) -> None:
        with torch.no_grad():
            module.net[0].bias.add_(torch.randn(8, generator=self.generator) * 0.01 * self.numbers.rand())

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["of draws"] = trainer.global_step

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["of draws"]


KINDS: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    "manual": (Rivals, [], {"accumulate_grad_batches": 1}),
    "LBFGS": (Lbfgs, [], {"accumulate_grad_batches": 1}),
    "own step": (OwnStep, [], {"accumulate_grad_batches": 1}),
    "modes": (Moody, [], {}),
    "state": (Stateful, [], {}),
    "shadow": (Model, [Shadow], {}),
    "shadow in the module": (Model, [ShadowInModule], {}),
    "draws": (Model, [Draws], {}),
    "clipping": (Model, [], {"gradient_clip_val": 0.01}),
    "bf16-mixed": (Model, [], {"precision": "bf16-mixed"}),
    "64-true": (Model, [], {"precision": "64-true"}),
}


@pytest.mark.filterwarnings(
    "ignore:.*sub-modules are in evaluation mode", "ignore:Lazy modules", "ignore:Detected call of"
)
@pytest.mark.parametrize("batch", [1, 3, 6, 7, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_run_goes_on_exactly_whatever_is_trained(tmp_path, kind, batch):
    model, callbacks, flags = KINDS[kind]
    flags = {"model": model, "callbacks": callbacks, "max_epochs": 2, **flags}
    whole = run(loader, **flags)
    run(loader, tmp_path / "k.ckpt", batch, **flags)
    resumed = run(loader, resume=tmp_path / "k.ckpt", seed=2, **flags)

    assert len(resumed.seen) == (14 - batch) * len(whole.seen) // 14
    assert_same(resumed, whole)
    for own, theirs in zip(resumed.listeners, whole.listeners):
        torch.testing.assert_close(own.state_dict(), theirs.state_dict(), rtol=0, atol=0)


class SaveIn(Callback):
    """Saves once, in a hook, when so many batches are trained."""

    def __init__(self, hook: str, path: Any, batch: int) -> None:
        self.saved = 0

        def save(trainer: Trainer, *args: Any) -> None:
            if trainer.progress.total_batches == batch and not self.saved and not trainer.sanity_checking:
                self.saved = 1
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


HOOKS = {
    "on_train_start": 0,
    "on_train_epoch_start": 7,
    "on_train_batch_end": 3,
    "on_validation_start": 4,
    "on_validation_batch_end": 4,
    "on_validation_epoch_end": 4,
    "on_validation_end": 4,
    "on_train_epoch_end": 7,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_run_goes_on_exactly_from_a_file_that_a_hook_has_written(tmp_path, hook):
    batch = HOOKS[hook]
    whole = run(loader, callbacks=[lambda: SaveIn(hook, tmp_path / "k.ckpt", batch)], max_epochs=2)
    resumed = run(loader, resume=tmp_path / "k.ckpt", seed=2, max_epochs=2)

    assert whole.listeners[0].saved
    assert len(resumed.seen) == 14 - batch
    assert_same(resumed, whole)


def test_run_goes_on_exactly_from_every_file_of_a_checkpoint_callback(tmp_path):
    def writers() -> list[Any]:
        return [
            lambda: ModelCheckpoint(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1),
            lambda: ModelCheckpoint(tmp_path / "best", "{step}", monitor="val_loss", save_top_k=-1),
            lambda: ModelCheckpoint(
                tmp_path / "epochs", "{epoch}", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1
            ),
        ]

    flags = {"max_epochs": 2, "enable_checkpointing": True, "default_root_dir": tmp_path, "num_sanity_val_steps": 0}
    with warnings.catch_warnings(action="ignore"):  # that names are taken
        whole = run(loader, callbacks=writers(), **flags)
    files = sorted(tmp_path.glob("*/*.ckpt"))
    assert len(files) >= 8, files
    for file in files:
        with warnings.catch_warnings(action="ignore"):
            resumed = run(loader, resume=file, seed=2, callbacks=writers(), **flags)
        assert_same(resumed, whole)


@pytest.mark.parametrize("hook", ["training_step", "on_before_zero_grad", "on_after_backward"])
def test_file_that_is_written_within_a_step_says_that_its_batch_is_trained_again(tmp_path, hook):
    class Saves(Model):
        pass

    def save(self: Any, *args: Any) -> Any:
        if self.trainer.progress.total_batches == 3:
            self.trainer.save_checkpoint(tmp_path / "k.ckpt")
        return Model.training_step(self, *args) if hook == "training_step" else None

    setattr(Saves, hook, save)
    with pytest.warns(UserWarning, match="middle of the step of batch 3: .* trains this batch once more"):
        whole = run(loader, model=Saves, max_epochs=1)
    with pytest.warns(UserWarning, match="middle of the step of batch 3"):
        resumed = run(loader, model=Saves, resume=tmp_path / "k.ckpt", seed=2, max_epochs=1)
    assert resumed.seen == whole.seen[3:]


def test_generator_that_is_not_there_any_more_is_told(tmp_path):
    class Without(Draws):
        def __init__(self) -> None:
            super().__init__()
            self.numbers = np.random.default_rng(1)  # type: ignore[assignment]
            self.generator = None  # type: ignore[assignment]

        @property
        def state_key(self) -> str:
            return "Draws"

        def on_train_batch_start(self, *args: Any) -> None: ...

    run(loader, tmp_path / "k.ckpt", 3, callbacks=[Draws], max_epochs=1)
    with pytest.warns(UserWarning, match="random number generator") as caught:
        run(loader, resume=tmp_path / "k.ckpt", callbacks=[Without], max_epochs=1)
    assert ["Draws.generator" in str(one.message) for one in caught] == [True, False]
    assert ["it is a PCG64 now" in str(one.message) for one in caught] == [False, True]
