"""What a verb of the Trainer that has run in new processes brings back to the process that asked for it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from fulmen.strategies.launchers.multiprocessing import sendable

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def answer_of(trainer: Trainer, result: Any) -> dict[str, Any]:
    """What the process that asked needs of a finished verb."""
    metrics = trainer.metrics
    return {
        "result": result,
        "weights": {name: tensor.cpu() for name, tensor in trainer.lightning_module.state_dict().items()},
        "state": (trainer.state.fn, trainer.state.status, trainer.state.stage),
        "metrics": (dict(metrics.callback), dict(metrics.logged), dict(metrics.progress_bar)),
        "progress": trainer.progress,
        "callbacks": [_sent(callback) for callback in trainer.callbacks],
        "versions": [getattr(logger, "_version", None) for logger in trainer.loggers],
    }


def _sent(callback: Any) -> bytes | None:
    """The attributes of a callback; those that cannot be sent stay behind."""
    found = {}
    for name, value in vars(callback).items():
        try:
            found[name] = sendable(value)
        except Exception:
            continue
    return pickle.dumps(found)


def take_answer(trainer: Trainer, answer: dict[str, Any]) -> Any:
    """Make the trainer of this process one that has run the verb; returns what the verb did."""
    trainer.lightning_module.load_state_dict(answer["weights"], strict=False)
    trainer.state.fn, trainer.state.status, trainer.state.stage = answer["state"]
    trainer.progress = answer["progress"]
    metrics = trainer.metrics
    for window, values in zip((metrics.callback, metrics.logged, metrics.progress_bar), answer["metrics"]):
        window.clear()
        window.update(values)
    for callback, sent in zip(trainer.callbacks, answer["callbacks"]):
        for name, data in pickle.loads(sent).items():
            setattr(callback, name, pickle.loads(data))
    for logger, version in zip(trainer.loggers, answer["versions"]):
        if getattr(logger, "_version", "") is None:  # it was to be found out, and was
            vars(logger)["_version"] = version
    return answer["result"]
