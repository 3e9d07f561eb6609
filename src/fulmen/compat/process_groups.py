"""Functions of Lightning's ``utilities.distributed`` that programs call, and the house does in its strategies."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fulmen.utilities.distributed import distributed_is_initialized


def backend_of(device: torch.device) -> str:
    """The backend of process groups for ``device``: ``"nccl"`` for CUDA, ``"gloo"`` for all others."""
    return "nccl" if device.type == "cuda" else "gloo"


def join_group(
    cluster_environment: Any,
    torch_distributed_backend: str,
    global_rank: int | None = None,
    world_size: int | None = None,
    **kwargs: Any,
) -> None:
    """Join the group of all processes, unless this one has done so.

    Args:
        cluster_environment: says where the first process is; also the rank and the number, where they are None.
        kwargs: arguments of ``torch.distributed.init_process_group``.

    Raises:
        RuntimeError: this torch has no distributed package.
    """
    if not dist.is_available():
        raise RuntimeError("this torch was built without `torch.distributed`. Install one that has it.")
    if distributed_is_initialized():
        return
    where = cluster_environment
    dist.init_process_group(
        torch_distributed_backend,
        rank=where.global_rank() if global_rank is None else global_rank,
        world_size=where.world_size() if world_size is None else world_size,
        init_method=f"tcp://{where.main_address}:{where.main_port}",
        **kwargs,
    )


def reduced(result: Tensor, group: Any = None, reduce_op: str | Any = None) -> Tensor:
    """``result`` summed over all processes, or averaged with ``reduce_op="avg"`` or ``"mean"``; as it is with one."""
    if not distributed_is_initialized():
        return result
    averages = isinstance(reduce_op, str) and reduce_op.lower() in ("avg", "mean")
    operation = dist.ReduceOp.SUM if reduce_op is None or isinstance(reduce_op, str) else reduce_op
    total = result.clone()
    dist.all_reduce(total, op=operation, group=group)
    return total / dist.get_world_size(group) if averages else total
