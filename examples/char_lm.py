"""A character language model: a small transformer that learns to write Python from Python's own standard library.

    python examples/char_lm.py --help
    python examples/char_lm.py --max-steps 1000

Nothing is downloaded: the text is a fixed list of modules of the interpreter that runs this file, so it is the same on
every run with one version of Python. The loss is given in bits per character, on modules that are not trained on:
guessing blindly costs 6.6, knowing how often each character occurs 4.6. A thousand steps take about four minutes on one
core and come to about 2.5.
"""

from __future__ import annotations

import argparse
import math
import string
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningDataModule, LightningModule, Trainer, seed_everything
from fulmen.callbacks import LearningRateMonitor, ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.utilities.types import OptimizerLRScheduler

TRAIN_MODULES = """
argparse ast bdb calendar cmd codecs collections/__init__ concurrent/futures/thread configparser contextlib copy csv
dataclasses doctest email/message enum fileinput fractions ftplib functools gettext gzip http/client http/server inspect
ipaddress json/decoder json/encoder locale logging/__init__ logging/config mailbox mimetypes multiprocessing/pool
optparse os pdb pickle pickletools platform plistlib posixpath pprint profile random sched shelve shlex shutil
smtplib socket socketserver sqlite3/dump ssl string subprocess tarfile tempfile textwrap threading timeit tokenize
trace traceback turtle typing unittest/case unittest/mock urllib/parse urllib/request uuid warnings weakref webbrowser
xml/dom/minidom
""".split()
VALIDATION_MODULES = "difflib heapq queue statistics".split()

ALPHABET = string.printable  # 100 characters; whatever else a file holds is read as "?"
CODES = {character: code for code, character in enumerate(ALPHABET)}


def read_modules(names: Sequence[str]) -> Tensor:
    """The sources of these modules of the standard library one after another, as a tensor of character codes.

    A module that this version of Python does not have as one file is left out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [root / f"{name}.py" for name in names]
    text = "".join(path.read_text(encoding="utf-8") for path in paths if path.exists())
    return encode(text)


def encode(text: str) -> Tensor:
    return torch.tensor([CODES.get(character, CODES["?"]) for character in text])


def decode(codes: Tensor) -> str:
    return "".join(ALPHABET[code] for code in codes.tolist())


class Windows(Dataset[Tensor]):
    """A text cut into pieces of ``length`` characters, each with the one character that follows it."""

    def __init__(self, codes: Tensor, length: int) -> None:
        self.codes = codes
        self.length = length

    def __len__(self) -> int:
        return (len(self.codes) - 1) // self.length

    def __getitem__(self, index: int) -> Tensor:
        start = index * self.length
        return self.codes[start : start + self.length + 1]


class PythonSources(LightningDataModule):
    """Modules of the standard library: many to train on, and a few others to validate on.

    Args:
        context: characters per piece of text.
        batch_size: pieces per batch.
    """

    def __init__(self, context: int = 128, batch_size: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.train_windows = Windows(read_modules(TRAIN_MODULES), self.hparams.context)
        self.val_windows = Windows(read_modules(VALIDATION_MODULES), self.hparams.context)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_windows, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_windows, batch_size=self.hparams.batch_size)


class Block(nn.Module):
    """Attention to the characters so far, then a feed-forward network, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        projected = self.query_key_value(self.norm_attention(x))
        query, key, value = projected.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed_forward(self.norm_forward(x))


class CharacterModel(LightningModule):
    """A transformer that predicts the next character.

    Args:
        context: the longest text, in characters, that it looks back on.
        width: features per character; a multiple of ``heads``.
        layers: number of blocks.
        heads: attention heads per block.
        learning_rate: the highest one; it rises over the first tenth of the training and then falls to nearly zero.
    """

    def __init__(
        self, context: int = 128, width: int = 96, layers: int = 3, heads: int = 4, learning_rate: float = 3e-3
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, len(ALPHABET), bias=False)
        nn.init.normal_(self.characters.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        """The scores of the next character after each of ``codes``: integers, shape ``(batch, length <= context)``."""
        positions = torch.arange(codes.shape[1], device=codes.device)
        return self.scores(self.norm(self.blocks(self.characters(codes) + self.positions(positions))))

    def loss(self, windows: Tensor) -> Tensor:
        """The mean cross-entropy, in nats per character."""
        scores = self(windows[:, :-1])
        return F.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_bits", loss.detach() / math.log(2), prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_bits", self.loss(batch) / math.log(2), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams.learning_rate, steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def sample(self, start: str, length: int, temperature: float = 0.7) -> str:
        """``start`` continued by ``length`` characters; a lower ``temperature`` keeps closer to the likeliest ones."""
        codes = encode(start).to(self.device)[None]
        for _ in range(length):
            scores = self(codes[:, -self.hparams.context :])[:, -1] / temperature
            codes = torch.cat([codes, torch.multinomial(scores.softmax(dim=-1), 1)], dim=1)
        return decode(codes[0])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--max-steps", type=int, default=1000, help="optimizer steps to train for")
    parser.add_argument("--val-every", type=int, default=200, help="training batches between two validations")
    parser.add_argument("--context", type=int, default=128, help="characters that the model looks back on")
    parser.add_argument("--width", type=int, default=96, help="features per character")
    parser.add_argument("--layers", type=int, default=3, help="transformer blocks")
    parser.add_argument("--heads", type=int, default=4, help="attention heads per block")
    parser.add_argument("--batch-size", type=int, default=32, help="pieces of text per batch")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default="char_lm_runs", help="the folder for metrics and checkpoints")
    parser.add_argument("--resume", metavar="CKPT", help="go on from this checkpoint")
    parser.add_argument("--start", default="def ", help="what the sample at the end begins with")
    parser.add_argument("--sample-length", type=int, default=400, help="characters of the sample")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> float:
    """Train, validate and sample as the command line says; returns the validation loss in bits per character."""
    arguments = parse_arguments(argv)
    seed_everything(arguments.seed)
    datamodule = PythonSources(arguments.context, arguments.batch_size)
    model = CharacterModel(
        arguments.context, arguments.width, arguments.layers, arguments.heads, arguments.learning_rate
    )
    trainer = Trainer(
        max_steps=arguments.max_steps,
        val_check_interval=arguments.val_every,
        check_val_every_n_epoch=None,  # count batches over the whole run, not within each epoch
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=CSVLogger(arguments.dir, name=None),
        callbacks=[ModelCheckpoint(monitor="val_bits", save_top_k=3, save_last=True), LearningRateMonitor("step")],
    )
    trainer.fit(model, datamodule=datamodule, ckpt_path=arguments.resume)
    [result] = trainer.validate(model, datamodule=datamodule)
    print(f"\n{result['val_bits']:.3f} bits per character on modules it has not read. It writes:\n")
    print(model.eval().sample(arguments.start, arguments.sample_length))
    return result["val_bits"]


if __name__ == "__main__":
    main()
