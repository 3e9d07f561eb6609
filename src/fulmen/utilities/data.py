"""Questions about loaders and batches: how long, how large, of which kind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy


def sized_len(dataloader: object) -> int | None:
    """``len(dataloader)``, or None if it has no length (a loader over an ``IterableDataset`` usually has none)."""
    try:
        return len(dataloader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def has_len(dataloader: object) -> TypeGuard[Sized]:
    """Whether ``dataloader`` knows its length in batches."""
    return sized_len(dataloader) is not None


def has_len_all_ranks(
    dataloader: object, strategy: Strategy, allow_zero_length_dataloader_with_multiple_devices: bool = False
) -> TypeGuard[Sized]:
    """Whether ``dataloader`` knows its length in batches, and that no rank is empty while others are not.

    A length of 0 on all ranks warns.

    Raises:
        RuntimeError: it is empty on this rank and not on others, and
            ``allow_zero_length_dataloader_with_multiple_devices`` is False.
    """
    length = sized_len(dataloader)
    if length is None:
        return False
    total = int(strategy.reduce(torch.tensor(length, device=strategy.root_device), reduce_op="sum"))
    name = type(dataloader).__name__
    if total == 0:
        rank_zero_warn(f"The {name} is empty on every rank: there is nothing to do with it.")
    elif length == 0 and not allow_zero_length_dataloader_with_multiple_devices:
        raise RuntimeError(
            f"The {name} is empty on this rank and has {total} batches on the others. Give every rank at least one"
            " batch, or set `allow_zero_length_dataloader_with_multiple_devices = True` on the module or datamodule."
        )
    return True


def has_iterable_dataset(dataloader: object) -> bool:
    """Whether the ``dataset`` of ``dataloader`` is an ``IterableDataset``, one that is read in its own order."""
    return isinstance(getattr(dataloader, "dataset", None), IterableDataset)


def suggested_max_num_workers(local_world_size: int) -> int:
    """How many loader workers each of ``local_world_size`` processes of this machine may well have, at least 1.

    Raises:
        ValueError: ``local_world_size`` is less than 1.
    """
    if local_world_size < 1:
        raise ValueError(f"suggested_max_num_workers({local_world_size}): a machine has at least 1 process.")
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))  # a container or a batch system may grant fewer than the machine has
    else:
        cpus = os.cpu_count() or 1
    return max(1, cpus // local_world_size - 1)


def extract_batch_size(batch: Any) -> int:
    """The size of the first dimension of the first tensor in ``batch``; 1 if all its tensors are single numbers.

    Looks depth-first into mappings, dataclasses and other iterables. Single numbers are passed over as long as another
    tensor may come, since what goes along with a batch (a temperature, a flag) says nothing of its size.

    Raises:
        MisconfigurationException: there is no tensor in ``batch``.
    """
    size: int | None = None
    for tensor in _tensors(batch):
        if tensor.ndim > 0:
            return tensor.size(0)
        size = 1
    if size is None:
        raise MisconfigurationException(
            f"The size of the batch cannot be read off: a {type(batch).__name__} in which there is no tensor."
            " Say it with `self.log(..., batch_size=...)`."
        )
    return size


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
        return
    if isinstance(batch, (str, bytes)):
        return
    if isinstance(batch, Mapping):
        elements: Iterable[Any] = batch.values()
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        elements = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    elif isinstance(batch, Iterable):
        elements = batch
    else:
        return
    for element in elements:
        yield from _tensors(element)
