"""The same training, by hand and in each framework.

A contender is a function of a task, a clock and ``everything_on``. It trains once and calls the clock at the start of
every training step. With ``everything_on`` it also shows a progress bar with the loss, logs the loss every 50 steps and
writes a checkpoint at the end of every epoch; without, it does nothing but train.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from measuring import Clock
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True, slots=True)
class Task:
    """What to train."""

    make_model: Callable[[], nn.Module]
    loss_of: Callable[[nn.Module, Any], Tensor]
    batches: DataLoader
    val_batches: DataLoader | None = None
    epochs: int = 1


Contender = Callable[[Task, Clock, bool], None]


def one_layer(batches: int, val_batches: int = 0, epochs: int = 1) -> Task:
    """A linear layer from 32 to 2 features, batches of 4."""

    def loader(count: int) -> DataLoader:
        return DataLoader(TensorDataset(torch.randn(count * 4, 32)), batch_size=4)

    return Task(
        make_model=lambda: nn.Linear(32, 2),
        loss_of=lambda model, batch: model(batch[0]).sum(),
        batches=loader(batches),
        val_batches=loader(val_batches) if val_batches else None,
        epochs=epochs,
    )


class SmallGPT(nn.Module):
    """Four blocks of width 128 with four heads over a vocabulary of 256."""

    def __init__(self, width: int = 128, depth: int = 4, length: int = 128, vocabulary: int = 256) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places
        for block in self.blocks:
            x = block(x, src_mask=self.mask, is_causal=True)
        return self.head(x)


def small_gpt(batches: int) -> Task:
    """A small GPT on batches of 8 x 128 tokens."""

    def loss_of(model: nn.Module, batch: list[Tensor]) -> Tensor:
        logits = model(batch[0])
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[0][:, 1:].flatten())

    tokens = torch.randint(0, 256, (batches * 8, 128))
    return Task(SmallGPT, loss_of, DataLoader(TensorDataset(tokens), batch_size=8))


def plain(task: Task, clock: Clock, everything_on: bool) -> None:
    """The loop as everyone writes it: what the others are compared with. It never shows or writes anything."""
    model = task.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(task.epochs):
        model.train()
        for batch in task.batches:
            clock()
            loss = task.loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if task.val_batches is not None:
            model.eval()
            with torch.no_grad():
                for batch in task.val_batches:
                    task.loss_of(model, batch)


def trainer_of(package_name: str, task: Task, clock: Clock, everything_on: bool) -> None:
    """A ``LightningModule`` and a ``Trainer`` from the package of that name."""
    package = importlib.import_module(package_name)

    class Module(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.make_model()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            clock()
            loss = task.loss_of(self.model, batch)
            if everything_on:
                self.log("loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            task.loss_of(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    with tempfile.TemporaryDirectory() as directory:
        trainer = package.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=task.epochs,
            num_sanity_val_steps=0,
            default_root_dir=directory,
            **({} if everything_on else dict.fromkeys(off, False)),
        )
        trainer.fit(Module(), task.batches, task.val_batches)


def ignite(task: Task, clock: Clock, everything_on: bool) -> None:
    """Ignite's ``Engine`` around a hand-written update."""
    from ignite.engine import Engine, Events

    model = task.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def update(engine: Engine, batch: Any) -> Tensor:
        clock()
        loss = task.loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def check(engine: Engine, batch: Any) -> None:
        with torch.no_grad():
            task.loss_of(model, batch)

    trainer, evaluator = Engine(update), Engine(check)
    if task.val_batches is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: (model.eval(), evaluator.run(task.val_batches)))
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    with tempfile.TemporaryDirectory() as directory:
        if everything_on:
            _ignite_extras(trainer, model, optimizer, directory)
        trainer.run(task.batches, max_epochs=task.epochs)


def _ignite_extras(trainer: Any, model: nn.Module, optimizer: torch.optim.Optimizer, directory: str) -> None:
    from ignite.engine import Events
    from ignite.handlers import ModelCheckpoint, ProgressBar, TensorboardLogger
    from ignite.metrics import RunningAverage

    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    ProgressBar().attach(trainer, ["loss"])
    logger = TensorboardLogger(log_dir=directory)
    every_50 = Events.ITERATION_COMPLETED(every=50)
    logger.attach_output_handler(trainer, every_50, tag="train", metric_names=["loss"])
    trainer.add_event_handler(Events.COMPLETED, logger.close)
    checkpoint = ModelCheckpoint(directory, n_saved=1, require_empty=False)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint, {"model": model, "optimizer": optimizer})


def huggingface(task: Task, clock: Clock, everything_on: bool) -> None:
    """The ``Trainer`` of transformers. It has no evaluation within an epoch's end here and shows its own bar."""
    from transformers import Trainer, TrainingArguments

    class HandedLoader(Trainer):
        def get_train_dataloader(self) -> DataLoader:
            return task.batches

        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Tensor:
            clock()
            return task.loss_of(model, inputs)

    model = task.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            num_train_epochs=task.epochs,
            use_cpu=True,
            max_grad_norm=0.0,
            logging_steps=50,
            logging_strategy="steps" if everything_on else "no",
            save_strategy="epoch" if everything_on else "no",
            disable_tqdm=not everything_on,
            report_to=["tensorboard"] if everything_on else [],
            dataloader_pin_memory=False,
        )
        trainer = HandedLoader(model, arguments, train_dataset=task.batches.dataset, optimizers=(optimizer, schedule))
        trainer.train()


def installed() -> dict[str, Contender]:
    """The contenders whose package can be imported, the plain loop first."""
    packages: dict[str, tuple[str, Contender]] = {
        "fulmen": ("fulmen", partial(trainer_of, "fulmen")),
        "lightning": ("lightning", partial(trainer_of, "lightning.pytorch")),
        "ignite": ("ignite", ignite),
        "transformers": ("transformers", huggingface),
    }
    found = {name: each for name, (package, each) in packages.items() if importlib.util.find_spec(package) is not None}
    return {"plain loop": plain, **found}
