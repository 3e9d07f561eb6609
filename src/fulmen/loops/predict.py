"""Prediction, in the order in which it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulmen.loops.evaluate import in_evaluation_mode, run_ghost
from fulmen.loops.progress import ABSENT
from fulmen.utilities.apply_func import apply_to_collection
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def predict_loop(trainer: Trainer) -> list[Any] | None:
    """Predict all batches of all loaders.

    Returns:
        What ``predict_step`` returned, tensors on the CPU: a list of batches, or a list of such lists if there are
        several loaders; of all processes, in the order of one. None if predictions are not kept, or there was nothing
        to predict.
    """
    data, metrics = trainer.data, trainer.metrics
    loaders = data.evaluation_loaders("predict")
    if not loaders.num_batches or not any(loaders.num_batches):
        return None
    call = trainer.plan
    predictions: list[list[Any]] = [[] for _ in loaders.num_batches]
    outer = metrics.begin_evaluation("predict")
    with trainer.without_gradients(), in_evaluation_mode(trainer.lightning_module, call.on_predict_model_eval, None):
        call.on_predict_start()
        call.on_predict_epoch_start()
        for batch_idx, batch, dataloader_idx in data.evaluation_batches(loaders):  # already on the device
            position = (batch_idx, dataloader_idx) if loaders.several else (batch_idx,)
            if batch is ABSENT:  # other processes have one
                run_ghost(trainer, call.predict_step, position)
                continue
            call.on_predict_batch_start(batch, *position)
            prediction = call.predict_step(batch, *position)
            if prediction is None and trainer.keeps_predictions:
                rank_zero_warn(
                    "`predict_step` returned None. Return the predictions, or set `return_predictions=False`."
                )
            call.on_predict_batch_end(prediction, batch, *position)
            if trainer.keeps_predictions:
                predictions[dataloader_idx].append(apply_to_collection(prediction, Tensor, Tensor.cpu))
        trainer.predictions = predictions[0] if len(predictions) == 1 else predictions
        call.on_predict_epoch_end()
        if trainer.keeps_predictions:
            predictions = data.of_all_processes(predictions)
            trainer.predictions = predictions[0] if len(predictions) == 1 else predictions
        call.on_predict_end()
    metrics.finish_evaluation(outer)
    return trainer.predictions if trainer.keeps_predictions else None
