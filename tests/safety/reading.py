"""Reads the whole corpus in each way of loading, under watch, in a process of its own.

``python -m tests.safety.reading FOLDER`` writes one line of JSON for each case and way to stdout: what came of it, what
was imported, run, opened or connected meanwhile, and what it cost.
"""

# annotations are objects here: where they are text, Python runs them when it looks for enums among the parameters
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fulmen import LightningDataModule, LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.plugins.io import TorchCheckpointIO
from fulmen.utilities import cloud_io

from . import corpus, wrong_values

#: how much memory one process may ask for beyond what it has when the corpus begins
ROOM = 2**30
_WATCHED = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "pty.", "urllib.", "ctypes.")
#: what a run does by itself
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")


class Model(LightningModule):
    """Takes any hyperparameters, and trains."""

    def __init__(self, width: int = 2, **others: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).sum()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).sum())

    test_step = validation_step

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Data(LightningDataModule):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.ones(self.hparams["size"], 2), batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 3}


def trainer_in(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=True, num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(folder / "checkpoints", save_top_k=0), EarlyStopping("loss", patience=9)],
    )  # fmt: skip


def honest_checkpoint(folder: Path) -> dict[str, Any]:
    trainer = trainer_in(folder)
    trainer.max_epochs = 1
    trainer.fit(Model(), datamodule=Data())
    trainer.save_checkpoint(folder / "honest.ckpt")
    return torch.load(folder / "honest.ckpt", weights_only=True)


def ways_in(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Every public way to load a checkpoint."""

    def run(verb: str) -> Callable[[Path], Any]:
        return lambda path: getattr(trainer_in(folder), verb)(Model(), datamodule=Data(), ckpt_path=path)

    return {
        "fit": run("fit"),
        "validate": run("validate"),
        "test": run("test"),
        "predict": run("predict"),
        "module": Model.load_from_checkpoint,
        "datamodule": Data.load_from_checkpoint,
        "plugin": TorchCheckpointIO().load_checkpoint,
        "function": cloud_io.load,
    }


READERS = ("plugin", "function", "datamodule")  # do not look at the values, which are the caller's
TRAINER = ("fit", "validate", "test", "predict")


def files_and_ways(honest: dict[str, Any]) -> Iterator[tuple[str, bytes, list[str]]]:
    """Each case with the ways that it is to be refused in. One reader is below them all, so that of attacks on it alone
    each goes through two of them, in turn.
    """
    names = list(ways_in(Path()))
    for number, (case, data, in_every_way) in enumerate(corpus.cases(honest)):
        yield case, data, names if in_every_way else ["function", names[number % (len(names) - 1)]]
    for group, changes, ways in (
        ("training", wrong_values.WRONG_FOR_TRAINING, ["fit"]),
        ("all", wrong_values.WRONG_FOR_ALL, [*TRAINER, "module"]),
        ("constructor", wrong_values.WRONG_FOR_CONSTRUCTORS, ["module"]),
    ):
        for case, change in changes.items():
            changed = deepcopy(honest)
            change(changed)
            yield f"wrong for {group}: {case}", corpus.saved(changed), ways


class Watch:
    """Notes what happens while it is on: imports, code that is run, processes, connections, files opened to write."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or _is_an_annotation(event, arguments):
            return
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            if any(letter in str(mode or "") for letter in "wxa+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
                self.events.append(f"open {arguments[0]}")
        elif event.startswith(_WATCHED) and event not in _HARMLESS:
            self.events.append(f"{event} {str(arguments)[:100]}")


def _is_an_annotation(event: str, arguments: tuple[Any, ...]) -> bool:
    """Python runs the annotations of the constructors above ``Model``, which are text, to see what they allow."""
    if event == "compile":
        return arguments[0] == b"Any"
    return event == "exec" and arguments[0].co_names == ("Any",) and arguments[0].co_filename == "<string>"


def outcome(way: Callable[[Path], Any], path: Path, watch: Watch) -> dict[str, Any]:
    """What comes of loading ``path``."""
    modules, began = set(sys.modules), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch.events.clear()
    kinds: list[str] = []
    said = ""
    watch.on = True
    try:
        way(path)
    except BaseException as error:
        watch.on = False
        kinds, said = [cls.__name__ for cls in type(error).__mro__], str(error)
    finally:
        watch.on = False
    return {
        "error": kinds,
        "text": said,
        "events": list(watch.events),
        "imported": sorted(set(sys.modules) - modules),
        "seconds": time.process_time() - began,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) // 1024,
        "marks": sorted(entry.name for entry in Path().iterdir() if entry.name.startswith("mark_")),
    }


def main(folder: Path) -> None:
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what runs say of themselves
    warnings.simplefilter("ignore")
    os.chdir(folder)
    (folder / f"{corpus.CANARY}.py").write_text(
        "open('mark_of_an_import', 'w')\ndef leave_mark(*_):\n    open('mark_of_a_call', 'w')\n"
    )
    sys.path.insert(0, str(folder))
    honest = honest_checkpoint(folder)
    ways = ways_in(folder)
    path = folder / "hostile.ckpt"
    warm_up(ways, folder, honest)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    watch = Watch()
    for case, data, names in files_and_ways(honest):
        path.write_bytes(data)
        for name in names:
            print(json.dumps({"case": case, "way": name} | outcome(ways[name], path, watch)), file=lines, flush=True)
    path.write_bytes(corpus.saved(honest))
    for name, way in ways.items():
        print(json.dumps({"case": "honest", "way": name} | outcome(way, path, watch)), file=lines, flush=True)
    path.write_bytes(corpus.with_value(honest, ("anything",), corpus.VALUES["reduce_canary"]))
    control = outcome(lambda path: cloud_io.load(path, weights_only=False), path, watch)
    print(json.dumps({"case": "control", "way": "weights_only=False"} | control), file=lines, flush=True)


def warm_up(ways: dict[str, Callable[[Path], Any]], folder: Path, honest: dict[str, Any]) -> None:
    """What is imported when it is first used, by us, by torch and by Python, is imported now."""
    for data in (corpus.saved(honest), corpus.archive_of({"a/b": b""}), b"\x80\x02", b"no"):
        (folder / "warm.ckpt").write_bytes(data)
        for way in ways.values():
            with suppress(Exception):  # only the honest one loads
                way(folder / "warm.ckpt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
