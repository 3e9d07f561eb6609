"""Wrong configurations: each ends with exit code 2, and with the file, the line, the key, and the nearest key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from fulmen import LightningDataModule
from fulmen.__main__ import main
from fulmen.demos.boring_classes import BoringModel

HERE = __name__


class MistakenModel(BoringModel):
    def __init__(
        self,
        width: int = 3,
        rate: float = 0.1,
        names: list[str] | None = None,
        kind: Literal["small", "large"] = "small",
        wide: bool = False,
        inner: BoringModel | None = None,
    ) -> None:
        super().__init__()


class MistakenData(LightningDataModule):
    def __init__(self, folder: str, batch_size: int = 2) -> None:
        super().__init__()


MODEL = f"model:\n  class_path: {HERE}.MistakenModel\n"
STOPPING = "trainer:\n  callbacks:\n  - class_path: EarlyStopping\n    init_args:\n      monitor: loss\n"

#: what the file holds, and what the message has to say of it
FILES: dict[str, tuple[str, list[str]]] = {
    "unknown argument of the trainer": (MODEL + "trainer:\n  max_epoch: 3\n", ["line 4", "trainer.max_epochs"]),
    "capitals": (MODEL + "trainer:\n  maxEpochs: 3\n", ["line 4", "`trainer.max_epochs`"]),
    "unknown group": (MODEL + "trainr:\n  max_epochs: 3\n", ["line 4", "`trainer.max_epochs`"]),
    "argument outside of its group": (MODEL + "max_epochs: 3\n", ["line 3", "`trainer.max_epochs`"]),
    "text for a whole number": (
        MODEL + "trainer:\n  max_epochs: many\n",
        ["line 4", "a whole number or null", "'many'"],
    ),
    "fraction for a whole number": (
        MODEL + "trainer:\n  log_every_n_steps: 2.5\n",
        ["line 4", "a whole number", "2.5"],
    ),
    "text for true or false": (MODEL + "trainer:\n  barebones: perhaps\n", ["line 4", "true or false", "'perhaps'"]),
    "list for a text": (MODEL + "trainer:\n  model_registry: [3]\n", ["line 4", "`trainer.model_registry`", "a text"]),
    "list for a number": (
        MODEL + "trainer:\n  min_steps: [1, 2]\n",
        ["line 4", "`trainer.min_steps`", "a whole number"],
    ),
    "number for a strategy": (MODEL + "trainer:\n  strategy: 3\n", ["line 4", "a Strategy", "'3'"]),
    "number for the model": ("model: 3\n", ["line 1", "`model`", "a LightningModule"]),
    "unknown short name": (MODEL + "trainer:\n  callbacks:\n  - EarlyStoping\n", ["line 5", "`EarlyStopping`"]),
    "unknown class path": (STOPPING.replace("EarlyS", "EarlyZ") + MODEL, ["line 3", "`EarlyStopping`"]),
    "unknown name in a module": (
        STOPPING.replace("EarlyStopping", "fulmen.callbacks.EarlyStoppin") + MODEL,
        ["line 3", "`fulmen.callbacks.EarlyStopping`"],
    ),
    "unknown module": (
        STOPPING.replace("EarlyStopping", "fulmn.callbacks.EarlyStopping") + MODEL,
        ["line 3", "no module fulmn", "`EarlyStopping`"],
    ),
    "class of another kind": (
        MODEL + "trainer:\n  callbacks:\n  - class_path: fulmen.loggers.CSVLogger\n",
        ["line 5", "a Callback", "fulmen.loggers.CSVLogger is none"],
    ),
    "class that is no module": ("model:\n  class_path: torch.nn.Linear\n", ["line 2", "a LightningModule"]),
    "model that is not there": (f"model:\n  class_path: {HERE}.MistakenModl\n", ["line 2", f"`{HERE}.MistakenModel`"]),
    "module of the model that is not there": ("model:\n  class_path: nowhere.Net\n", ["line 2", "no module nowhere"]),
    "model without a class": ("model:\n  width: 3\n", ["line 2", "class_path"]),
    "class_path misspelt": (MODEL.replace("class_path", "clas_path"), ["line 2", "`class_path`"]),
    "class_path misspelt in a list": (STOPPING.replace("class_path", "classpath") + MODEL, ["line 3", "`class_path`"]),
    "init_args misspelt": (STOPPING.replace("init_args", "init_arg") + MODEL, ["line 4", "`init_args`"]),
    "arguments beside class_path": (MODEL + "  width: 3\n", ["line 3", "init_args"]),
    "unknown argument of the model": (MODEL + "  init_args:\n    widht: 3\n", ["line 4", "`width`"]),
    "wrong type in the model": (
        MODEL + "  init_args:\n    width: wide\n",
        ["line 4", "`width`", "a whole number", "'wide'"],
    ),
    "wrong number in the model": (MODEL + "  init_args:\n    rate: fast\n", ["line 4", "`rate`", "a number", "'fast'"]),
    "not a choice": (MODEL + "  init_args:\n    kind: medium\n", ["line 4", "`kind`", "small", "large", "'medium'"]),
    "not true or false in the model": (MODEL + "  init_args:\n    wide: 3\n", ["line 4", "`wide`", "true or false"]),
    "text for a list": (MODEL + "  init_args:\n    names: x\n", ["line 4", "`names`", "a list"]),
    "unknown class within a class": (
        MODEL + "  init_args:\n    inner:\n      class_path: BoringModl\n",
        ["line 5", "BoringModl"],
    ),
    "unknown argument of a callback": (STOPPING + "      patienc: 3\n" + MODEL, ["line 6", "`patience`"]),
    "wrong type in a callback": (STOPPING + "      patience: long\n" + MODEL, ["line 6", "`patience`", "'long'"]),
    "callback without what it needs": (
        MODEL + "trainer:\n  callbacks:\n  - class_path: EarlyStopping\n",
        ["line 5", "`monitor`", "init_args"],
    ),
    "one callback without what it needs": (MODEL + "trainer:\n  callbacks: EarlyStopping\n", ["line 4", "`monitor`"]),
    "data without what it needs": (MODEL + f"data:\n  class_path: {HERE}.MistakenData\n", ["line 4", "`folder`"]),
    "unknown argument of the data": (
        MODEL + f"data:\n  class_path: {HERE}.MistakenData\n  init_args:\n    folder: x\n    batchsize: 3\n",
        ["line 7", "`batch_size`"],
    ),
    "unknown optimizer": (MODEL + "optimizer: Adem\n", ["line 3", "`Adam`"]),
    "unknown argument of the optimizer": (
        MODEL + "optimizer:\n  class_path: Adam\n  init_args:\n    learning_rate: 0.1\n",
        ["line 6", "Adam takes no `learning_rate`"],
    ),
    "unknown scheduler": (MODEL + "lr_scheduler: StepLr\n", ["line 3", "`StepLR`"]),
    "section of another subcommand": ("test:\n  trainer:\n    max_epochs: 3\n" + MODEL, ["`test`", "`fit`"]),
    "section of this subcommand behind it": ("fit:\n  trainer:\n    max_epochs: 3\n", ["line 1", "--config FILE fit"]),
    "key that stands twice": (
        MODEL + "trainer:\n  max_epochs: 3\n  max_epochs: 4\n",
        ["line 5", "line 4", "second time"],
    ),
    "not YAML": ("model:\n  - x\n trainer: [\n", ["line 3", "not YAML"]),
    "tab": ("trainer:\n\tmax_epochs: 3\n", ["line 2", "tab"]),
    "list": ("- 1\n- 2\n", ["a list", "keys"]),
    "nothing": ("", ["nothing"]),
    "a number for a group": (MODEL + "trainer: 3\n", ["line 3", "`trainer`"]),
    "an argument that the trainer refuses": (MODEL + "trainer:\n  precision: 17\n", ["line 4", "precision=17"]),
    "a choice that the trainer refuses": (MODEL + "trainer:\n  accelerator: cpuu\n", ["line 4", "cpuu"]),
}

#: arguments, and what the message has to say of them
ARGUMENTS: dict[str, tuple[list[str], list[str]]] = {
    "no file": (["--config", "nowhere.yaml", "fit"], ["nowhere.yaml"]),
    "no model": (["fit"], ["`model` is missing", "--model my_module.MyModel"]),
    "unknown option": (["fit", "--trainer.max_epoch=3"], ["--trainer.max_epoch=3", "`--trainer.max_epochs`"]),
    "unknown group": (["fit", "--trainr.max_epochs=3"], ["`--trainer.max_epochs`"]),
    "wrong type": (["fit", "--trainer.max_epochs", "x"], ["--trainer.max_epochs x", "a whole number"]),
    "a word that is no option": (["fit", "max_epochs=3"], ["'max_epochs=3'", "--"]),
    "file that is not there": (["fit", "--config", "nowhere.yaml"], ["no file", "nowhere.yaml"]),
    "argument of the model": (
        ["fit", f"--model={HERE}.MistakenModel", "--model.widht=3"],
        ["--model.widht=3", "`width`"],
    ),
    "argument of a callback": (
        ["fit", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitr=x"],
        ["--trainer.callbacks.monitr=x", "`monitor`"],
    ),
    "data in the place of the model": (
        ["fit", f"--model={HERE}.MistakenData"],
        ["MistakenData is none", "It is a LightningDataModule: write `--data`"],
    ),
    "file of Python": (["fit", "--model", "nets.py"], ["`nets.MyClass`"]),
    "colon": (["fit", "--model", "nets:Net"], ["`nets.Net`"]),
    "callback without what it needs": (
        ["fit", f"--model={HERE}.MistakenModel", "--trainer.callbacks+=EarlyStopping"],
        ["`monitor`", "`--trainer.callbacks.monitor VALUE`"],
    ),
    "argument of the model without its class": (["fit", "--model.width=3"], ["--model.width=3", "--model my_module"]),
}


def message_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err.replace("Seed set to 0\n", "")


@pytest.mark.parametrize("name", FILES, ids=lambda name: name.replace(" ", "-"))
def test_wrong_file_is_told_with_line_and_nearest_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, expected = FILES[name]
    Path("wrong.yaml").write_text(text)
    message = message_of(["fit", "--config", "wrong.yaml"], capsys)
    assert message.startswith("fulmen fit: error: wrong.yaml"), message
    assert [part for part in expected if part not in message] == [], message
    assert message.count("\n") <= 4, message


@pytest.mark.parametrize("name", ARGUMENTS, ids=lambda name: name.replace(" ", "-"))
def test_wrong_argument_is_told_with_nearest_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = ARGUMENTS[name]
    message = message_of(arguments, capsys)
    assert message.startswith("fulmen"), message
    assert [part for part in expected if part not in message] == [], message


def test_key_that_is_wrong_in_one_of_two_files_is_told_with_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(MODEL + "trainer:\n  max_epochs: 3\n")
    Path("bad.yaml").write_text("# the second\ntrainer:\n  max_steps: x\n")
    message = message_of(["fit", "--config", "good.yaml", "--config=bad.yaml"], capsys)
    assert message.startswith("fulmen fit: error: bad.yaml, line 3: `trainer.max_steps` takes a whole number"), message


def test_key_that_is_wrong_in_a_file_for_a_part_is_told_with_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trainer.yaml").write_text("max_epochs: 3\nmax_stepz: 4\n")
    message = message_of(["fit", f"--model={HERE}.MistakenModel", "--trainer", "trainer.yaml"], capsys)
    assert [part for part in ("trainer.yaml, line 2", "max_steps") if part not in message] == [], message


def test_file_before_the_subcommand_without_its_section_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text("trainer:\n  max_epochs: 3\n")
    message = message_of(["--config", "fit.yaml", "fit"], capsys)
    assert [part for part in ("fit.yaml, line", "fit --config FILE") if part not in message] == [], message


def test_file_that_is_not_there_is_told_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text(MODEL)
    assert "Did you mean `digits.yaml`?" in message_of(["fit", "--config", "digit.yaml"], capsys)


def test_error_in_the_module_of_the_model_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("module_that_raises.py").write_text("raise ValueError('the disk is full')\n")
    Path("fit.yaml").write_text("model:\n  class_path: module_that_raises.Net\n")
    message = message_of(["fit", "--config", "fit.yaml"], capsys)
    assert message.splitlines()[-2] == "ValueError: the disk is full"
    assert "module_that_raises.py" in message


def test_error_in_the_constructor_of_the_model_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net_that_raises.py").write_text(
        "from fulmen import LightningModule\n"
        "class Net(LightningModule):\n"
        "    def __init__(self, width: int = 3):\n"
        "        raise ZeroDivisionError('in the constructor')\n"
    )
    with pytest.raises(ZeroDivisionError, match="in the constructor"):
        main(["fit", "--model", "net_that_raises.Net"])
