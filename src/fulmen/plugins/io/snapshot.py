"""A copy of a checkpoint that stays as it is while training goes on."""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_UNCHANGEABLE = frozenset({str, int, float, bool, type(None), bytes, complex, torch.dtype, torch.device, torch.Size})


class Snapshots:
    """Takes snapshots, and uses the memory of those that are no longer needed for the next ones.

    Fresh memory costs more than the copy itself, since the system hands it out page by page at the first write.
    """

    def __init__(self) -> None:
        self._free: deque[dict[int, list[torch.UntypedStorage]]] = deque()  # of each snapshot given back, by size

    def take(self, checkpoint: dict[str, Any]) -> Snapshot:
        """Copy ``checkpoint`` to the memory of the host."""
        return Snapshot(checkpoint, self._free.popleft() if self._free else {})

    def give_back(self, snapshot: Snapshot) -> None:
        """Nobody reads ``snapshot`` any more: its memory serves a later one."""
        free: dict[int, list[torch.UntypedStorage]] = {}
        for storage in snapshot.storages:
            free.setdefault(storage.nbytes(), []).append(storage)
        self._free.append(free)

    def forget(self) -> None:
        """Let go of the memory."""
        self._free.clear()


class Snapshot:
    """One copy. A file that is written of it is, byte for byte, the file of the original.

    So what is one object in the original is one object in the copy, and tensors that share memory share it, too.

    Attributes:
        checkpoint: the copy.
        storages: the memory of its tensors.
    """

    def __init__(self, checkpoint: dict[str, Any], free: dict[int, list[torch.UntypedStorage]]) -> None:
        self.storages: list[torch.UntypedStorage] = []
        self._free = free
        self._copies: dict[int, Any] = {}  # of objects, by their id; the form that `copy.deepcopy` shares
        self._copied_storages: dict[int, torch.UntypedStorage] = {}
        self._pins = torch.accelerator.is_available()
        self.checkpoint: dict[str, Any] = self._copy(checkpoint)
        if self._pins:
            torch.accelerator.synchronize()  # copies to pinned memory do not wait for themselves
        del self._copies, self._copied_storages, self._free

    def _copy(self, value: Any) -> Any:
        kind = type(value)
        if kind in _UNCHANGEABLE:
            return value
        known = self._copies.get(id(value))
        if known is not None:
            return known
        if isinstance(value, Tensor):
            return self._copied_tensor(value)
        if kind is dict or kind is OrderedDict:
            fresh: Any = kind()
            self._copies[id(value)] = fresh
            for name, part in value.items():
                fresh[self._copy(name)] = self._copy(part)
            if kind is OrderedDict and value.__dict__:  # torch keeps the versions of modules there
                fresh.__dict__.update(self._copy(value.__dict__))
            return fresh
        if kind is list:
            fresh = []
            self._copies[id(value)] = fresh
            fresh.extend(map(self._copy, value))
            return fresh
        return copy.deepcopy(value, self._copies)

    def _copied_tensor(self, tensor: Tensor) -> Tensor:
        without_memory = tensor.layout is not torch.strided or tensor.is_meta or is_traceable_wrapper_subclass(tensor)
        if without_memory or tensor.is_quantized:
            return copy.deepcopy(tensor.detach() if tensor.grad_fn is not None else tensor, self._copies)
        storage = self._copied_storage(tensor.untyped_storage())
        fresh = torch.empty(0, dtype=tensor.dtype).set_(
            storage,
            tensor.storage_offset(),
            tensor.size(),
            tensor.stride(),  # type: ignore[arg-type]
        )
        fresh = fresh.conj() if tensor.is_conj() else fresh  # a mark, which changes no memory
        fresh = torch._neg_view(fresh) if tensor.is_neg() else fresh  # type: ignore[attr-defined]
        if isinstance(tensor, Parameter):
            fresh = Parameter(fresh, requires_grad=tensor.requires_grad)
        elif tensor.requires_grad:
            fresh.requires_grad_()
        if type(tensor) not in (Tensor, Parameter):
            fresh = fresh.as_subclass(type(tensor))
        self._copies[id(tensor)] = fresh
        for name, value in vars(tensor).items():
            setattr(fresh, name, self._copy(value))
        return fresh

    def _copied_storage(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        known = self._copied_storages.get(storage._cdata)
        if known is not None:
            return known
        size = storage.nbytes()
        pinned = self._pins and storage.device.type != "cpu"
        of_this_size = self._free.get(size)
        fresh = of_this_size.pop() if of_this_size else None
        if fresh is None or fresh.is_pinned() != pinned:
            fresh = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).untyped_storage()
        fresh.copy_(storage, non_blocking=pinned)
        self._copied_storages[storage._cdata] = fresh
        self.storages.append(fresh)
        return fresh
