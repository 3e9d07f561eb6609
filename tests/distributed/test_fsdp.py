"""Training with parameters that are spread over the processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback, LightningModule, Trainer
from fulmen.strategies import FSDPStrategy
from fulmen.strategies.sharding import parts_of
from fulmen.utilities.exceptions import MisconfigurationException


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.layer(self.norm(x)))


class Net(LightningModule):
    def __init__(self, width: int = 5, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.enter = nn.Linear(3, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(3)])
        self.leave = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self(inputs), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


class Norms(Callback):
    """Notes the norm of all gradients before each step, after clipping."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        whole_ones = [whole(p.grad) for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(nn.utils.get_total_norm(whole_ones)))


def whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu().clone()


def loader(samples: int, batch_size: int) -> Any:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(samples, 3, generator=generator), torch.randn(samples, 1, generator=generator))
    return DataLoader(data, batch_size=batch_size)


def trainer_of(strategy: Any, world: int, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=world,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "enable_checkpointing": False, **arguments},
    )


def trained(
    strategy: Any, world: int, samples: int, batch_size: int, arguments: dict[str, Any], kind: str = "Net"
) -> dict[str, Any]:
    torch.manual_seed(1)
    module, norms = globals()[kind](), Norms()
    trainer = trainer_of(strategy, world, callbacks=[norms], **arguments)
    trainer.fit(module, loader(samples, batch_size))
    return {
        "weights": {name: whole(value) for name, value in module.state_dict().items()},
        "norms": norms.norms,
        "class": type(module).__name__,
    }


