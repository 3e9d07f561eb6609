"""A small terminal for tests, which can be read as a person would see it, and small models to run before it."""

from __future__ import annotations

import io
import re
import sys

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fulmen.core.module import LightningModule
from fulmen.trainer.trainer import Trainer

_PIECES = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|\x1b\](?:[^\x07\x1b]*)(?:\x07|\x1b\\)|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen(io.TextIOBase):
    """Understands what rich and tqdm write: text, the ends of lines, cursor up, erase in line, show and hide cursor."""

    encoding = "utf-8"

    def __init__(self, columns: int = 100) -> None:
        self.columns = columns
        self.rows = [""]
        self.row = self.column = 0
        self.cursor_visible = True
        self.frames: list[str] = []
        self.written = ""
        self.greeted = False

    def __enter__(self) -> Screen:
        """Take the place of stdout (not in a fixture: pytest sets stdout anew before the test itself)."""
        self._stdout, sys.stdout = sys.stdout, self
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stdout

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("not a real terminal")

    def write(self, text: str) -> int:
        if text.startswith("fit on cpu in ") or (self.greeted and text == "\n"):  # see without_greeting
            self.greeted = text != "\n"
            return len(text)
        self.written += text
        for question, numbers, command, carriage_return, line_feed, plain in _PIECES.findall(text):
            if carriage_return:
                self.column = 0
            elif line_feed:
                self.row, self.column = self.row + 1, 0
                while len(self.rows) <= self.row:
                    self.rows.append("")
            elif plain:
                self._put(plain)
            elif command == "A":
                self.row = max(0, self.row - int(numbers or 1))
            elif command == "K" and numbers == "2":
                self.rows[self.row] = ""
            elif question and numbers == "25":
                self.cursor_visible = command == "h"
        self.frames.append(self.text)
        return len(text)

    def _put(self, text: str) -> None:
        for character in text:
            if self.column >= self.columns:  # the terminal wraps
                self.write("\n")
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    @property
    def lines(self) -> list[str]:
        """The lines with something on them."""
        return [line.rstrip() for line in self.rows if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def without_greeting(text: str) -> str:
    """The text without the line with which the trainer tells what it will fit."""
    return re.sub(r"^fit on cpu in .*\n", "", text, flags=re.MULTILINE)


class Model(LightningModule):
    """Logs its losses for the bar."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.layer(batch).pow(2).mean(), prog_bar=True)

    def predict_step(self, batch, batch_idx):
        return self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ValidatedModel(Model):
    """Logs ``val_loss`` besides."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.layer(batch).pow(2).mean(), prog_bar=True)


class _Rows(IterableDataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return iter(torch.ones(self.count, 2))


def batches(count: int, sized: bool = True) -> DataLoader:
    """A loader of ``count`` batches, which knows its length if ``sized``."""
    return DataLoader(_Tensors(torch.ones(count, 2)) if sized else _Rows(count))


class _Tensors(TensorDataset):
    def __getitem__(self, index):
        return super().__getitem__(index)[0]


def trainer_with(*callbacks, **settings) -> Trainer:
    """A trainer with these callbacks and nothing that writes files."""
    settings = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **settings,
    }
    return Trainer(callbacks=list(callbacks), **settings)
