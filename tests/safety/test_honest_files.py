"""What `torch.save` writes of tensors and simple values is read as `torch.load` reads it."""

from __future__ import annotations

import collections
import enum
import functools
import io
import ipaddress
import logging
import math
import pickle
import random
import re
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fulmen.utilities import cloud_io, pickle_check


def saved(value: Any, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file, **options)
    file.seek(0)
    return file


def with_attribute(value: torch.Tensor) -> torch.Tensor:
    value.is_my_own = True  # type: ignore[attr-defined]
    return value


_WHOLE = torch.arange(24.0)
VALUES: dict[str, Any] = {
    **{
        str(dtype): torch.zeros(3, dtype=dtype)
        for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64,
            torch.uint16, torch.uint64, torch.float8_e4m3fn,
        )
    },
    "view": _WHOLE.reshape(4, 6)[1:3, ::2],
    "transposed": _WHOLE.reshape(4, 6).T,
    "expanded": torch.ones(1, 1).expand(1000, 1000),
    "one number": torch.tensor(3.0),
    "nothing": torch.zeros(0, 5),
    "nothing of a view": _WHOLE[24:],
    "two of one memory": [_WHOLE, _WHOLE[3:], _WHOLE],
    "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
    "needs gradients": torch.ones(2, requires_grad=True),
    "parameter": nn.Parameter(torch.ones(2)),
    "parameter with an attribute": with_attribute(nn.Parameter(torch.ones(2))),
    "tensor with an attribute": with_attribute(torch.ones(2)),
    "meta": torch.ones(2, device="meta"),
    "sparse": torch.eye(3).to_sparse(),
    "weights": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(),
    "numbers": [0, -1, 255, 2**31, -(2**63), 2**1000, 0.5, float("inf"), True, None, 1j],
    "texts": ["", "a" * 100_000, "\ud800", "日本語", b"\x00\xff", b"abc", bytearray(b"x"), bytearray()],
    "types": [torch.float32, torch.uint16, torch.device("cuda", 3), torch.device("cpu"), torch.Size([1, 2])],
    "layout": [torch.strided, torch.sparse_coo],
    "containers": [(), (1,), [], {}, {1, "a"}, set(), {"a": {1: (2, [3])}}, {(1, 2): 3, None: 4, 0.5: 5}],
    "ordered": [collections.OrderedDict(a=1), collections.OrderedDict(), collections.Counter("aab")],
    "one list twice": [[1, 2]] * 2,
    "deep": eval("[" * 90 + "1" + "]" * 90),
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        alike = type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.layout == b.layout
        attributes = getattr(a, "is_my_own", None) == getattr(b, "is_my_own", None)
        bits = a.is_meta or torch.equal(a.to_dense().to(torch.complex128), b.to_dense().to(torch.complex128))
        return alike and attributes and bits and a.requires_grad == b.requires_grad
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


#: types of numbers that torch itself cannot read from its old format
_ONLY_IN_ARCHIVES = ("torch.uint16", "torch.uint64", "torch.float8_e4m3fn")


@pytest.mark.parametrize(
    ("name", "is_stream"),
    [(name, False) for name in VALUES] + [(name, True) for name in VALUES if name not in _ONLY_IN_ARCHIVES],
)
def test_plain_data_is_read_as_it_was_written(name, is_stream) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, while it writes old formats and sparse tensors
        file = saved({"value": VALUES[name]}, _use_new_zipfile_serialization=not is_stream)
        assert same(cloud_io.load(file)["value"], VALUES[name])


def test_quantized_tensor_is_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will not have them for ever
        value = torch.quantize_per_tensor(torch.ones(3), 0.5, 1, torch.quint8)
        again = cloud_io.load(saved(value))
        assert torch.equal(again.dequantize(), torch.ones(3))


def test_two_names_of_one_tensor_stay_one_tensor() -> None:
    again = cloud_io.load(saved([_WHOLE, _WHOLE[2:]]))

    again[0][2] = -1
    assert again[1][0] == -1


def test_file_that_is_open_in_the_middle_is_read_from_there() -> None:
    file = io.BytesIO(b"header" + saved({"a": 1}).getvalue())
    file.seek(6)

    assert cloud_io.load(file) == {"a": 1}


class Own:
    """A class of a user's."""

    def __init__(self) -> None:
        self.x = torch.ones(2)


def test_class_that_the_user_allows_is_read_and_no_other() -> None:
    with torch.serialization.safe_globals([Own]):
        assert torch.equal(cloud_io.load(saved({"own": Own()}))["own"].x, torch.ones(2))
    with pytest.raises(Exception, match=r"holds more than tensors .*Own.*checkpoint convert") as refused:
        cloud_io.load(saved({"own": Own()}))
    assert "add_safe_globals" not in str(refused.value)


def test_advice_to_allow_is_given_for_what_is_harmless_alone() -> None:
    with pytest.raises(Exception, match=r"add_safe_globals\(\[range, pathlib\.PosixPath\]\)"):
        cloud_io.load(saved([Path("a"), range(3)]))
    with pytest.raises(Exception, match=r"pathlib\.PosixPath") as refused:
        cloud_io.load(saved([Path("a"), Own()]))
    assert "add_safe_globals" not in str(refused.value)


class Size(enum.Enum):
    SMALL = "small"


@pytest.mark.parametrize(
    "value",
    [
        Own(),
        Size.SMALL,
        functools.partial(torch.nn.functional.relu, inplace=True),
        torch.nn.functional.relu,
        torch.nn.Linear(1, 1),
        torch.optim.SGD,
        collections.defaultdict(list),
        re.compile("a"),
        random.Random(1),
        uuid.UUID(int=1),
        ipaddress.ip_address("127.0.0.1"),
        logging.getLogger("a"),
        ValueError("a"),
        math.sqrt,
        np.random.default_rng(1),
        np.float32(1),
        type(None),
        frozenset([1]),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_objects_that_only_hold_values_are_not_called_code(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="holds more than tensors and simple values"):
        cloud_io.load(saved({"value": value}))


def test_numpy_is_read_once_it_is_allowed() -> None:
    array = np.arange(3, dtype=np.int32)
    names = [np.ndarray, np.dtype, type(array.dtype), np._core.multiarray._reconstruct, np._core.multiarray.scalar]
    with torch.serialization.safe_globals(names):
        again = cloud_io.load(saved([array, np.int32(3)]))

    assert again[0].tolist() == [0, 1, 2]
    assert again[1] == 3


def test_deeper_than_the_limit_is_refused_and_just_at_it_is_read() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert cloud_io.load(saved(nested(pickle_check.MAX_DEPTH))) == nested(pickle_check.MAX_DEPTH)
    with pytest.raises(Exception, match="more than 200 deep"):
        cloud_io.load(saved(nested(pickle_check.MAX_DEPTH + 1)))


def test_scan_names_what_torch_names() -> None:
    names = {"os.system", "torch.float32", "collections.OrderedDict", "torch.FloatStorage", "my.Class"}

    assert pickle_check.foreign_names(names) == ["my.Class", "os.system"]