def assert_close(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    for name, value in one["weights"].items():
        torch.testing.assert_close(value, other["weights"][name], rtol=0, atol=tolerance)
    torch.testing.assert_close(one["norms"], other["norms"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("precision", "tolerance", "arguments"),
    [
        ("64-true", 1e-12, {}),
        ("32-true", 1e-6, {"gradient_clip_val": 0.1}),
        ("64-true", 1e-12, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
        ("64-true", 1e-12, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    ],
)
def test_fsdp_of_two_processes_trains_as_one_process_with_their_batches(
    precision: str, tolerance: float, arguments: dict[str, Any]
) -> None:
    arguments = {**arguments, "precision": precision}
    alone = trained("auto", 1, 32, 8, arguments)
    for each in run(2, trained, "fsdp", 2, 32, 4, arguments):
        assert_close(alone, each, tolerance)
        assert each["class"] == "Net"


class Sums(Net):
    """Sums of losses with their weights, and none for a batch here and there."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        weights = (targets[:, 0] > 0).to(inputs.dtype)
        return {"loss_sum": (weights * (self(inputs) - targets)[:, 0] ** 2).sum(), "weight": weights.sum()}


class Skips(Net):
    """Skips batches by their samples: after the module has run, and before it."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        if (targets < -1.9).any():
            return None
        output = self(inputs / (targets < 1.9).all())  # not finite where it is skipped
        loss = nn.functional.mse_loss(output, targets)
        return loss if loss.isfinite() else None


class Skipping(Net):
    """What :class:`Skips` trains on, of a whole group: the mean over the batches that were not skipped."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        kept = [part for part in zip(inputs.split(4), targets.split(4)) if (part[1].abs() < 1.9).all()]
        if not kept:
            return None
        inputs, targets = (torch.cat(parts) for parts in zip(*kept))
        return nn.functional.mse_loss(self(inputs), targets)


class Adversaries(Net):
    """Two optimizers by hand, which step in turn within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        for optimizer in self.optimizers():
            loss = nn.functional.mse_loss(self(inputs), targets)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()

    def configure_optimizers(self) -> Any:
        first = [*self.enter.parameters(), *self.leave.parameters()]
        return torch.optim.SGD(first, lr=0.1), torch.optim.Adam(self.blocks.parameters(), lr=0.01)


@pytest.mark.parametrize(
    ("kind", "of_one", "samples", "arguments"),
    [
        ("Net", "Net", 26, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
        ("Sums", "Sums", 26, {"accumulate_grad_batches": 2}),
        ("Skips", "Skipping", 40, {}),
        ("Adversaries", "Adversaries", 26, {}),
    ],
)
def test_fsdp_of_uneven_data_trains_as_one_process_with_all_of_it(
    kind: str, of_one: str, samples: int, arguments: dict[str, Any]
) -> None:
    arguments = {**arguments, "precision": "64-true"}
    alone = trained("auto", 1, samples, 8, arguments, of_one)
    for each in run(2, trained, "fsdp", 2, samples, 4, arguments, kind):
        assert_close(alone, each, 1e-12)


class OnMeta(Net):
    """Made in ``configure_model``, without memory where there are several processes."""

    def __init__(self) -> None:
        LightningModule.__init__(self)
        self.save_hyperparameters({"lr": 0.05})
        self.enter = None  # type: ignore[assignment]

    def configure_model(self) -> None:
        if self.enter is None:
            with torch.device("meta" if self.trainer.world_size > 1 else "cpu"):
                self.enter = nn.Linear(3, 5)
                self.blocks = nn.ModuleList([Block(5) for _ in range(3)])
                self.leave = nn.Linear(5, 1)


def variants(world: int, names: list[str]) -> list[dict[str, Any]]:
    return [trained_by(world, name) for name in names]


def trained_by(world: int, name: str) -> dict[str, Any]:
    variants: dict[str, Any] = {
        "meta": {},
        "grad_op": {"sharding_strategy": "SHARD_GRAD_OP"},
        "offload": {"cpu_offload": True},
        "hybrid": {"sharding_strategy": "HYBRID_SHARD", "device_mesh": (world // 2, 2)},
        "classes": {"auto_wrap_policy": {nn.Linear}, "activation_checkpointing": Block},
        "function": {"auto_wrap_policy": lambda module: isinstance(module, Block)},
    }
    kind = "OnMeta" if name == "meta" else "Net"
    return trained(FSDPStrategy(**variants[name]), world, 24, 4, {"max_epochs": 1, "precision": "64-true"}, kind)


@pytest.mark.parametrize(
    ("world", "names"),
    [(2, ["meta", "grad_op", "offload", "classes", "function"]), pytest.param(4, ["hybrid"], marks=pytest.mark.slow)],
)
def test_fsdp_trains_the_same_however_it_is_cut_and_kept(world: int, names: list[str]) -> None:
    arguments = {"max_epochs": 1, "precision": "64-true"}
    alone, configured = (trained("auto", 1, 24, 4 * world, arguments, kind) for kind in ("Net", "OnMeta"))
    for name, each in zip(names, run(world, variants, world, names)[0], strict=True):
        try:
            assert_close(configured if name == "meta" else alone, each, 1e-12)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


class Evaluated(Net):
    """Runs itself in hooks, too, and is evaluated."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        self.log("val_loss", nn.functional.mse_loss(self.leave(self.enter(inputs)), targets))

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch[0])

    def on_train_epoch_end(self) -> None:
        with torch.no_grad():
            self.log("zero", self(torch.zeros(1, 3, dtype=self.enter.weight.dtype)).mean())


def evaluated(world: int) -> Any:
    torch.manual_seed(1)
    module, data = Evaluated(), loader(14, 4)
    strategy = "auto" if world == 1 else "fsdp"
    trainer = trainer_of(strategy, world, precision="64-true", max_epochs=1, num_sanity_val_steps=0)
    before = trainer.predict(module, data)
    trainer.fit(module, loader(24, 24 // world), data)
    fitted = dict(trainer.callback_metrics)
    del fitted["loss"]  # of the last step of this process
    return (
        torch.cat(before),  # type: ignore[arg-type]
        fitted,
        trainer.test(module, data, verbose=False),
        torch.cat(trainer.predict(module, data)),  # type: ignore[arg-type]
    )


def test_fsdp_evaluates_and_predicts_as_one_process_before_and_after_training() -> None:
    alone = evaluated(1)
    for each in run(2, evaluated, 2):
        torch.testing.assert_close(each, alone, rtol=0, atol=1e-12)


def in_16_bits(world: int) -> Any:
    results = {}
    for precision in ("bf16-mixed", "bf16-true"):
        strategy = "auto" if world == 1 else "fsdp"
        results[precision] = trained(strategy, world, 32, 32 // world, {"precision": precision, "max_epochs": 8})
    return results


def test_fsdp_in_16_bits_stays_close_to_one_process() -> None:
    alone = in_16_bits(1)
    for each in run(2, in_16_bits, 2):
        for precision, found in each.items():
            assert_close(alone[precision], found, 0.05)
            kinds = {value.dtype for value in found["weights"].values()}
            assert kinds == {torch.bfloat16 if precision == "bf16-true" else torch.float32}


def test_arguments_of_fsdp_that_cannot_be_are_refused() -> None:
    for arguments, told in (
        ({"sharding_strategy": "NO_SHARD"}, "strategy='ddp'"),
        ({"sharding_strategy": "SOME"}, "is not known"),
        ({"state_dict_type": "half"}, "state_dict_type='half'"),
        ({"auto_wrap_policy": Block}, "Write a set of them"),
        ({"auto_wrap_policy": {"Block"}}, "no class of modules"),
        ({"device_mesh": (2, 2)}, "HYBRID_SHARD"),
        ({"activation_checkpointing": Block, "activation_checkpointing_policy": {Block}}, "Pass one of them"),
        ({"cpu_offload": "yes"}, "cpu_offload='yes'"),
        ({"mixed_precision": "bf16"}, "MixedPrecisionPolicy"),
    ):
        with pytest.raises(MisconfigurationException, match=told):
            FSDPStrategy(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="shard_size"):
        FSDPStrategy(shard_size=3)
    with pytest.warns(UserWarning, match="use_orig_params"):
        FSDPStrategy(use_orig_params=True)


def test_a_policy_that_chooses_nothing_names_the_classes_that_there_are() -> None:
    with pytest.raises(MisconfigurationException, match="of the classes ModuleList, Block, LayerNorm, Linear"):
        parts_of(nn.ModuleDict({"blocks": nn.ModuleList([Block(2)])}), {nn.Conv2d})


def alone_with_fsdp() -> dict[str, Any]:
    return trained("fsdp", 1, 24, 8, {"precision": "64-true"})


def test_fsdp_with_one_process_trains_as_one_process() -> None:
    [found] = run(1, alone_with_fsdp)
    assert_close(trained("auto", 1, 24, 8, {"precision": "64-true"}), found, 1e-12)


def test_the_parts_are_the_outermost_blocks_that_a_model_repeats() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([block(), block(), nn.Tanh()])
            self.head = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))

    encoder = Encoder()
    assert parts_of(encoder, None) == [*encoder.blocks][:2]
    encoder.blocks[1][0].weight = encoder.head[0].weight  # type: ignore[index, assignment]
    assert parts_of(encoder, None) == [encoder.blocks[0]]
