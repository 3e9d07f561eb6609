"""``fulmen checkpoint convert``: what comes through, what is left out, and that nothing that a file names is run."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import enum
import functools
import io
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fulmen import LightningModule, Trainer
from fulmen.__main__ import main
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.utilities.parsing import AttributeDict

RECORDED = Path(__file__).parents[1] / "interchange" / "recorded"


def convert(*words: Any) -> int:
    return main(["checkpoint", "convert", *map(str, words)])


def converted(path: Path, tmp_path: Path) -> dict[str, Any]:
    assert convert(path, tmp_path / "plain.ckpt", "--force") == 0
    return torch.load(tmp_path / "plain.ckpt", weights_only=True)


# -- files of Lightning -----------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclass
class Schedule:
    warmup: int
    peaks: list[float]


class Net(LightningModule):
    """Takes what the recorded file has, which was written from classes of the same names."""

    def __init__(
        self, color: Color, blue: Color, schedule: Schedule, activation: Any, layer: Any = None, **others: Any
    ) -> None:
        super().__init__()
        self.given = {**others, "color": color, "blue": blue, "schedule": schedule, "activation": activation}
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


EXPECTED = {
    "width": 3,
    "rate": 0.1,
    "name": "net",
    "nothing": None,
    "pair": (1, 2),
    "namespace": argparse.Namespace(a=1, b=[2, 3]),
    "attributes": AttributeDict(x=1, y={"z": 2}),
    "path": PurePosixPath("data/train"),
    "color": Color.RED,
    "blue": Color.BLUE,
    "schedule": Schedule(3, [0.1, 0.2]),
    "scalar": np.float64(0.5),
    "array": np.arange(6, dtype=np.int32).reshape(2, 3),
    "names": {"a", "b"},
    "frozen": frozenset([1, 2]),
    "ordered": collections.OrderedDict(a=1, b=2),
    "counted": collections.Counter("aab"),
    "day": datetime.date(2024, 2, 29),
    "moment": datetime.datetime(2024, 2, 29, 12, 30),
    "span": datetime.timedelta(hours=1),
    "steps": range(0, 10, 2),
    "raw": b"\x00\xff",
    "complex": 1 + 2j,
    "dtype": torch.bfloat16,
    "device": torch.device("cpu"),
    "shape": torch.Size([2, 3]),
    "weight": torch.arange(3.0),
}


@pytest.fixture
def loaded(tmp_path):
    """What a module gets from the converted file of each of torch's formats."""

    def load(name: str) -> dict[str, Any]:
        converted(RECORDED / f"{name}.ckpt", tmp_path)
        with pytest.warns(UserWarning, match="without a plain form"):
            return Net.load_from_checkpoint(tmp_path / "plain.ckpt", activation=None).given

    return load


@pytest.mark.parametrize("name", ["hyperparameters", "legacy_format"])
def test_hyperparameters_of_lightning_come_back_with_their_types(loaded, name):
    given = loaded(name)

    for key, value in EXPECTED.items():
        assert type(given[key]) is type(value), key
        if isinstance(value, (np.ndarray, torch.Tensor)):
            assert given[key].dtype == value.dtype
            assert (given[key] == value).all()
        else:
            assert given[key] == value, key


def test_what_has_no_plain_form_is_left_out_and_told(tmp_path, capsys):
    plain = converted(RECORDED / "hyperparameters.ckpt", tmp_path)

    told = capsys.readouterr().out
    for name, what in {
        "activation": "functools.partial",
        "function": "torch.nn.functional.relu",
        "layer": "torch.nn.modules.activation.ReLU",
        "module": "torch.nn.modules.linear.Linear",
    }.items():
        assert name not in plain["hyper_parameters"]
        assert plain["hparams_kinds"][name] == "left_out"
        assert f"hyper_parameters.{name}: {what}\n" in told
    assert "load_from_checkpoint(" in told
    assert "activation=..., function=..., layer=..., module=..." in told


def test_weights_and_counters_are_those_of_the_file(tmp_path):
    file = torch.load(RECORDED / "hyperparameters.ckpt", weights_only=False, pickle_module=_only_stand_ins())
    plain = converted(RECORDED / "hyperparameters.ckpt", tmp_path)

    assert plain.keys() - {"hparams_kinds"} == file.keys()
    torch.testing.assert_close(plain["state_dict"], file["state_dict"], rtol=0, atol=0)
    assert plain["loops"] == file["loops"]


