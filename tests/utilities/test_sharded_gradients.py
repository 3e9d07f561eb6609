"""Gradients of plain and sharded parameters (``DTensor``) together, here on meshes of one process."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from fulmen.plugins import MixedPrecision
from fulmen.utilities.grads import clip_grad_norm, clip_grad_value, grad_norm


@pytest.fixture(autouse=True)
def _one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layers(layout: str) -> tuple[nn.Module, nn.Module]:
    """A module with gradients whose parameters are laid out in one way or several, and the same with plain ones."""
    torch.manual_seed(1)
    plain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    spread = copy.deepcopy(plain)
    for one, other in zip(plain.parameters(), spread.parameters(), strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    line, square = init_device_mesh("cpu", (1,)), init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "tensor"))
    layouts = {
        "plain": [None] * 4,
        "one mesh": [(line, [Shard(0)])] * 4,
        "two ways": [(line, [Replicate()]), (line, [Shard(0)])] * 2,
        "two meshes": [(line, [Shard(0)]), (square, [Shard(0), Shard(0)])] * 2,
        "all": [None, (line, [Shard(0)]), (square, [Replicate(), Shard(0)]), None],
    }[layout]
    for layer, place in zip(spread, layouts, strict=True):
        if place is not None:
            for name, parameter in list(layer.named_parameters()):
                new = nn.Parameter(distribute_tensor(parameter.detach(), *place))
                new.grad = distribute_tensor(parameter.grad, *place)
                setattr(layer, name, new)
    return spread, plain


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


LAYOUTS = ["plain", "one mesh", "two ways", "two meshes", "all"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
@pytest.mark.parametrize("limit", [0.5, 1000.0])
def test_clipping_by_norm_is_that_of_all_parameters_as_plain_ones(layout, norm_type, limit):
    spread, plain = layers(layout)
    total = clip_grad_norm(spread.parameters(), limit, norm_type)
    expected = nn.utils.clip_grad_norm_(plain.parameters(), limit, norm_type)

    assert type(total) is Tensor
    torch.testing.assert_close(total, expected)
    for one, other in zip(spread.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(whole(one.grad), other.grad)
        if layout == "plain":
            assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clipping_by_value_reaches_all_parameters(layout):
    spread, plain = layers(layout)
    clip_grad_value(spread.parameters(), 0.3)
    nn.utils.clip_grad_value_(plain.parameters(), 0.3)
    for one, other in zip(spread.parameters(), plain.parameters(), strict=True):
        assert torch.equal(whole(one.grad), other.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_are_those_of_plain_parameters(layout):
    spread, plain = layers(layout)
    norms, expected = grad_norm(spread, 2), grad_norm(plain, 2)
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert type(norm) is Tensor
        torch.testing.assert_close(norm, expected[name])


@pytest.mark.parametrize("layout", ["one mesh", "all"])
def test_norm_that_is_not_finite_is_an_error_where_that_is_asked_for(layout):
    spread, _ = layers(layout)
    list(spread.parameters())[-1].grad.mul_(float("nan"))
    with pytest.raises(RuntimeError, match=r"norm of .*gradients"):
        clip_grad_norm(spread.parameters(), 1.0, error_if_nonfinite=True)


def test_nothing_to_clip_is_no_error():
    assert clip_grad_norm([], 1.0) == 0
    assert clip_grad_norm(nn.Linear(1, 1).parameters(), 1.0) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [None, 0, 7])
def test_scaler_unscales_and_looks_at_all_parameters(layout, bad):
    spread, _ = layers(layout)
    precision = MixedPrecision("16-mixed", "cpu")
    optimizer = torch.optim.SGD(spread.parameters(), lr=1.0)
    precision.scaler.scale(torch.zeros(()))
    if bad is not None:
        whole(list(spread.parameters())[bad].grad).fill_(float("inf"))
    before = [whole(parameter.detach()).clone() for parameter in spread.parameters()]
    gradients = [whole(parameter.grad).clone() for parameter in spread.parameters()]

    precision.scaler.step(optimizer)

    for parameter, old, gradient in zip(spread.parameters(), before, gradients):
        expected = old - gradient / 65536 if bad is None else old
        torch.testing.assert_close(whole(parameter.detach()), expected)
