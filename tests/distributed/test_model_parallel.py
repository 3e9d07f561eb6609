"""Training on a mesh of processes, tensor parallel and data parallel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.distributed.test_fsdp import Norms, assert_close, loader, trainer_of, whole
from tests.distributed.test_sharded_checkpoints import State, equal, state_of
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from fulmen import LightningModule, Trainer
from fulmen.callbacks import WeightAveraging
from fulmen.strategies import ModelParallelStrategy
from fulmen.utilities.exceptions import MisconfigurationException


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Mesh(LightningModule):
    def __init__(self, shards: bool = True, meta: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.enter = self.leave = self.blocks = None
        self.drop = nn.Dropout(0.0)

    def configure_model(self) -> None:
        if self.blocks is not None:
            return
        with torch.device("meta" if self.hparams["meta"] else "cpu"):
            self.enter, self.leave = nn.Linear(3, 6), nn.Linear(6, 1)
            self.blocks = nn.ModuleList([Mlp() for _ in range(2)])
        if self.device_mesh is None:  # one process
            return
        for block in self.blocks:
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            parallelize_module(block, self.device_mesh["tensor_parallel"], plan)
            if self.hparams["shards"]:
                fully_shard(block, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        x = self.enter(inputs)  # type: ignore[misc]
        for block in self.blocks:  # type: ignore[union-attr]
            x = self.drop(block(x))
        return nn.functional.mse_loss(self.leave(x), targets)  # type: ignore[misc]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def trained(world: int, data: int, samples: int, batch: int, arguments: dict[str, Any], shards: bool) -> Any:
    torch.manual_seed(1)
    module, norms = Mesh(shards), Norms()
    strategy = "auto" if world == 1 else ModelParallelStrategy(data, world // data)
    callbacks = [norms, WeightAveraging()] if arguments.get("averages") else [norms]
    arguments = {name: value for name, value in arguments.items() if name != "averages"}
    trainer = trainer_of(strategy, world, callbacks=callbacks, precision="64-true", **arguments)
    trainer.fit(module, loader(samples, batch))
    return {"weights": {name: whole(value) for name, value in module.state_dict().items()}, "norms": norms.norms}


@pytest.mark.parametrize(
    ("world", "data", "shards", "arguments"),
    [
        (2, 1, False, {"gradient_clip_val": 0.1}),
        (2, 1, False, {"averages": True}),
        (4, 2, True, {"gradient_clip_val": 0.1, "accumulate_grad_batches": 3}),
        (4, 2, False, {}),
    ],
)
def test_a_mesh_trains_as_one_process_with_all_batches(
    world: int, data: int, shards: bool, arguments: dict[str, Any]
) -> None:
    alone = trained(1, 1, 26, 4 * data, arguments, shards)
    for each in run(world, trained, world, data, 26, 4, arguments, shards):
        assert_close(alone, each, 1e-12)


def saved(path: str, meta: bool) -> Any:
    torch.manual_seed(1)
    module = Mesh(meta=meta)
    trainer = trainer_of(ModelParallelStrategy(2, 2), 4, max_steps=3, max_epochs=-1)
    trainer.fit(module, loader(24, 4))
    trainer.save_checkpoint(path)
    return state_of(trainer, module)


def gone_on(world: int, data: int, path: str, meta: bool) -> Any:
    torch.manual_seed(2)
    module, state = Mesh(meta=meta), State()
    strategy: Any = "auto" if world == 1 else ModelParallelStrategy(data, world // data)
    trainer = trainer_of(strategy, world, max_steps=4, max_epochs=-1, callbacks=[state])
    trainer.fit(module, loader(24, 4), ckpt_path=path)
    return state.found


def test_a_checkpoint_of_a_mesh_is_gone_on_from_by_another_mesh_and_by_one_process(tmp_path: Any) -> None:
    path = str(tmp_path / "run.ckpt")
    before = run(4, saved, path, False)[0]
    assert equal(gone_on(1, 1, path, False), before)
    for each in run(2, gone_on, 2, 1, path, True):
        assert equal(each, before)


def test_a_module_made_on_the_meta_device_begins_with_the_weights_of_one_process() -> None:
    plain, on_meta = run(4, both_beginnings)[0]
    assert all(torch.equal(value, on_meta[name]) for name, value in plain.items())


def both_beginnings() -> Any:
    found = []
    for meta in (False, True):
        torch.manual_seed(1)
        module = Mesh(meta=meta)
        trainer_of(ModelParallelStrategy(2, 2), 4, limit_train_batches=0).fit(module, loader(24, 4))
        found.append({name: whole(value) for name, value in module.state_dict().items()})
    return found


class Plain(LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)


def refused() -> list[str]:
    told = []
    for sizes in ((2, 2), ("auto", 3)):
        try:
            Trainer(accelerator="cpu", devices=2, strategy=ModelParallelStrategy(*sizes), logger=False).fit(Mesh(), [1])
        except MisconfigurationException as error:
            told.append(str(error))
    try:
        Trainer(accelerator="cpu", devices=2, strategy="model_parallel", logger=False).fit(Plain(), [1])
    except TypeError as error:
        told.append(str(error))
    return told


def test_sizes_that_do_not_fit_and_a_module_that_is_not_spread_are_refused() -> None:
    first, second, third = run(2, refused)[0]
    assert "the product of the two sizes must be 2" in first
    assert "tensor_parallel_size=3" in second
    assert "Plain has no `configure_model`" in third
    with pytest.raises(MisconfigurationException, match="data_parallel_size=0"):
        ModelParallelStrategy(0)