def _only_stand_ins() -> types.ModuleType:
    """A ``pickle`` that takes an empty object for each class that the process does not have."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith(("lightning", "__main__")):
                return type(name, (dict,), {"__init__": lambda self, *args: None})
            return super().find_class(module, name)

    made = types.ModuleType("stand_ins")
    made.Unpickler, made.load = Unpickler, pickle.load  # type: ignore[attr-defined]
    return made


def test_config_of_omegaconf_becomes_a_dict_with_its_references_as_text(tmp_path):
    was_there = "omegaconf" in sys.modules
    plain = converted(RECORDED / "omegaconf.ckpt", tmp_path)

    assert plain["hyper_parameters"] == {"width": 3, "data": {"root": "data", "batch": "${width}", "sizes": [1, 2]}}
    assert "hparams_type" not in plain
    assert was_there or "omegaconf" not in sys.modules


def test_plain_file_comes_through_as_it_is_with_a_warning_that_it_was_plain(tmp_path, capsys):
    plain, file = converted(RECORDED / "watched.ckpt", tmp_path), torch.load(RECORDED / "watched.ckpt")

    assert "watched.ckpt is plain data already, and needs no conversion" in capsys.readouterr().err
    assert plain.keys() == file.keys()
    torch.testing.assert_close(plain["optimizer_states"], file["optimizer_states"], rtol=0, atol=0)
    assert repr(plain["callbacks"]) == repr(file["callbacks"])


def test_file_of_which_all_has_a_plain_form_is_converted_without_a_warning(tmp_path, capsys):
    torch.save({"state_dict": {}, "hyper_parameters": {"folder": Path("data")}}, tmp_path / "path.ckpt")
    converted(tmp_path / "path.ckpt", tmp_path)

    told = capsys.readouterr()
    assert "nothing was lost" in told.out
    assert told.err == ""


def test_output_is_named_after_the_input_if_no_name_is_given(tmp_path):
    (tmp_path / "a.ckpt").write_bytes((RECORDED / "omegaconf.ckpt").read_bytes())

    assert convert(tmp_path / "a.ckpt") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.plain.ckpt"]


# -- layouts of long ago ----------------------------------------------------------------------------------------------


class Resumed(LightningModule):
    def __init__(self, width: int = 3, name: str = "net") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1))
        self.began: tuple[int, int] | None = None

    def on_train_start(self) -> None:
        self.began = self.trainer.current_epoch, self.trainer.global_step
        self.weights_at_begin = {name: value.clone() for name, value in self.state_dict().items()}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", 1.0)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 3)]


@pytest.mark.filterwarnings("ignore:.*forgotten, and the best are chosen")
@pytest.mark.parametrize(("name", "version"), [("version_1_4", "1.4.9"), ("version_0_8", "0.8.5")])
def test_file_of_lightning_1_is_converted_and_resumed(tmp_path, capsys, name, version):
    plain = converted(RECORDED / f"{name}.ckpt", tmp_path)
    assert f"layout of Lightning {version}" in capsys.readouterr().out

    model, stops = Resumed(), EarlyStopping("val_loss")
    keeps = ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stops, keeps],
    )
    trainer.fit(model, [torch.ones(2, 3)] * 5, [torch.ones(2, 3)], ckpt_path=tmp_path / "plain.ckpt")

    assert model.began == (1, 5)
    torch.testing.assert_close(model.weights_at_begin, dict(plain["state_dict"]), rtol=0, atol=0)
    assert (trainer.current_epoch, trainer.global_step) == (2, 10)
    assert model.hparams == {"width": 3, "name": "net"}
    assert stops.wait_count == {"1.4.9": 1, "0.8.5": 0}[version]


# -- hostile files ----------------------------------------------------------------------------------------------------


class Called:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.call


def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def hostile_values(tmp_path: Path) -> dict[str, Any]:
    """Values that would make the canary, or import a module, if a reader called what they name."""
    touch = f"open({str(canary(tmp_path))!r}, 'w').close()"
    shell = f"touch {canary(tmp_path)}"
    return {
        "shell": Called(os.system, shell),
        "eval": Called(eval, f"__import__('os').system({shell!r})"),
        "exec": Called(exec, touch),
        "import": Called(__import__, "antigravity"),
        "open": Called(open, str(canary(tmp_path)), "w"),
        "path": Called(Path.touch, Path(canary(tmp_path))),
        "partial": functools.partial(os.system, shell),
        "called_partial": Called(functools.partial(os.system), shell),
        "reconstructor": Called(copyreg._reconstructor, subprocess_class(), object, None),
        "bytes_of_torch": Called(torch.storage._load_from_bytes, pickle.dumps(Called(os.system, shell))),
        "tensor": Called(torch._utils._rebuild_tensor_v2, Called(os.system, shell), 0, (1,), (1,), False, {}),
        "type": Called(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (shell,), {}),
        "array": Called(np.array([Called(os.system, shell)], dtype=object).__reduce__()[0], np.ndarray, (0,), b"b"),
        "objects": np.array([Called(os.system, shell)], dtype=object),
        "state": Called(argparse.Namespace, state={"a": Called(os.system, shell)}),
        "as_key": {Called(os.system, shell): 1},
        "as_member": {"a": [1, (2, Called(os.system, shell))]},
        "factory": collections.defaultdict(functools.partial(os.system, shell)),
        "ordered": collections.OrderedDict(a=Called(os.system, shell)),
        "enum": Called(Color, Called(os.system, shell)),
        "device": Called(torch.device, Called(os.system, shell)),
    }


def subprocess_class() -> type:
    import subprocess

    return subprocess.Popen


NAMES = list(hostile_values(Path("nowhere")))
PLACES = {
    "hyperparameters": lambda checkpoint, value: checkpoint["hyper_parameters"].update(evil=value),
    "all_hyperparameters": lambda checkpoint, value: checkpoint.update(hyper_parameters=value),
    "old_hyperparameters": lambda checkpoint, value: checkpoint.update(hparams={"evil": value}),
    "weights": lambda checkpoint, value: checkpoint["state_dict"].update(evil=value),
    "all_weights": lambda checkpoint, value: checkpoint.update(state_dict=value),
    "callbacks": lambda checkpoint, value: checkpoint["callbacks"].update(evil={"state": value}),
    "optimizers": lambda checkpoint, value: checkpoint["optimizer_states"].append(value),
    "schedulers": lambda checkpoint, value: checkpoint["lr_schedulers"].append({"evil": value}),
    "loops": lambda checkpoint, value: checkpoint["loops"].update(evil=value),
    "version": lambda checkpoint, value: checkpoint.update({"pytorch-lightning_version": value}),
    "elsewhere": lambda checkpoint, value: checkpoint.update(evil=value),
}


def convert_quietly(path: Path, tmp_path: Path, capsys: Any) -> int:
    """Convert, and see that nothing was called, imported or left half written, and that there is no traceback."""
    convert(RECORDED / "epoch_end.ckpt", tmp_path / "warm.ckpt", "--force")  # what it imports itself is there now
    capsys.readouterr()
    "".encode("cp437")  # of `zipfile`, for names that are not UTF-8
    before = set(sys.modules)
    code = convert(path, tmp_path / "plain.ckpt", "--force")

    assert not canary(tmp_path).exists()
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set()  # codecs of text
    assert "Traceback" not in capsys.readouterr().err
    if code == 0:
        torch.load(tmp_path / "plain.ckpt", weights_only=True)
    assert not list(tmp_path.glob(".*.part"))
    return code


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_a_hyperparameter_names_is_called(tmp_path, capsys, name):
    checkpoint = torch.load(RECORDED / "watched.ckpt", weights_only=True)
    PLACES["hyperparameters"](checkpoint, hostile_values(tmp_path)[name])
    torch.save(checkpoint, tmp_path / "evil.ckpt")

    assert convert_quietly(tmp_path / "evil.ckpt", tmp_path, capsys) == 0
    plain = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    assert plain["hyper_parameters"]["width"] == 3


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_called_in_any_place_of_a_checkpoint(tmp_path, capsys, place):
    checkpoint = torch.load(RECORDED / "watched.ckpt", weights_only=True)
    PLACES[place](checkpoint, hostile_values(tmp_path)["shell"])
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"evil{number}.ckpt"
        torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        code = convert_quietly(path, tmp_path, capsys)
        assert code == (2 if place == "all_weights" else 0)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("shell", "posix.system('touch "),
        ("eval", "builtins.eval("),
        ("path", "builtins.getattr(pathlib."),
        ("reconstructor", "subprocess.Popen"),
        ("called_partial", "posix.system"),
        ("bytes_of_torch", "torch.storage._load_from_bytes("),
        ("type", "posix.system"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_file_that_would_run_code_is_converted_with_a_warning_that_names_it(tmp_path, capsys, name, what, zipped):
    checkpoint = {"state_dict": {}, "hyper_parameters": {"evil": hostile_values(tmp_path)[name]}}
    torch.save(checkpoint, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)

    assert convert(tmp_path / "evil.ckpt", tmp_path / "plain.ckpt") == 0
    error = capsys.readouterr().err
    assert f"evil.ckpt holds what would run code: {what}" in error
    assert "Nothing of it was run. Get the file again from somebody you trust" in error


def test_honest_files_of_lightning_are_converted_without_that_warning(tmp_path, capsys):
    for name in ("hyperparameters", "legacy_format", "omegaconf", "version_0_8"):
        converted(RECORDED / f"{name}.ckpt", tmp_path)

    assert "run code" not in capsys.readouterr().err


def with_pickle(tmp_path: Path, data: bytes) -> Path:
    """A file of ``torch.save`` with this pickle in it."""
    path = tmp_path / "made.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made/data.pkl", data)
        archive.writestr("made/byteorder", "little")
        archive.writestr("made/version", "3")
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(" + text("touch {canary}") + b"tR",
        b"(" + text("touch {canary}") + b"ios\nsystem\n",
        b"(cos\nsystem\n" + text("touch {canary}") + b"o",
        b"cos\nsystem\n" + text("touch {canary}") + b"\x85\x81",
        b"\x8c\x02os\x8c\x06system\x93" + text("touch {canary}") + b"\x85R",
        b"cbuiltins\neval\n" + text("1") + b"\x85Rb",
        b"cargparse\nNamespace\n)\x81}" + text("__class__") + b"cos\nsystem\nsb",
        b"cargparse\nNamespace\n}" + text("a") + b"K\x01sb",
        b"ccollections\nOrderedDict\n)R}" + text("items") + b"cos\nsystem\nsb",
        b"cantigravity\nfly\n)R",
        b"cos.path\njoin\n(" + text("a") + b"tR",
        b"P7\n",
        b"\x82\x01",
        text("a") + b"\x8c\x01bQ",
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
        b"cbuiltins\nrange\n\x8a\x10" + b"\xff" * 15 + b"\x7f\x85R",
        b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R",
        b"]q\x00h\x00a",
        b"(" * 100_000 + b"t" * 100_000,
        b"]" * 100_000 + b"a" * 99_999,
    ],
)
def test_no_opcode_of_a_pickle_calls_or_imports(tmp_path, capsys, opcodes):
    opcodes = opcodes.replace(text("touch {canary}"), text(f"touch {canary(tmp_path)}"))
    pickled = b"\x80\x02}(" + text("state_dict") + b"}" + text("evil") + opcodes + b"u."

    assert convert_quietly(with_pickle(tmp_path, pickled), tmp_path, capsys) in (0, 2)


def test_pickle_that_says_it_has_thousands_of_millions_of_objects_takes_no_room_for_them(tmp_path, capsys):
    pickled = b"\x80\x02}(" + text("state_dict") + b"}" + text("evil") + b"Nr\xff\xff\xff\x7fu."

    assert convert_quietly(with_pickle(tmp_path, pickled), tmp_path, capsys) == 0


def test_lists_within_each_other_again_and_again_end(tmp_path, capsys):
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested, nested]
    torch.save({"state_dict": {}, "evil": nested}, tmp_path / "evil.ckpt")

    assert convert_quietly(tmp_path / "evil.ckpt", tmp_path, capsys) == 2


@pytest.mark.parametrize("size", [(10**12,), (2**62, 2**62), (-1,), (3, 3)])
def test_tensor_larger_than_its_data_is_left_out(tmp_path, capsys, size):
    data = torch.ones(4).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=data, dtype=torch.float32, _internal=True)
    tensor = Called(torch._utils._rebuild_tensor_v2, storage, 0, size, (4,) * len(size), False, {})
    torch.save({"state_dict": {"evil": tensor, "good": torch.ones(4)}}, tmp_path / "evil.ckpt")

    assert convert_quietly(tmp_path / "evil.ckpt", tmp_path, capsys) == 0
    assert list(torch.load(tmp_path / "plain.ckpt", weights_only=True)["state_dict"]) == ["good"]


def test_compressed_archive_is_refused(tmp_path, capsys):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({"state_dict": {}, "zeros": bytes(10_000_000)}, protocol=2))

    assert convert_quietly(path, tmp_path, capsys) == 2


def test_names_in_an_archive_that_point_elsewhere_write_nothing(tmp_path, capsys):
    pickled = io.BytesIO()
    pickle.dump({"state_dict": {}}, pickled, protocol=2)
    path = with_pickle(tmp_path, pickled.getvalue())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("made/data/../../../canary", "x")
        archive.writestr("/made/data/0", "x")

    assert convert_quietly(path, tmp_path, capsys) == 0


@pytest.mark.parametrize("name", ["hyperparameters", "legacy_format", "omegaconf"])
def test_damage_anywhere_in_a_file_gives_an_error_or_a_plain_file(tmp_path, capsys, name):
    chance, data = random.Random(7), (RECORDED / f"{name}.ckpt").read_bytes()
    if name != "legacy_format":
        with zipfile.ZipFile(RECORDED / f"{name}.ckpt") as archive:
            (record,) = [record for record in archive.namelist() if record.endswith("data.pkl")]
            data = archive.read(record)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = tmp_path / "damaged.ckpt"
        if name == "legacy_format":
            path.write_bytes(damaged)
        else:
            path = with_pickle(tmp_path, bytes(damaged))
        assert convert_quietly(path, tmp_path, capsys) in (0, 2)
