"""Hooks that open a run or an epoch are called again in a run that goes on; what they change is changed once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import BATCH, Model, Noisy, assert_same, loader, run
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import Callback, LightningDataModule, Trainer

OPENING = ("setup", "on_fit_start", "on_train_start", "on_train_epoch_start")
QUIET: dict[str, Any] = {"max_epochs": 2, "accumulate_grad_batches": 1, "num_sanity_val_steps": 0}


def counting(hook: str) -> type[Model]:
    """A model that counts in a buffer, in an attribute that it saves, and in the state of a part, in ``hook``."""

    class Counts(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            self.register_buffer("history", torch.zeros(1))
            self.part, self.saved, self.log_of_calls = Part(), 0, [0]

        def count(self) -> None:
            self.calls += 1
            self.history = self.history + 0.5 * self.history.cos()
            self.part.number += 1
            self.saved += 1
            self.log_of_calls.append(self.saved)

        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) * (1 + self.calls + self.history + self.part.number + self.saved).sum()

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["own"] = {"saved": self.saved, "log": list(self.log_of_calls)}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.saved = checkpoint["own"]["saved"]
            self.log_of_calls[:] = checkpoint["own"]["log"]

    setattr(Counts, hook, lambda self, *args, **kwargs: self.count())
    return Counts


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"number": self.number}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def resumed_and_whole(path: Path, batch: int, after_epoch: bool = False, **arguments: Any) -> tuple[Any, Any]:
    arguments = {**QUIET, **arguments}
    whole = run(loader, **arguments)
    run(loader, path, batch, after_epoch=after_epoch, **arguments)
    return run(loader, resume=path, seed=2, **arguments), whole


@pytest.mark.parametrize("after_epoch", [False, True])
@pytest.mark.parametrize("hook", OPENING)
def test_hook_that_counts_when_it_opens_a_run_or_an_epoch_counts_once(tmp_path, hook, after_epoch):
    batch = 7 if after_epoch else 9
    resumed, whole = resumed_and_whole(tmp_path / "k.ckpt", batch, after_epoch, model=counting(hook))

    assert resumed.calls.item() == whole.calls.item() == (2 if hook == "on_train_epoch_start" else 1)
    assert (resumed.part.number, resumed.saved) == (whole.part.number, whole.saved)
    assert resumed.log_of_calls == whole.log_of_calls
    assert_same(resumed, whole)


class Average(Callback):
    """A moving average that takes the weights in when an epoch begins, and pulls them a little towards itself."""

    average: dict[str, Tensor] | None = None

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        weights = {name: value.detach() for name, value in module.net.named_parameters()}
        before = self.average or weights
        self.average = {name: 0.9 * before[name] + 0.1 * value + 0.01 for name, value in weights.items()}
        with torch.no_grad():
            for name, value in weights.items():
                value.lerp_(self.average[name], 0.3)


class AverageWithState(Average):
    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = state["average"]


class AverageInHooks(Average):
    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["average"] = self.average

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        self.average = checkpoint["average"]


class AverageInAModule(Callback):
    """The same in a copy of the network that the callback owns, changed in place."""

    def __init__(self) -> None:
        self.copy = nn.Linear(4, 8)

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        with torch.no_grad():
            for own, value in zip(self.copy.parameters(), module.net[0].parameters()):
                own.mul_(0.9).add_(value, alpha=0.1)
                value.lerp_(own, 0.3)

    on_save_checkpoint = lambda self, trainer, module, file: file.update(average=self.copy.state_dict())  # noqa: E731
    on_load_checkpoint = lambda self, trainer, module, file: self.copy.load_state_dict(file["average"])  # noqa: E731


class Rates(Callback):
    """Lowers the learning rate and forgets a momentum when an epoch begins."""

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.5
        for state in trainer.optimizers[0].state.values():
            state["exp_avg"].zero_()


class Pretrained(Callback):
    """Loads weights from elsewhere before the run begins."""

    def on_fit_start(self, trainer: Trainer, module: Any) -> None:
        module.net[0].load_state_dict({"weight": torch.ones(8, 4), "bias": torch.ones(8)})


@pytest.mark.parametrize("after_epoch", [False, True])
@pytest.mark.parametrize(
    "callback", [AverageWithState, AverageInHooks, AverageInAModule, Rates, Pretrained], ids=lambda kind: kind.__name__
)
def test_callback_that_changes_the_run_when_it_begins_does_so_once(tmp_path, callback, after_epoch):
    batch = 7 if after_epoch else 9
    resumed, whole = resumed_and_whole(tmp_path / "k.ckpt", batch, after_epoch, callbacks=[callback])

    assert_same(resumed, whole)
    if isinstance(whole.listeners[0], Average):
        torch.testing.assert_close(resumed.listeners[0].average, whole.listeners[0].average, rtol=0, atol=0)


class Pages(LightningDataModule):
    """Counts how often its loader was asked for, and gives the batches in an order that depends on it."""

    asked = 0

    def train_dataloader(self) -> Any:
        self.asked += 1
        return DataLoader(Noisy(), BATCH, shuffle=True, generator=torch.Generator().manual_seed(self.asked))

    def val_dataloader(self) -> Any:
        return DataLoader(Noisy(4), BATCH)

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def test_datamodule_that_counts_when_it_is_asked_counts_once(tmp_path):
    made: list[Pages] = []

    def one(**options: Any) -> Any:
        made.append(Pages())
        return run(None, datamodule=made[-1], **QUIET, **options)

    one()
    one(path=tmp_path / "k.ckpt", stop_at=9)
    one(resume=tmp_path / "k.ckpt", seed=2)

    assert [pages.asked for pages in made] == [1, 1, 1]


def test_buffer_that_is_in_no_file_is_what_the_hook_has_made(tmp_path):
    class Caches(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(3), persistent=False)
            self.frozen = nn.Linear(1, 1)  # comes from elsewhere, and is left out of the file
            self.strict_loading = False

        def on_fit_start(self) -> None:
            self.cache += 1
            nn.init.constant_(self.frozen.weight, 5.0)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            for name in ("frozen.weight", "frozen.bias"):
                del checkpoint["state_dict"][name]

    resumed, whole = resumed_and_whole(tmp_path / "k.ckpt", 9, model=Caches)

    assert torch.equal(resumed.cache, whole.cache)
    assert resumed.frozen.weight.item() == whole.frozen.weight.item() == 5.0


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_end"])
def test_run_says_what_was_put_back(tmp_path, caplog, hook):
    with caplog.at_level(logging.INFO, logger="fulmen"):
        resumed_and_whole(tmp_path / "k.ckpt", 9, model=counting(hook))

    said = [message for message in caplog.messages if "put back as the checkpoint has it" in message]
    assert [message.partition(":")[0] for message in said] == (
        ["calls, history, part._extra_state, Counts.saved and 1 more"] if hook == "on_train_start" else []
    )
