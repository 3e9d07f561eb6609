"""What `save_hyperparameters` keeps, and the plain form in which a checkpoint holds it."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import random
import re
import sys
import threading
import types
import uuid
import warnings
import zoneinfo
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from fulmen.core.hparams import HyperparameterOwner, given_hyperparameters, hparams_for_checkpoint
from fulmen.core.module import LightningModule
from fulmen.core.plain import from_plain, to_plain
from fulmen.utilities.parsing import AttributeDict


class Module(LightningModule):
    """Something that owns hyperparameters."""


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Shape(enum.Enum):
    RED = "red"


class Layer(enum.Enum):
    LINEAR = nn.Linear
    CONV = nn.Conv1d


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: float
    color: Color


@dataclass
class Optim:
    lr: float = 0.1
    color: Color = Color.RED
    root: pathlib.Path = pathlib.Path("here")
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass
class Momentum(Optim):
    momentum: float = 0.9


@dataclass
class Doubling:
    size: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.size *= 2
        self.doubled = self.size


def through_file(data: Any) -> Any:
    """Written to a file and read back under torch's strict reader."""
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def reloaded(owner: HyperparameterOwner) -> Any:
    entries = through_file(hparams_for_checkpoint(owner))
    return from_plain(
        entries[owner.CHECKPOINT_HYPER_PARAMS_KEY], entries[owner.CHECKPOINT_HYPER_PARAMS_KINDS], type(owner)
    )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().view(torch.uint8)


