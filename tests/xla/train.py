"""What is run under torch_xla: training, resuming and evaluating; prints what was found as JSON in the last line."""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import torch
from tests.loops.by_hand import Regressor, loader, sgd, train_by_hand
from torch import Tensor

from fulmen import Trainer
from fulmen.plugins import XLACheckpointIO, XLAPrecision
from fulmen.strategies import SingleDeviceXLAStrategy
from fulmen.utilities.exceptions import MisconfigurationException


class Model(Regressor):
    devices: set[str] = set()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.devices.add(str(batch[0].device))
        loss = self.loss(batch)
        self.log("train", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.loss(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])


def trainer_of(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="xla", default_root_dir=sys.argv[1], **{"devices": 1, **quiet, **arguments})


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """The largest between two parameters."""
    return max(
        float((a.float() - b.float()).abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


torch.manual_seed(1)
first = Model()
whole, stopped, by_hand, half = (copy.deepcopy(first) for _ in range(4))
found: dict[str, Any] = {}

trainer = trainer_of(max_epochs=4, gradient_clip_val=0.5, accumulate_grad_batches=2)
trainer.fit(whole, loader(20), loader(8))
strategy = trainer.strategy
found["strategy"] = isinstance(strategy, SingleDeviceXLAStrategy)
found["plugins"] = isinstance(strategy.checkpoint_io, XLACheckpointIO) and isinstance(
    strategy.precision_plugin, XLAPrecision
)
found["trained_on"] = sorted(Model.devices)
found["steps"] = trainer.global_step
train_by_hand(
    by_hand,
    loader(20),
    4,
    sgd(by_hand),
    accumulate=2,
    before_step=lambda: torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5),
)
found["from_by_hand"] = difference(whole, by_hand)
found["learned"] = difference(whole, first)

stops = trainer_of(max_epochs=2, gradient_clip_val=0.5, accumulate_grad_batches=2)
stops.fit(stopped, loader(20), loader(8))
path = stops.checkpoint_callback.best_model_path  # type: ignore[union-attr]
found["in_file"] = sorted({tensor.device.type for tensor in torch.load(path, weights_only=True)["state_dict"].values()})
resumed = Model()
trainer_of(max_epochs=4, gradient_clip_val=0.5, accumulate_grad_batches=2).fit(
    resumed, loader(20), loader(8), ckpt_path=path
)
found["from_unbroken_run"] = difference(resumed, whole)

found["validated"] = trainer.validate(whole, loader(8), verbose=False)[0]["val"]
with torch.no_grad():
    found["validated_by_hand"] = sum(float(by_hand.loss(batch)) for batch in loader(8)) / 2
predicted = trainer.predict(whole, loader(8))
found["predicted"] = [list(batch.shape) for batch in predicted or []]

processes = copy.deepcopy(first)
by_processes = trainer_of(max_epochs=4, gradient_clip_val=0.5, accumulate_grad_batches=2, strategy="xla")
by_processes.fit(processes, loader(20), loader(8))
found["by_xla"] = [type(by_processes.strategy).__name__, difference(processes, whole)]
found["validated_by_xla"] = by_processes.validate(processes, loader(8), verbose=False)[0]["val"]
found["single_xla"] = type(trainer_of(strategy="single_xla", precision="bf16-true").strategy).__name__
try:
    trainer_of(strategy="xla_debug", devices=2).fit(Model(), loader(20), loader(8))
except MisconfigurationException as error:
    found["several"] = str(error)

trainer_of(max_epochs=1, precision="bf16-true", enable_checkpointing=False).fit(half, loader(20))
found["half"] = str(half.dtype)
print(json.dumps(found))
