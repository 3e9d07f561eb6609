"""A run in which the inside of a trainer is read: the same on Lightning and on Fulmen.

With Lightning installed ``python views_run.py RECORD [CHAIN ...]`` writes its values into ``RECORD``: of the chains
that are in there, and of those that are named.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

#: the hooks at which everything is read
MOMENTS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_test_epoch_end",
    "on_predict_epoch_end",
)


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(2) * index


def value_of(trainer: Any, chain: str) -> Any:
    """What ``chain`` gives, as JSON can hold it; of other objects the kind."""
    try:
        value = functools.reduce(getattr, chain.split("."), trainer)
        value = value() if callable(value) else value
    except Exception as error:
        return type(error).__name__
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list) and all(isinstance(one, (int, float)) for one in value):
        return value
    return type(value).__name__


def values(lightning: Any, chains: list[str]) -> dict[str, dict[str, Any]]:
    """What each chain gives at each moment of a run with automatic, and of one with manual optimization."""

    class Model(lightning.LightningModule):
        def __init__(self, manual: bool) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.automatic_optimization = not manual

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).sum()
            if not self.automatic_optimization:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("value", self.layer(batch).sum())

        test_step = validation_step

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.001)

        def train_dataloader(self) -> Any:
            return DataLoader(Rows(), batch_size=2)

    found: dict[str, dict[str, Any]] = {}

    def note(moment: str, trainer: Any) -> None:
        found.setdefault(moment, {chain: value_of(trainer, chain) for chain in chains})

    def reader(name: str, mode: str) -> Any:
        def read(self: Any, trainer: Any, *args: Any) -> None:
            batch = args[-1] if "batch" in name else ""
            note(f"{mode} {name} {trainer.current_epoch} {batch}".strip(), trainer)

        return read

    for manual in (False, True):
        mode = "manual" if manual else "automatic"
        reading = type("Reading", (lightning.Callback,), {name: reader(name, mode) for name in MOMENTS})()
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[reading],
            default_root_dir=tempfile.mkdtemp(),
            num_sanity_val_steps=0,
            accumulate_grad_batches=1 if manual else 2,
        )
        module, loader = Model(manual), DataLoader(Rows(), batch_size=3)
        trainer.fit(module, val_dataloaders=loader)
        note(f"{mode} after fit", trainer)
        if not manual:
            trainer.test(module, loader, verbose=False)
            trainer.predict(module, loader)
    return found


def recorded(read: dict[str, dict[str, Any]], chains: list[str]) -> str:
    """As text: the moments, and a line for each chain, with its values and for how many moments each lasts."""
    lines = [json.dumps("moments") + ": " + json.dumps([*read])]
    for chain in chains:
        runs = [[value, len([*group])] for value, group in itertools.groupby(read[moment][chain] for moment in read)]
        lines.append(f"{json.dumps(chain)}: {json.dumps(runs)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def told(record: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The value of each chain at each moment of a record."""
    moments = record["moments"]
    return {
        (chain, moment): value
        for chain, runs in record.items()
        if chain != "moments"
        for moment, value in zip(moments, [value for value, count in runs for _ in range(count)], strict=True)
    }


if __name__ == "__main__":
    import lightning.pytorch

    record, *more = sys.argv[1:]
    chains = [*dict.fromkeys([*json.loads(Path(record).read_text()), *more])][1:]
    with contextlib.redirect_stdout(io.StringIO()):
        read = values(lightning.pytorch, chains)
    Path(record).write_text(recorded(read, chains) + "\n")