def same(a: Any, b: Any) -> bool:
    """Equal in value and type at every depth; NaN is itself; arrays and tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (np.generic, float, complex)):
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(a, (argparse.Namespace, types.SimpleNamespace)):
        return same(vars(a), vars(b))
    if isinstance(a, dict):
        factory = getattr(a, "default_factory", None), getattr(b, "default_factory", None)
        keys_are_same = list(a) == list(b) and list(map(type, a)) == list(map(type, b))
        return keys_are_same and all(same(a[key], b[key]) for key in a) and factory[0] is factory[1]
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, collections.deque):
        return same(list(a), list(b)) and a.maxlen == b.maxlen
    if isinstance(a, decimal.Decimal):
        return str(a) == str(b)
    if isinstance(a, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    return a == b


# -- which arguments --------------------------------------------------------------------------------------------------


def test_save_hyperparameters_without_names_keeps_every_argument() -> None:
    class M(Module):
        def __init__(self, width, lr=0.1, *rest, depth=2, **others):
            super().__init__()
            self.save_hyperparameters()

    model = M(3, 0.2, "dropped", depth=4, heads=5)

    assert model.hparams == {"width": 3, "lr": 0.2, "depth": 4, "heads": 5}
    assert model.hparams.heads == 5
    assert model._hparams_name == "kwargs"


def test_save_hyperparameters_before_the_modules_own_init_works() -> None:
    class M(Module):
        def __init__(self, width):
            self.save_hyperparameters()
            super().__init__()

    assert M(3).hparams == {"width": 3}


def test_save_hyperparameters_takes_arguments_as_they_are_at_the_call() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            width = width * 2
            self.save_hyperparameters()

    assert M(3).hparams.width == 6


def test_save_hyperparameters_in_a_method_called_by_init_finds_the_arguments() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            self.remember(depth=7)

        def remember(self, depth):
            self.save_hyperparameters()

    assert M(3).hparams == {"width": 3}


def test_save_hyperparameters_in_a_base_class_keeps_the_arguments_of_the_subclass() -> None:
    class Inner(Module):
        def __init__(self, width, lr=0.1):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Inner):
        def __init__(self, lr, depth):
            super().__init__(width=depth * 2, lr=lr * 10)

    assert Outer(lr=1, depth=4).hparams == {"width": 8, "lr": 1, "depth": 4}


def test_save_hyperparameters_of_an_inner_module_ignores_the_outer_modules_arguments() -> None:
    class Inner(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Module):
        def __init__(self, secret, lr):
            super().__init__()
            self.inner = Inner(5)
            self.save_hyperparameters()

    model = Outer(1, 2)

    assert model.inner.hparams == {"width": 5}
    assert model.hparams == {"secret": 1, "lr": 2}


def test_save_hyperparameters_with_names_keeps_only_these() -> None:
    class M(Module):
        def __init__(self, width, lr, depth):
            super().__init__()
            self.save_hyperparameters("width", "depth")

    assert M(1, 2, 3).hparams == {"width": 1, "depth": 3}


def test_save_hyperparameters_with_an_unknown_name_raises_and_names_the_arguments() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters("witdh")

    with pytest.raises(KeyError, match=r"'witdh'.*M has only the arguments 'width'"):
        M(1)


@pytest.mark.parametrize("container", [{"lr": 1}, argparse.Namespace(lr=1), AttributeDict(lr=1)])
def test_save_hyperparameters_with_a_container_keeps_its_entries_under_the_parameters_name(container) -> None:
    class M(Module):
        def __init__(self, width, conf):
            super().__init__()
            self.save_hyperparameters(conf, "width")

    model = M(3, container)

    assert model.hparams == {"lr": 1}
    assert model.hparams.lr == 1
    assert model._hparams_name == "conf"


def test_save_hyperparameters_with_a_container_that_is_no_argument_has_no_name() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters({"lr": 1})

    model = M(3)

    assert model.hparams == {"lr": 1}
    assert model._hparams_name is None


def test_save_hyperparameters_with_the_users_mapping_keeps_it() -> None:
    class M(Module):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters(conf)

    conf = collections.UserDict(lr=1)

    assert M(conf).hparams is conf


@pytest.mark.parametrize("container", [{}, argparse.Namespace()])
def test_save_hyperparameters_with_an_empty_container_has_no_effect(container) -> None:
    class M(Module):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters(conf)

    model = M(container)

    assert model.hparams == {}
    assert hparams_for_checkpoint(model) == {}


@pytest.mark.parametrize("container", [1, 0.5, True, Optim(), object(), [1]])
def test_save_hyperparameters_with_something_else_raises(container) -> None:
    class M(Module):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters(container)

    with pytest.raises(ValueError, match="is not a collection of hyperparameters"):
        M()


def test_save_hyperparameters_with_two_containers_raises() -> None:
    class M(Module):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"a": 1}, {"b": 2})

    with pytest.raises(ValueError, match="takes one collection"):
        M()


@pytest.mark.parametrize("ignore", ["loss", ["loss"], ("loss", "unknown"), {"loss"}])
def test_ignore_leaves_names_out(ignore) -> None:
    class M(Module):
        def __init__(self, width, loss):
            super().__init__()
            self.save_hyperparameters(ignore=ignore)

    assert M(1, nn.MSELoss()).hparams == {"width": 1}


def test_ignore_in_a_subclass_removes_what_the_base_class_kept_without_a_warning() -> None:
    class Inner(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Inner):
        def __init__(self, loss, width=2):
            super().__init__(width)
            self.save_hyperparameters(ignore=["loss", "width"])

    assert Outer(nn.MSELoss()).hparams == {}


def test_ignore_applies_to_a_container() -> None:
    class M(Module):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters(conf, ignore="lr")

    conf = {"lr": 1, "width": 2}

    assert M(conf).hparams == {"width": 2}
    assert conf == {"lr": 1, "width": 2}


def test_save_hyperparameters_called_twice_merges() -> None:
    class M(Module):
        def __init__(self, width, lr):
            super().__init__()
            self.save_hyperparameters("width")
            self.save_hyperparameters({"extra": 3})

    assert M(1, 2).hparams == {"width": 1, "extra": 3}


def test_frame_says_where_to_look_for_the_constructor() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            here = sys._getframe()
            remember_later.append(lambda: self.save_hyperparameters(frame=here))

    remember_later: list[Any] = []
    model = M(3)
    assert model.hparams == {}

    remember_later[0]()

    assert model.hparams == {"width": 3}


def test_dataclass_module_keeps_its_fields() -> None:
    @dataclass(eq=False)
    class M(Module):
        width: int
        sizes: list[int] = field(default_factory=lambda: [1, 2])
        secret: int = field(init=False, default=5)

        def __post_init__(self) -> None:
            super().__init__()
            self.save_hyperparameters()

    assert M(3).hparams == {"width": 3, "sizes": [1, 2]}


def test_frozen_dataclass_can_own_hyperparameters() -> None:
    @dataclass(frozen=True)
    class Data(HyperparameterOwner):
        size: int = 3

        def __post_init__(self) -> None:
            self.save_hyperparameters()

    assert Data().hparams == {"size": 3}


def test_given_hyperparameters_are_kept_in_place_of_the_arguments() -> None:
    class Inner(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Module):
        def __init__(self, conf):
            super().__init__()
            self.inner = Inner(1)
            self.save_hyperparameters()

    with given_hyperparameters(Outer, {"conf": "parsed"}):
        model = Outer(object())

    assert model.hparams == {"conf": "parsed"}
    assert model.inner.hparams == {"width": 1}


# -- hparams and hparams_initial --------------------------------------------------------------------------------------


def test_hparams_without_saving_is_empty() -> None:
    assert Module().hparams == {}
    assert Module().hparams_initial == {}


def test_hparams_entries_can_be_set_and_the_initial_ones_stay() -> None:
    class M(Module):
        def __init__(self, width, sizes):
            super().__init__()
            self.save_hyperparameters()

    model = M(1, [1])
    model.hparams.width = 9
    model.hparams["sizes"].append(2)
    model.hparams_initial["sizes"].append(3)

    assert model.hparams == {"width": 9, "sizes": [1, 2]}
    assert model.hparams_initial == {"width": 1, "sizes": [1]}


def test_hparams_cannot_be_replaced_and_the_error_says_what_to_write() -> None:
    with pytest.raises(AttributeError, match=r"self\.save_hyperparameters\(hparams\)"):
        Module().hparams = {"a": 1}


def test_logger_false_is_remembered() -> None:
    class M(Module):
        def __init__(self, width, logger):
            super().__init__()
            self.save_hyperparameters(logger=logger)

    assert M(1, True)._log_hyperparams
    assert not M(1, False)._log_hyperparams


def test_module_with_hyperparameters_can_be_copied() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    model = M(1)
    twin = copy.deepcopy(model)
    twin.hparams.width = 2

    assert model.hparams.width == 1
    assert twin.hparams_initial == {"width": 1}


# -- values without a plain form --------------------------------------------------------------------------------------


def test_values_without_a_plain_form_stay_live_and_one_warning_names_them() -> None:
    class M(Module):
        def __init__(self, width, loss, options, layer):
            super().__init__()
            self.save_hyperparameters()

    loss = nn.MSELoss()
    with pytest.warns(UserWarning, match=r"MSELoss is an nn\.Module.*`options\.act`: relu is a function") as caught:
        model = M(1, loss, {"act": torch.relu, "n": 1}, nn.Linear)

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert 'save_hyperparameters(ignore=["loss", "options", "layer"])' in str(caught[0].message)
    assert "M.load_from_checkpoint(path, loss=..., options=..., layer=...)" in str(caught[0].message)
    assert model.hparams.loss is loss
    assert model.hparams_initial.loss is loss
    assert hparams_for_checkpoint(model) == {
        "hyper_parameters": {"width": 1},
        "hparams_name": "kwargs",
        "hparams_kinds": {"loss": "left_out", "options": "left_out", "layer": "left_out"},
    }


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (threading.Lock(), "`x`: it is an object of class lock"),
        ((i for i in range(3)), "`x`: it is an object of class generator"),
        (io.StringIO(), "`x`: it is an object of class StringIO"),
        ({"deep": [object()]}, r"`x`: at `x\.deep\.0`: it is an object of class object"),
        (torch.Generator(), "`x`: it is an object of class Generator"),
        (np.array([object()], dtype=object), "`x`: a numpy ndarray of"),
        (datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "`x`: its time zone has rules"),
    ],
)
def test_argument_without_a_plain_form_is_refused_and_the_error_says_what_to_write(value, reason) -> None:
    class M(Module):
        def __init__(self, width, x):
            super().__init__()
            self.save_hyperparameters()

    with pytest.raises(TypeError, match=rf"^M cannot keep all of its arguments.*\({reason}") as caught:
        M(1, value)

    assert '`self.save_hyperparameters(ignore=["x"])`' in str(caught.value)
    assert "`M.load_from_checkpoint(path, x=...)`" in str(caught.value)


def test_object_of_a_local_class_is_refused_until_it_is_ignored() -> None:
    class Local:
        pass

    class Inner(Module):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Inner):
        def __init__(self, data, width):
            super().__init__()
            self.save_hyperparameters(ignore=["data"])

    class Careless(Inner):
        def __init__(self, data):
            super().__init__()

    assert Outer(Local(), 1).hparams == {"width": 1}
    with pytest.raises(TypeError, match=r"`data`: it is an object of class .*Local"):
        Careless(Local())


def test_hyperparameter_without_a_plain_form_that_is_set_later_only_warns() -> None:
    class M(Module):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    model = M(1)
    model.hparams.lock = threading.Lock()

    with pytest.warns(UserWarning, match="`lock`: it is an object of class lock"):
        assert hparams_for_checkpoint(model)["hyper_parameters"] == {"width": 1}


def test_value_without_a_plain_form_is_named_once_if_base_and_subclass_save() -> None:
    class Inner(Module):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()

    class Outer(Inner):
        def __init__(self, loss):
            super().__init__()
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match="MSELoss") as caught:
        Outer(nn.MSELoss())

    assert len(caught) == 1


@pytest.mark.parametrize(
    "value",
    [
        nn.Linear(1, 1),
        nn.Linear,
        lambda x: x,
        object(),
        {nn.ReLU(): 3},
        collections.defaultdict(lambda: 1),
        np.array([object()], dtype=object),
        np.ma.array([1], mask=[True]),
        torch.Generator(),
        [1, [{"deep": nn.ReLU()}]],
    ],
)
def test_to_plain_leaves_out_what_has_no_plain_form(value) -> None:
    assert to_plain({"a": 1, "value": value}) == ({"a": 1}, {"value": "left_out"})


def test_to_plain_leaves_out_a_container_that_contains_itself() -> None:
    knot: list[Any] = [1]
    knot.append(knot)

    assert to_plain({"value": knot}) == ({}, {"value": "left_out"})


# -- the plain form ---------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, 0, -(2**70), 2**5000, 0.1, float("nan"), float("-inf"), -0.0, 1 + 2j,
    "", "text", "\ud800", b"", b"\x00\xff", bytearray(b"ab"), bytearray(),
    (), [], {}, set(), (1, (2, [3])), {"a": {"b": (1,)}}, {1: "int", "1": "text", False: 0},
    {"a.b": pathlib.Path("x"), "a": {"b": 1}}, {"": pathlib.Path("x")}, {"#1": pathlib.Path("x"), 1: 2, "%": range(2)},
    {1, 2.5, "a"}, {pathlib.Path("x"), (1, pathlib.Path("y"))}, frozenset(), frozenset({1, "a"}), {frozenset({1}), 3},
    pathlib.Path("/data/x"), pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:\\a"),
    datetime.datetime(2024, 1, 2, 3, 4, 5, 6), datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    datetime.date(2024, 1, 2), datetime.time(1, 2, 3), datetime.timedelta(days=-1, microseconds=1),
    datetime.timedelta.max, range(1, 10, 3), slice(1, None, 2), slice(np.int8(1)),
    datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=-2))),
    decimal.Decimal("1.10"), decimal.Decimal("NaN").copy_sign(decimal.Decimal(-1)), fractions.Fraction(2, -3),
    uuid.UUID(int=7), re.compile("a+", re.IGNORECASE), re.compile(b"x"),
    {(1, 2): "a", None: {0.5: pathlib.Path("x")}}, {1.5: (1,), "a.b": {1}}, {frozenset({1}): {(): set()}},
    collections.OrderedDict({None: 1, (2,): 3}), collections.Counter([(1, 2), (1, 2)]),
    collections.defaultdict(list, a=[1], b=[]), collections.defaultdict(None, {1: 2}),
    collections.defaultdict(int, {(1,): 2}), collections.deque([1, (2,)]), collections.deque([1, 2, 3], maxlen=2),
    torch.channels_last, torch.strided, np.dtype("float16"), np.dtype(">i4"),
    torch.float16, torch.device("cuda:1"), torch.Size([1, 2]), torch.arange(6).reshape(2, 3),
    torch.tensor(1.5).bfloat16(),
    argparse.Namespace(a=1, b=argparse.Namespace(c=pathlib.Path("x"))), types.SimpleNamespace(a=(1,)),
    AttributeDict(a=1), collections.OrderedDict(b=1, a=2), collections.Counter("aab"),
    np.float32(0.1), np.float64(0.1), np.int8(-3), np.uint64(2**63), np.bool_(True), np.complex64(1j),
    np.float16("nan"), np.str_("a"), np.str_(""), np.bytes_(b"a"), np.datetime64("2024-01-02T03"), np.datetime64("NaT"),
    np.timedelta64(5, "ms"), np.arange(6, dtype=np.int16).reshape(2, 3), np.array(1.5), np.zeros((0, 3)),
    np.array([True]), np.array([1j]), np.array(["a", "bcd"]), np.array([[b"a"], [b""]]), np.zeros(2, np.uint32),
    np.array(["2024-01-02"], dtype="datetime64[D]"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(VALUES)])
def test_plain_form_gives_back_the_value_through_a_file(value) -> None:
    plain, kinds = through_file(to_plain({"value": value, "nested": [{"value": value}]}))

    again = from_plain(plain, kinds)

    assert same(again["value"], value), (plain, kinds, again)
    assert same(again["nested"], [{"value": value}])


def test_plain_form_is_simple_for_other_readers() -> None:
    hparams = {"root": pathlib.Path("a/b"), "color": Color.RED, "optim": Optim(), "sizes": (1, 2)}

    plain, kinds = to_plain(hparams)

    assert plain == {
        "root": "a/b",
        "color": "red",
        "optim": {"lr": 0.1, "color": "red", "root": "here", "betas": (0.9, 0.99)},
        "sizes": (1, 2),
    }
    assert kinds == {
        "root": "path",
        "color": "enum:Color",
        "optim": "dataclass:Optim",
        "optim.color": "enum:Color",
        "optim.root": "path",
    }


def test_plain_form_of_a_subclass_of_a_simple_type_is_its_value() -> None:
    class Text(str):
        def __str__(self) -> str:
            return "something else"

    plain, kinds = to_plain({"text": Text("value"), "number": type("N", (int,), {})(3)})

    assert plain == {"text": "value", "number": 3}
    assert [type(value) for value in plain.values()] == [str, int]
    assert kinds == {}


def test_plain_form_of_a_dict_of_another_class_comes_back_with_attributes() -> None:
    class Config(dict):
        pass

    again = from_plain(*to_plain({"conf": Config(a=Config(b=1))}))

    assert again["conf"].a.b == 1


def random_value(rng: random.Random, depth: int) -> Any:
    """A value made of everything that has a plain form."""
    if depth == 0 or rng.random() < 0.3:
        return copy.deepcopy(rng.choice(VALUES))
    keys = ["a", "b.c", "", "#1", "%2E", 1, 0, "1", "lr"]
    size = rng.randrange(4)
    element = lambda: random_value(rng, depth - 1)  # noqa: E731
    container = rng.choice([list, tuple, dict, dict, AttributeDict, collections.OrderedDict, argparse.Namespace])
    if container in (list, tuple):
        return container(element() for _ in range(size))
    if container is argparse.Namespace:
        return argparse.Namespace(**{key: element() for key in rng.sample(["x", "y", "z"], min(size, 3))})
    return container({key: element() for key in rng.sample(keys, size)})


@pytest.mark.parametrize("seed", range(40))
def test_plain_form_of_random_nested_values_round_trips(seed) -> None:
    rng = random.Random(seed)
    hparams = {f"name.{i}": random_value(rng, depth=4) for i in range(4)}
    before = copy.deepcopy(hparams)

    plain, kinds = through_file(to_plain(hparams))
    again = from_plain(plain, kinds)

    assert same(again, hparams)
    assert same(hparams, before)


# -- classes of the user ----------------------------------------------------------------------------------------------


class Annotated_(Module):
    def __init__(
        self,
        color: Color,
        layer: Layer | None = None,
        level: Level = Level.LOW | Level.HIGH,
        either: str | Shape | Color = "red",
        optim: Optim | None = None,
        doubling: Doubling | None = None,
        many: dict[str, list[Optim]] | None = None,
        pair: tuple[Color, Point] | None = None,
        noted: Annotated[Color, "a note"] = Color.RED,
        unannotated=Color.GREEN,
    ):
        super().__init__()
        self.save_hyperparameters()


@pytest.mark.parametrize(
    "arguments",
    [
        {"layer": Layer.CONV},
        {"either": Color.RED},
        {"either": Shape.RED},
        {"either": "green"},
        {"optim": Optim(lr=3, color=Color.GREEN, root=pathlib.Path("there"))},
        {"optim": Momentum(momentum=0.5)},
        {"doubling": Doubling(3)},
        {"many": {"a.b": [Optim(), Optim(lr=2)]}},
        {"pair": (Color.GREEN, Point(1.0, Color.RED))},
        {"noted": Color.GREEN, "unannotated": Color.RED},
    ],
)
def test_classes_named_by_the_constructor_come_back(arguments) -> None:
    model = Annotated_(Color.GREEN, **arguments)

    again = reloaded(model)

    assert again == model.hparams
    assert {name: type(value) for name, value in again.items()} == {
        name: type(value) for name, value in model.hparams.items()
    }


def test_dataclass_comes_back_as_it_was_without_running_its_constructor_again() -> None:
    model = Annotated_(Color.RED, doubling=Doubling(3))

    assert reloaded(model)["doubling"].size == 6


def test_classes_come_back_for_parameters_of_a_base_class() -> None:
    class Sub(Annotated_):
        def __init__(self, width: int, **others: Any):
            super().__init__(**others)
            self.save_hyperparameters()

    assert reloaded(Sub(3, color=Color.RED, optim=Optim()))["optim"] == Optim()


def test_class_that_nothing_names_comes_back_as_simple_value_and_the_constructor_warns() -> None:
    class M(Module):
        def __init__(self, color, optim, root):
            super().__init__()
            self.save_hyperparameters()

    with pytest.warns(UserWarning, match=r"simple values \(`color`, `optim`\).*color: ItsClass"):
        model = M(Color.RED, Optim(), pathlib.Path("x"))
    again = reloaded(model)

    assert again["color"] == "red"
    assert again["optim"].lr == 0.1
    assert again["root"] == pathlib.Path("x")


def test_class_that_was_renamed_since_comes_back_if_the_annotation_leaves_no_choice() -> None:
    plain, kinds = to_plain({"color": Color.GREEN, "optim": Optim(lr=5)})
    kinds |= {"color": "enum:Colour", "optim": "dataclass:Optimization"}

    assert from_plain(plain, kinds, Annotated_) == {"color": Color.GREEN, "optim": Optim(lr=5)}


def test_dataclass_that_has_a_new_field_since_gets_its_default() -> None:
    plain, kinds = to_plain({"optim": Optim(lr=5)})
    del plain["optim"]["betas"]

    assert from_plain(plain, kinds, Annotated_) == {"optim": Optim(lr=5)}


def test_without_kinds_the_annotations_alone_make_the_values() -> None:
    class M(Module):
        def __init__(self, color: Color, root: pathlib.Path, dtype: torch.dtype, optim: Optim, either: Color | str):
            super().__init__()

    plain = {"color": "GREEN", "root": "a", "dtype": "torch.float16", "optim": {"color": "green"}, "either": "red"}

    assert from_plain(plain, None, M) == {
        "color": Color.GREEN,
        "root": pathlib.Path("a"),
        "dtype": torch.float16,
        "optim": Optim(color=Color.GREEN),
        "either": "red",
    }


# -- what a file may not do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["os.system", "enum:os", "dataclass:subprocess.Popen", "omegaconf", "numpy:O", "none"])
def test_unknown_kind_imports_and_calls_nothing(kind) -> None:
    before = set(sys.modules)

    with warnings.catch_warnings():
        again = from_plain({"value": "echo"}, {"value": kind, "other": "path"}, Annotated_)

    assert again == {"value": "echo"}
    assert set(sys.modules) == before


def test_value_that_does_not_fit_its_kind_raises_and_names_the_hyperparameter() -> None:
    with pytest.raises(ValueError, match=r"`a\.b` should be of kind 'datetime', but is 'yesterday'"):
        from_plain({"a": {"b": "yesterday"}}, {"a.b": "datetime"})


# -- omegaconf --------------------------------------------------------------------------------------------------------


def test_omegaconf_container_stays_one_in_hparams_and_through_a_file() -> None:
    omegaconf = pytest.importorskip("omegaconf")

    class M(Module):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters(conf)

    conf = omegaconf.OmegaConf.create({"lr": 0.1, "net": {"sizes": [1, 2], "same": "${lr}"}})
    model = M(conf)
    entries = through_file(hparams_for_checkpoint(model))

    assert model.hparams is conf
    assert entries["hyper_parameters"]["net"]["sizes"] == [1, 2]
    assert entries["hparams_kinds"] == {"": "omegaconf"}


def test_omegaconf_container_as_one_argument_of_several_comes_back() -> None:
    omegaconf = pytest.importorskip("omegaconf")

    class M(Module):
        def __init__(self, conf, sizes, width):
            super().__init__()
            self.save_hyperparameters()

    conf = omegaconf.OmegaConf.create({"lr": 0.1, "same": "${lr}", "sizes": [1, 2]})

    again = reloaded(M(conf, conf.sizes, 3))

    assert again["conf"] == conf
    assert again["conf"].same == 0.1
    assert again["sizes"] == conf.sizes
    assert type(again["sizes"]) is type(conf.sizes)
