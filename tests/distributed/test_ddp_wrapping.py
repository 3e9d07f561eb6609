"""What is asked of ``DistributedDataParallel``, what it costs, and what is said when it cannot work."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.distributed.processes import Failed, run
from tests.distributed.regression import Regression, quiet, samples, weights_of
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    allreduce_hook,
    fp16_compress_hook,
    fp16_compress_wrapper,
)
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback, Trainer
from fulmen.strategies import DDPStrategy

EACH, COUNT = 4, 40


def batches() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(COUNT)), batch_size=EACH)


class Leaving(Regression):
    """Rank 1 leaves a batch out."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if self.trainer.global_rank == 1 and batch_idx == 2 else loss


class Summing(Leaving):
    """Of more weight than a number of 16 bits can hold."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        weight = 70000 + 10000 * self.trainer.global_rank
        return None if loss is None else {"loss_sum": loss * weight / 1000, "weight": weight}


def fit(kind: type[Regression] = Leaving, strategy: Any = "ddp", **arguments: Any) -> Any:
    module = kind(torch.float64)
    Trainer(**quiet(devices=2, strategy=strategy, **arguments)).fit(module, batches())
    return weights_of(module)


SETTINGS: dict[str, dict[str, Any]] = {
    "static_graph": {"static_graph": True},
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "find_unused_parameters": {"find_unused_parameters": True},
    "small buckets": {"bucket_cap_mb": 1e-4},
    "a comm hook": {"ddp_comm_hook": allreduce_hook},
}


def with_settings() -> dict[str, Any]:
    found = {"": fit()}
    for name, settings in SETTINGS.items():
        found[name] = fit(strategy=DDPStrategy(**settings))
    found["exact"] = fit(Summing)
    found["hook of 16 bits"] = fit(Summing, DDPStrategy(ddp_comm_hook=fp16_compress_hook))
    wrapped = DDPStrategy(ddp_comm_hook=allreduce_hook, ddp_comm_wrapper=fp16_compress_wrapper)
    found["wrapper of 16 bits"] = fit(Summing, wrapped)
    return found


@pytest.fixture(scope="module")
def settings() -> list[dict[str, Any]]:
    return run(2, with_settings)


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_of_ddp_keeps_the_numbers(setting: str, settings: list[dict[str, Any]]) -> None:
    for result in settings:
        torch.testing.assert_close(result[setting], settings[0][""], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["hook of 16 bits", "wrapper of 16 bits"])
def test_gradients_in_16_bits_keep_weights_that_16_bits_cannot_hold(way: str, settings: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(settings[0][way], settings[0]["exact"], rtol=0.05, atol=0.01)
    assert torch.equal(settings[0][way], settings[1][way])


class Counting(Callback):
    """Notes how many collectives each step made."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(self, *rest: Any, **more: Any) -> None:
        self.before = number_of_collectives()

    def on_train_batch_end(self, *rest: Any, **more: Any) -> None:
        self.counts.append(number_of_collectives() - self.before)


def number_of_collectives() -> int:
    return dist.group.WORLD._get_sequence_number_for_group()  # type: ignore[union-attr]


class Logging(Regression):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


def counted() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for bucket in (25, 1e-4):
        for kind in (Regression, Leaving, Summing, Logging):
            counting = Counting()
            fit(kind, DDPStrategy(bucket_cap_mb=bucket), callbacks=[counting])
            found[f"{kind.__name__} {bucket}"] = counting.counts[3:]
        wrapper = DistributedDataParallel(Regression().net, bucket_cap_mb=bucket)
        counts = []
        for inputs, targets in list(batches())[: len(counting.counts)]:
            before = number_of_collectives()
            (wrapper(inputs) - targets).square().mean().backward()
            counts.append(number_of_collectives() - before)
        found[f"by hand {bucket}"] = counts[3:]
    return found


def test_step_makes_no_collective_besides_those_of_the_gradients() -> None:
    for found in run(2, counted):
        for bucket in (25, 1e-4):
            by_hand = set(found[f"by hand {bucket}"])
            assert len(by_hand) == 1
            for kind in (Regression, Leaving, Summing, Logging):
                assert set(found[f"{kind.__name__} {bucket}"]) == by_hand


# -- what is trained ---------------------------------------------------------------------------------------------------


class Unfreezing(Regression):
    """Trains the last layer first, and all from the second epoch on."""

    def setup(self, stage: str) -> None:
        self.net[0].requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        self.net[0].requires_grad_(self.current_epoch > 0)


class Noisy(Regression):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.net.append(nn.Dropout(0.5))
        self.drawn: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.drawn.append(float(torch.rand(())))
        return super().training_step(batch, batch_idx)


class Normalised(Leaving):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.norm = nn.BatchNorm1d(8, dtype=dtype)
        self.net.insert(1, self.norm)
        self.seen: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert self.norm.running_mean is not None
        self.seen.append(self.norm.running_mean.clone())


def of_modules() -> dict[str, Any]:
    noisy, normalised = Noisy(torch.float64), Normalised(torch.float64)
    torch.manual_seed(5)
    Trainer(**quiet(devices=2)).fit(noisy, batches())
    trainer = Trainer(**quiet(devices=2, accumulate_grad_batches=2, max_epochs=1, num_sanity_val_steps=0))
    trainer.fit(normalised, DataLoader(TensorDataset(*samples(36)), batch_size=EACH), batches())
    return {
        "unfreezing": fit(Unfreezing, max_epochs=3),
        "drawn": noisy.drawn,
        "noisy": weights_of(noisy),
        "statistics": normalised.seen[0],
        "normalised": weights_of(normalised),
    }


