"""Compiled steps: no graph break, no second compilation, the same weights and the same values."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

from fulmen import Trainer
from fulmen.loggers import CSVLogger

from .by_hand import Regressor, assert_same_weights, loader

OPTIONS = {"backend": "eager", "fullgraph": True}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class LogsTen(Regressor):
    """Ten values in each training step, in all the ways there are, and two in each validation step."""

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        x, y = batch
        self.log("loss", loss, prog_bar=True)
        self.log("both", loss * 2, on_step=True, on_epoch=True, prog_bar=True)
        self.log("epoch", x.mean(), on_step=False, on_epoch=True)
        self.log("max", y.max(), on_step=False, on_epoch=True, reduce_fx="max")
        self.log("hidden", x.sum(), logger=False)
        self.log("number", 3.0)
        self.log("detached", loss.detach(), on_step=False, on_epoch=True, batch_size=2)
        self.log_dict({"one": x.min(), "two": x.max()}, prog_bar=True)
        self.log("ten", y.min(), sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.loss(batch))
        self.log("val_max", batch[0].max(), reduce_fx="max")


def fit(trainer_of, module, given, tmp_path, **arguments) -> Trainer:
    trainer = trainer_of(
        max_epochs=2, log_every_n_steps=1, logger=CSVLogger(tmp_path), num_sanity_val_steps=0, **arguments
    )
    trainer.fit(given, loader(20), loader(8))
    return trainer


@pytest.mark.parametrize("how", ["argument", "module"])
def test_compiled_steps_that_log_give_the_same_weights_and_values_without_a_graph_break(trainer_of, tmp_path, how):
    torch.manual_seed(1)
    plain = LogsTen()
    module = copy.deepcopy(plain)
    expected = fit(trainer_of, plain, plain, tmp_path / "plain")

    with torch._dynamo.config.patch(error_on_recompile=True):
        if how == "argument":
            trainer = fit(trainer_of, module, module, tmp_path / "compiled", compile=OPTIONS)
        else:
            trainer = fit(trainer_of, module, torch.compile(module, **OPTIONS), tmp_path / "compiled")

    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert_same_weights(module, plain)
    assert {k: v.item() for k, v in trainer.callback_metrics.items()} == {
        k: v.item() for k, v in expected.callback_metrics.items()
    }
    assert trainer.progress_bar_metrics == expected.progress_bar_metrics
    one, other = ((tmp_path / name).rglob("metrics.csv") for name in ("compiled", "plain"))
    assert next(one).read_text() == next(other).read_text()


def test_compiled_steps_with_dropout_and_mixed_precision_give_the_same_weights(trainer_of):
    torch.manual_seed(1)
    plain = Regressor(dropout=0.5)
    module = copy.deepcopy(plain)
    for one, compile in ((plain, None), (module, OPTIONS)):
        torch.manual_seed(2)
        trainer_of(
            max_epochs=2, compile=compile, precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=0.1
        ).fit(one, loader(24, shuffle=True))

    assert_same_weights(module, plain)


def test_compiled_step_that_uses_the_number_of_the_batch_is_soon_compiled_no_more(trainer_of):
    compiled = []

    class UsesNumber(Regressor):
        def training_step(self, batch, batch_idx):
            compiled.append(counters["stats"]["unique_graphs"])
            loss = self.loss(batch) * (1 + batch_idx)
            self.log("number", batch_idx)
            return loss

        def on_train_batch_end(self, outputs, batch, batch_idx):
            compiled.append(counters["stats"]["unique_graphs"])

    module = UsesNumber()
    trainer = trainer_of(max_epochs=2, compile={"backend": "eager"})
    trainer.fit(module, loader(40))

    assert compiled[2] < 5
    assert compiled[-1] == compiled[-16]  # the last sixteen batches compiled nothing
    assert trainer.callback_metrics["number"].item() == 9


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks, after a break
def test_compiled_step_with_a_graph_break_still_logs(trainer_of):
    class Breaks(Regressor):
        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            self.log("before", loss, on_step=False, on_epoch=True)
            torch._dynamo.graph_break()
            self.log("after", loss, on_step=False, on_epoch=True)
            return loss

    trainer = trainer_of(max_epochs=1, compile={"backend": "eager"})
    trainer.fit(Breaks(), loader(20))

    assert trainer.callback_metrics["before"] == trainer.callback_metrics["after"] != 0


def test_compiled_step_that_changes_a_logged_tensor_in_place_keeps_the_logged_value(trainer_of, tmp_path):
    class Counts(Regressor):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def training_step(self, batch, batch_idx):
            self.log("count", self.count, on_step=False, on_epoch=True, reduce_fx="sum")
            self.count += 1
            return self.loss(batch)

    trainer = trainer_of(max_epochs=1, compile=OPTIONS)
    trainer.fit(Counts(), loader(20))

    assert trainer.callback_metrics["count"].item() == 0 + 1 + 2 + 3 + 4


def test_compiled_step_logs_what_a_module_within_the_module_logs(trainer_of):
    class Whole(Regressor):
        def __init__(self):
            super().__init__()
            self.part = LogsItsInput()

        def training_step(self, batch, batch_idx):
            self.part(batch[0])
            return self.loss(batch)

    trainer = trainer_of(max_epochs=1, compile=OPTIONS)
    trainer.fit(Whole(), loader(4))

    (batch,) = loader(4)
    assert trainer.callback_metrics["of_part"] == batch[0].mean()


class LogsItsInput(Regressor):
    def forward(self, x):
        self.log("of_part", x.mean())
        return x


def test_compiled_steps_are_gone_after_the_run(trainer_of):
    module = LogsTen()
    trainer_of(max_epochs=1, compile=OPTIONS).fit(module, loader(4), loader(4))

    assert not {"training_step", "validation_step", "forward", "_compiled_logs"} & module.__dict__.keys()


def test_compiled_steps_of_many_models_in_one_process_compile_once(trainer_of):
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            trainer_of(max_epochs=1, compile=OPTIONS).fit(LogsTen(), loader(8), loader(8))

    assert not counters["graph_break"]


def test_compiled_evaluation_gives_the_same_results(trainer_of):
    module = LogsTen()
    plain = trainer_of().validate(module, loader(10), verbose=False)
    compiled = trainer_of(compile=OPTIONS).validate(module, loader(10), verbose=False)

    assert compiled == plain

    class Predicts(Regressor):
        def forward(self, batch):
            return self.net(batch[0])

    module = Predicts()
    plain = trainer_of().predict(module, loader(8))
    compiled = trainer_of(compile=OPTIONS).predict(module, loader(8))
    assert all(torch.equal(one, other) for one, other in zip(compiled, plain, strict=True))
    assert counters["stats"]["unique_graphs"] > 0
