"""The state of objects in memory: what is put back, on which objects, and what is left alone."""

from __future__ import annotations

import argparse
import functools
import random
import threading
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fulmen.tuner.snapshot import Snapshot, unchanged


class Slots:
    __slots__ = ("later", "value")

    def __init__(self) -> None:
        self.value = [1]


class Holder:
    def __init__(self, content: Any) -> None:
        self.content = content

    def method(self) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "change", "show"),
    [
        (lambda: [1, [2]], lambda v: (v[1].append(3), v.append(4)), list),
        (lambda: {"b": 1, "a": {"c": 2}}, lambda v: (v["a"].clear(), v.pop("b")), lambda v: list(v.items())),
        (lambda: OrderedDict(a=1, b=2), lambda v: v.move_to_end("a"), lambda v: list(v.items())),
        (lambda: defaultdict(list, a=[1]), lambda v: v["b"].append(v["a"].pop()), lambda v: list(v.items())),
        (lambda: {1, 2}, lambda v: v.add(3), set),
        (lambda: deque([1, 2], maxlen=2), lambda v: v.append(3), list),
        (lambda: bytearray(b"ab"), lambda v: v.extend(b"c"), bytes),
        (lambda: np.arange(3.0), lambda v: v.fill(7), lambda v: v.tolist()),
        (lambda: np.array([[1]], dtype=object), lambda v: v.__setitem__((0, 0), 2), lambda v: v.tolist()),
        (lambda: Holder(1), lambda v: (setattr(v, "more", 1), setattr(v, "content", 2)), lambda v: dict(vars(v))),
        (lambda: SimpleNamespace(a=[1]), lambda v: v.a.append(2), lambda v: list(v.a)),
        (lambda: argparse.Namespace(a=[1]), lambda v: v.a.append(2), lambda v: list(v.a)),
        (lambda: random.Random(1), lambda v: v.random(), lambda v: v.getstate()),
        (
            lambda: torch.Generator().manual_seed(1),
            lambda v: torch.rand(1, generator=v),
            lambda v: v.get_state().tolist(),
        ),
        (lambda: np.random.default_rng(1), lambda v: v.random(), lambda v: repr(v.bit_generator.state)),
        (lambda: np.random.RandomState(1), lambda v: v.rand(), lambda v: repr(v.get_state())),
        (lambda: torch.ones(2), lambda v: v.mul_(3), lambda v: v.tolist()),
        (lambda: Slots(), lambda v: v.value.append(2), lambda v: list(v.value)),
    ],
)
def test_object_is_put_back_in_place_wherever_it_is_held(make, change, show):
    value = make()
    before = show(value)
    holders = [value, Holder(value), (value,), functools.partial(print, value), Holder(value).method]
    for holder in holders:
        with unchanged([holder]):
            change(value)
            assert show(value) != before
        assert show(value) == before


def test_objects_stay_the_same_objects():
    inner: list[int] = [1]
    outer = Holder({"inner": inner})
    with unchanged([outer]):
        outer.content = {"inner": [5]}
    assert outer.content["inner"] is inner


def test_circle_is_walked_once():
    one = Holder(None)
    one.content = [one]
    with unchanged([one]):
        one.content.append(2)
    assert one.content == [one]


def test_module_moved_and_trained_is_put_back_into_the_same_memory():
    module = nn.Linear(2, 2)
    places = [parameter.data_ptr() for parameter in module.parameters()]
    values = [parameter.tolist() for parameter in module.parameters()]
    module.weight.grad = torch.ones(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    with unchanged([module, optimizer]):
        module.double()
        module.weight.requires_grad_(False)
        module(torch.ones(1, 2).double()).sum().backward()
        module.weight.data.add_(1)  # which the version of the tensor does not count
        optimizer.step()
        module.eval().add_module("more", nn.Linear(1, 1))
    assert [parameter.tolist() for parameter in module.parameters()] == values
    assert [parameter.data_ptr() for parameter in module.parameters()] == places
    assert module.weight.grad.tolist() == [[1, 1], [1, 1]]
    assert (module.weight.requires_grad, module.bias.grad, module.training) == (True, None, True)
    assert module.weight.dtype == torch.float32
    assert len(optimizer.state) == 0
    assert optimizer.param_groups[0]["params"][0] is module.weight


def test_lazy_module_is_lazy_again():
    module = nn.Sequential(nn.LazyLinear(3))
    with unchanged([module]):
        module(torch.ones(1, 5))
        assert module[0].weight.shape == (3, 5)
    assert isinstance(module[0], nn.LazyLinear)
    assert module(torch.ones(1, 7)).shape == (1, 3)


def test_generators_of_the_process_go_on_as_if_nothing_was_drawn():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    draw = lambda: (float(torch.rand(1)), random.random(), float(np.random.rand()))  # noqa: E731
    first = draw()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    with unchanged([]):
        draw()
    assert draw() == first


def test_what_is_alive_and_what_is_left_out_are_left_alone():
    class Worker(threading.Thread):
        done = 0

    worker, left, code = Worker(), Holder([1]), Holder(print)
    with unchanged([worker, left, code], leave_out=[left]):
        worker.done = 1
        left.content.append(2)
    assert worker.done == 1
    assert left.content == [1, 2]


def test_shallow_owner_keeps_its_attributes_and_nothing_below():
    owner = Holder([1])
    with unchanged([], shallow=[owner]):
        owner.content.append(2)
        owner.more = 3
    assert vars(owner) == {"content": [1, 2]}


def test_large_data_is_not_copied_but_small_data_and_weights_are():
    data = torch.utils.data.TensorDataset(torch.zeros(4, 1 << 18), torch.zeros(4))
    module = nn.Linear(1024, 512)
    values = module.weight.sum().item()
    before = Snapshot([data, module])
    for tensor in (*data.tensors, module.weight.data):
        tensor.add_(1)
    before.restore()
    assert data.tensors[0][0, 0] == 1
    assert data.tensors[1].tolist() == [0] * 4
    assert module.weight.sum().item() == values


def test_snapshot_can_be_restored_again_and_again():
    value = [torch.ones(1), [1]]
    before = Snapshot([value])
    for _ in range(2):
        value[0].add_(1)
        value[1].append(2)
        before.restore()
        assert value == [torch.ones(1), [1]]