@pytest.fixture(scope="module")
def modules() -> list[dict[str, Any]]:
    return run(2, of_modules)


def test_parameters_that_are_thawed_later_are_averaged_too(modules: list[dict[str, Any]]) -> None:
    module = Unfreezing(torch.float64)
    inputs, targets = samples(COUNT)
    groups = [(inputs[at : at + 8], targets[at : at + 8]) for at in range(0, COUNT, 8)]
    Trainer(**quiet(max_epochs=3)).fit(module, groups)
    for result in modules:
        torch.testing.assert_close(result["unfreezing"], weights_of(module), rtol=1e-11, atol=1e-12)


def test_processes_draw_random_numbers_of_their_own_in_training(modules: list[dict[str, Any]]) -> None:
    one, other = (set(result["drawn"]) for result in modules)
    assert len(one) == len(other) == len(modules[0]["drawn"])
    assert not one & other
    assert torch.equal(modules[0]["noisy"], modules[1]["noisy"])


def test_evaluation_has_the_same_statistics_of_layers_on_all_processes(modules: list[dict[str, Any]]) -> None:
    assert torch.equal(modules[0]["statistics"], modules[1]["statistics"])
    assert torch.equal(modules[0]["normalised"], modules[1]["normalised"])


class AveragingSeldom(Regression):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.after: list[Tensor] = []

    def on_train_batch_end(self, *rest: Any, **more: Any) -> None:
        self.after.append(weights_of(self).clone())


def averaged_seldom() -> Any:
    dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=2)
    alone = [dist.new_group([rank]) for rank in range(2)]
    state = PostLocalSGDState(None, alone[dist.get_rank()], start_localSGD_iter=1, post_local_gradient_allreduce=False)
    module = AveragingSeldom(torch.float64)
    strategy = DDPStrategy(ddp_comm_state=state, ddp_comm_hook=post_localSGD_hook, model_averaging_period=2)
    Trainer(**quiet(devices=2, strategy=strategy, max_epochs=1)).fit(module, batches())
    return module.after


def test_post_local_sgd_averages_the_weights_after_each_period() -> None:
    one, other = run(2, averaged_seldom)
    same = [bool(torch.equal(mine, theirs)) for mine, theirs in zip(one, other)]
    assert same == [True, True, False, True, False]


# -- manual optimization -----------------------------------------------------------------------------------------------


class Choosing(Regression):
    """Each process uses a layer of its own besides the common one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.automatic_optimization = False
        self.ways = nn.ModuleList([nn.Linear(4, 1, dtype=dtype), nn.Linear(4, 1, dtype=dtype)])

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        if self.trainer.world_size == 1:
            parts = list(zip([0, 1], inputs.chunk(2), targets.chunk(2)))
        else:
            parts = [(self.trainer.global_rank, inputs, targets)]
        losses = [(self.net(x) + self.ways[rank](x) - y).square().mean() for rank, x, y in parts]
        self.manual_backward(torch.stack(losses).mean())
        optimizer.step()


def choosing() -> Tensor:
    return fit(Choosing)


def test_parameters_used_on_one_process_only_are_averaged_by_hand() -> None:
    module = Choosing(torch.float64)
    inputs, targets = samples(COUNT)
    Trainer(**quiet()).fit(module, [(inputs[at : at + 8], targets[at : at + 8]) for at in range(0, COUNT, 8)])
    for weights in run(2, choosing):
        torch.testing.assert_close(weights, weights_of(module), rtol=1e-11, atol=1e-12)


class Desynchronised(Choosing):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_rank == 0 or batch_idx != 1:
            self.manual_backward(self.error(batch).mean())


def desynchronised() -> None:
    fit(Desynchronised)


def test_backward_left_out_on_one_process_by_hand_names_the_ranks() -> None:
    with pytest.raises(Failed) as failure:
        run(2, desynchronised, timeout=30)
    assert "rank 0: backward pass 1 of batch 1; rank 1: backward pass 1 of batch 2" in str(failure.value)


# -- errors ------------------------------------------------------------------------------------------------------------


class Unused(Regression):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.left_out = nn.Linear(2, 2, dtype=dtype)


def with_unused() -> Any:
    used = fit(Unused, "ddp_find_unused_parameters_true")
    return used, error_of("ddp", max_steps=1), error_of(DDPStrategy(gradient_as_bucket_view=True))


def error_of(strategy: Any, **arguments: Any) -> str:
    try:
        fit(Unused, strategy, **arguments)
    except Exception as error:
        return str(error)
    return "none"


def test_unused_parameters_are_named_in_the_first_step_with_the_line_to_write() -> None:
    for used, first, later in run(2, with_unused):
        assert used.isfinite().all()
        for message in (first, later):
            assert "'left_out.weight', 'left_out.bias'" in message
            assert "Trainer(strategy='ddp_find_unused_parameters_true')" in message


class Mixing(Regression):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {"loss_sum": loss, "weight": 1} if self.trainer.global_rank else loss


def mixing() -> None:
    fit(Mixing)


def test_mean_on_one_process_and_sum_on_another_is_an_error() -> None:
    with pytest.raises(Failed) as failure:
        run(2, mixing, timeout=30)
    assert "a mean cannot be added to a sum" in str(failure.value)
