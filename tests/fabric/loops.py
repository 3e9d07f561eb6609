"""Loops over a small regression, by Fabric and by hand, for tests and for the processes that they start."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Fabric

WORLD = 2


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.layer(self.norm(x)))


class Net(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.enter = nn.Linear(3, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.drop = nn.Dropout(0.1)
        self.leave = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.drop(x))


def samples(number: int = 24) -> TensorDataset:
    inputs = torch.arange(3.0 * number).sin().reshape(number, 3)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True).cos())


def loader(**arguments: Any) -> DataLoader[Any]:
    return DataLoader(samples(), batch_size=2, shuffle=True, **arguments)


def made(kind: type[torch.optim.Optimizer] = torch.optim.AdamW, **arguments: Any) -> tuple[Net, Any]:
    torch.manual_seed(1)
    net = Net()
    return net, kind(net.parameters(), **{"lr": 0.02, **arguments})


def whole(module: nn.Module) -> list[torch.Tensor]:
    found = (parameter.detach() for _, parameter in sorted(module.named_parameters()))
    return [one.full_tensor() if isinstance(one, DTensor) else one.clone() for one in found]


def by_fabric(fabric: Fabric, epochs: int = 2, accumulate: int = 1) -> dict[str, Any]:
    """The losses, and the weights at the end, of a loop by Fabric."""
    net, optimizer = made()
    model, optimizer = fabric.setup(net, optimizer)
    batches = fabric.setup_dataloaders(loader())
    losses = []
    torch.manual_seed(5 + fabric.global_rank)
    for _ in range(epochs):
        for number, (inputs, targets) in enumerate(batches):
            is_step = (number + 1) % accumulate == 0
            with fabric.no_backward_sync(model, enabled=not is_step):
                loss = nn.functional.mse_loss(model(inputs), targets) / accumulate
                fabric.backward(loss)
            losses.append(loss.item())
            if is_step:
                fabric.clip_gradients(model, optimizer, max_norm=0.5)
                optimizer.step()
                optimizer.zero_grad()
    return {"losses": losses, "weights": whole(net)}


def _of_rank(batches: Any, rank: int, world: int) -> Any:
    """Every ``world``-th batch of the order that the first process draws."""
    if world == 1:
        return batches
    drawn: list[Any] = [list(batches) if rank == 0 else None]
    dist.broadcast_object_list(drawn, 0)
    return drawn[0][rank::world]


def by_hand(
    kind: str = "", precision: str = "32-true", epochs: int = 2, accumulate: int = 1, rank: int = 0, world: int = 1
) -> dict[str, Any]:
    """The same in plain torch: on one process, or by ``DistributedDataParallel`` or ``fully_shard`` on several, which
    each take every ``world``-th batch."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    net, optimizer = made()
    model: Any = net
    if kind == "ddp":
        model = DistributedDataParallel(net)
    if kind == "fsdp":
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
        for part in (*net.blocks, net):
            fully_shard(part, mp_policy=policy)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "16-mixed")
    batches = loader()
    losses = []
    torch.manual_seed(5 + rank)
    for _ in range(epochs):
        for number, (inputs, targets) in enumerate(_of_rank(batches, rank, world)):
            is_step = (number + 1) % accumulate == 0
            if kind == "ddp":
                model.require_backward_grad_sync = is_step
            if kind == "fsdp":
                model.set_requires_gradient_sync(is_step)
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False):
                output = model(inputs)
            loss = nn.functional.mse_loss(output.float(), targets) / accumulate
            scaler.scale(loss).backward()
            losses.append(loss.item())
            if is_step:
                scaler.unscale_(optimizer) if scaler.is_enabled() else None
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    return {"losses": losses, "weights": whole(net)}
