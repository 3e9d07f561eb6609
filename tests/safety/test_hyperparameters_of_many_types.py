"""Hyperparameters of many types go through a real run's checkpoint and come back as they were."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import importlib.util
import pathlib
import re
import types
import uuid
import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from fulmen import LightningModule, Trainer
from fulmen.utilities.parsing import AttributeDict


class Color(enum.Enum):
    RED = "red"
    GREEN = (0, 1, 0)


class Size(enum.IntEnum):
    SMALL = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Flags(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: float
    color: Color


@dataclass
class Inner:
    lr: float
    color: Color = Color.RED
    root: pathlib.Path = pathlib.Path("here")


@dataclass(frozen=True)
class Frozen:
    inner: Inner
    betas: tuple[float, ...] = (0.9, 0.99)
    many: list[Inner] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    size: int = 3
    when: datetime.date | None = None


class Net(LightningModule):
    """Takes a value of any type, or one of those that its annotations name."""

    def __init__(
        self,
        value: Any = None,
        color: Color | None = None,
        size: Size = Size.SMALL,
        mode: Mode = Mode.FAST,
        flags: Flags | None = None,
        point: Point | None = None,
        frozen: Frozen | None = None,
        slotted: Slotted | None = None,
        by_color: dict[Color, Inner] | None = None,
        colors: set[Color] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


UTC_MINUS_2 = datetime.timezone(datetime.timedelta(hours=-2))
VALUES: dict[str, Any] = {
    "none": None, "bool": True, "int": 3, "big int": 10**700, "float": 0.1, "inf": float("-inf"), "nan": float("nan"),
    "complex": 1 + 2j, "text": "日本", "bytes": b"\x00\xff", "empty bytes": b"", "bytearray": bytearray(b"x"),
    "path": pathlib.Path("/data/x"), "pure path": pathlib.PurePosixPath("a"),
    "windows path": pathlib.PureWindowsPath("c:\\a"),
    "dtype": torch.bfloat16, "device": torch.device("cuda:1"), "torch size": torch.Size([1, 2]),
    "layout": torch.sparse_coo, "memory format": torch.channels_last,
    "tensor": torch.arange(6).reshape(2, 3), "tensor of one number": torch.tensor(1.5),
    "numpy float32": np.float32(0.1), "numpy int8": np.int8(-3), "numpy bool": np.bool_(True),
    "numpy text": np.str_("a"),
    "numpy date": np.datetime64("2024-01-02"), "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "array of texts": np.array(["a", "bcd"]), "numpy type": np.dtype("float16"),
    "datetime": datetime.datetime(2024, 1, 2, 3, 4, 5, 6), "timedelta": datetime.timedelta(days=-1, seconds=1),
    "datetime of a zone": datetime.datetime(2024, 1, 2, tzinfo=UTC_MINUS_2),
    "date": datetime.date(2024, 1, 2), "time": datetime.time(1, 2, 3),
    "range": range(1, 10, 3), "slice": slice(1, None, 2), "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(-2, 3), "uuid": uuid.UUID(int=7), "pattern": re.compile("a+", re.IGNORECASE),
    "tuple": (1, (2, [3])), "list": [1, "a", None], "set": {1, "a", (2,)}, "set of paths": {pathlib.Path("x")},
    "frozenset": frozenset({1, 2}), "dict": {"a": {"b": (1,)}},
    "keys of many types": {1: "a", (2, 3): "b", None: "c", 0.5: "d"},
    "ordered dict": collections.OrderedDict(b=1, a=2), "counter": collections.Counter("aab"),
    "default dict": collections.defaultdict(list, a=[1]), "deque": collections.deque([1, 2], maxlen=3),
    "namespace": argparse.Namespace(a=1, b=argparse.Namespace(c=pathlib.Path("x"))),
    "simple namespace": types.SimpleNamespace(a=1), "attribute dict": AttributeDict(a=1),
    "nested": [{"a": {pathlib.Path("k"): (np.float32(1), {range(2)}, [torch.float16, datetime.date(2024, 1, 2)])}}],
}  # fmt: skip

OF_CLASSES: dict[str, Any] = {
    "color": Color.GREEN,
    "size": Size.SMALL,
    "mode": Mode.FAST,
    "flags": Flags.A | Flags.B,
    "point": Point(1.0, Color.RED),
    "frozen": Frozen(Inner(0.1, Color.GREEN), many=[Inner(0.2), Inner(0.3, root=pathlib.Path("there"))]),
    "slotted": Slotted(4, datetime.date(2024, 1, 2)),
    "by_color": {Color.RED: Inner(0.1), Color.GREEN: Inner(0.2, Color.GREEN)},
    "colors": {Color.RED, Color.GREEN},
}


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same type, at every depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, torch.Tensor)):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, (argparse.Namespace, types.SimpleNamespace)):
        return same(vars(a), vars(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b)) and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
    return repr(a) == repr(b) if isinstance(a, (float, slice)) else a == b


@pytest.fixture
def checkpoint_of(tmp_path: Any, trainer_of: Any) -> Any:
    """Fit a module and give the path of its checkpoint, as `ModelCheckpoint` wrote it."""

    def fit(module: LightningModule) -> str:
        trainer: Trainer = trainer_of(max_epochs=1, enable_checkpointing=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a loader without workers
            trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 1)))
        return trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]

    return fit


@pytest.mark.parametrize("name", VALUES)
def test_hyperparameter_comes_back_from_a_checkpoint_of_a_run(checkpoint_of, name) -> None:
    path = checkpoint_of(Net(VALUES[name]))

    assert same(Net.load_from_checkpoint(path).hparams["value"], VALUES[name])
    torch.load(path, weights_only=True)


def test_hyperparameters_of_annotated_classes_come_back_from_a_checkpoint_of_a_run(checkpoint_of) -> None:
    again = Net.load_from_checkpoint(checkpoint_of(Net(**OF_CLASSES))).hparams

    wrong = {name: again[name] for name, value in OF_CLASSES.items() if not same(again[name], value)}
    assert not wrong
    assert again["frozen"].many[1].root == pathlib.Path("there")


@pytest.mark.skipif(importlib.util.find_spec("omegaconf") is None, reason="OmegaConf is not installed")
def test_omegaconf_container_comes_back_from_a_checkpoint_of_a_run(checkpoint_of) -> None:
    from omegaconf import OmegaConf

    conf = OmegaConf.create({"lr": 0.1, "layers": [1, {"size": 2}]})

    assert Net.load_from_checkpoint(checkpoint_of(Net(conf))).hparams["value"] == conf


@pytest.mark.parametrize(
    "value", [nn.ReLU(), nn.ReLU, torch.relu, {"act": lambda x: x}], ids=["module", "class", "function", "in a dict"]
)
def test_module_or_callable_is_left_out_by_name_and_asked_for_on_load(checkpoint_of, value) -> None:
    class Needs(Net):
        def __init__(self, value: Any, width: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match=r'left out of checkpoints.*`value`.*ignore=\["value"\]'):
        module = Needs(value, width=4)
    path = checkpoint_of(module)

    with pytest.raises(TypeError, match=r"its constructor needs `value`") as caught:
        Needs.load_from_checkpoint(path)
    assert f"Write `Needs.load_from_checkpoint({path!r}, value=...)`" in str(caught.value)
    again = Needs.load_from_checkpoint(path, value=3).hparams
    assert (again["value"], again["width"]) == (3, 4)


def test_value_without_a_plain_form_is_refused_before_anything_runs() -> None:
    with (
        open(__file__) as file,
        pytest.raises(TypeError, match=r"`value`: it is an object of class TextIOWrapper.*ignore="),
    ):
        Net(file)
