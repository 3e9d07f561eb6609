from __future__ import annotations

import pytest
import torch

from fulmen.utilities.memory import garbage_collection_cuda, is_cuda_out_of_memory, is_oom_error, recursive_detach


def test_detaching_reaches_every_tensor_and_leaves_the_original():
    weight = torch.ones(2, requires_grad=True)
    outputs = {"loss": weight.sum(), "parts": [(weight * 2, "text")], "n": 3}
    detached = recursive_detach(outputs, to_cpu=True)
    assert not detached["loss"].requires_grad
    assert not detached["parts"][0][0].requires_grad
    assert detached["parts"][0][1] == "text"
    assert detached["n"] == 3
    assert outputs["loss"].requires_grad


@pytest.mark.parametrize(
    ("exception", "out_of_memory"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (torch.OutOfMemoryError("in words of its own"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear ..."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."), True),
        (MemoryError(), True),
        (RuntimeError("out of patience"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(exception, out_of_memory):
    assert is_oom_error(exception) is out_of_memory


def test_the_allocator_of_the_host_really_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_oom_error(caught.value)
    assert not is_cuda_out_of_memory(caught.value)


def test_collecting_garbage_works_on_any_machine():
    garbage_collection_cuda()
