"""Let go of memory, keep what is in it, and recognise that there was not enough of it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from fulmen.utilities.apply_func import apply_to_collection


def recursive_detach(in_dict: Any, to_cpu: bool = False) -> Any:
    """A copy of ``in_dict``, any nested collection, whose tensors are detached from their graph.

    Args:
        in_dict: the collection; elements that are no tensors stay as they are.
        to_cpu: whether the tensors are also copied to the host.
    """

    def detach(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.cpu() if to_cpu else tensor

    return apply_to_collection(in_dict, Tensor, detach)


def is_oom_error(exception: BaseException) -> bool:
    """Whether ``exception`` says that some memory, of a device or of the host, was not enough."""
    return (
        isinstance(exception, MemoryError)
        or is_cuda_out_of_memory(exception)
        or is_cudnn_snafu(exception)
        or is_out_of_cpu_memory(exception)
    )


def is_cuda_out_of_memory(exception: BaseException) -> bool:
    """Whether the memory of a device (CUDA, ROCm, XPU, MPS) was not enough."""
    if isinstance(exception, torch.OutOfMemoryError):
        return True
    return _says(exception, "CUDA", "out of memory") or _says(exception, "MPS backend out of memory")


def is_cudnn_snafu(exception: BaseException) -> bool:
    """Whether one of the libraries of CUDA failed in the way in which it does when memory is short."""
    return _says(exception, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED") or _says(exception, "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_cpu_memory(exception: BaseException) -> bool:
    """Whether the allocator of the host had no memory left."""
    return _says(exception, "DefaultCPUAllocator: can't allocate memory") or _says(
        exception, "DefaultCPUAllocator: not enough memory"
    )


def _says(exception: BaseException, *texts: str) -> bool:
    return isinstance(exception, RuntimeError) and all(text in str(exception) for text in texts)


def garbage_collection_cuda() -> None:
    """Collect garbage and give the memory that no tensor uses back to the devices.

    May be called right after an out-of-memory error: a second such error in here is passed over.
    """
    gc.collect()
    with contextlib.suppress(torch.OutOfMemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Generator[None, None, None]:
    """What happens here leaves the buffers of ``module`` as they were, such as the statistics of batch norms."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
