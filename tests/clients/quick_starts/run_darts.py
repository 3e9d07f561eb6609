"""Forecasting with networks as darts' documentation shows it: fit, predict, callbacks, files, checkpoints."""

import numpy as np
import pytest
import torch
from darts import TimeSeries
from darts.models import BlockRNNModel, NBEATSModel, NLinearModel, TCNModel
from pytorch_lightning.callbacks import Callback, EarlyStopping
from torchmetrics import MeanAbsoluteError

QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
}


def series(n=72):
    values = np.sin(np.arange(n) * 2 * np.pi / 12) + np.random.default_rng(0).normal(0, 0.05, n)
    return TimeSeries.from_values(values.astype(np.float32))


def network(cls=NLinearModel, **options):
    more = options.pop("pl_trainer_kwargs", {})
    return cls(
        input_chunk_length=12,
        output_chunk_length=4,
        n_epochs=options.pop("n_epochs", 3),
        random_state=0,
        pl_trainer_kwargs={**QUIET, **more},
        **options,
    )


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (NLinearModel, {}),
        (TCNModel, {"num_filters": 2}),
        (BlockRNNModel, {"model": "LSTM", "hidden_dim": 4}),
        (NBEATSModel, {"num_stacks": 2, "num_blocks": 1, "num_layers": 1, "layer_widths": 8}),
    ],
)
def test_model_forecasts(cls, options):
    model = network(cls, **options)
    model.fit(series())
    assert model.epochs_trained == 3
    forecast = model.predict(8)
    assert len(forecast) == 8
    assert np.isfinite(forecast.values()).all()


def test_forecasts_are_the_same_for_the_same_seed():
    first, second = network(), network()
    first.fit(series())
    second.fit(series())
    assert np.array_equal(first.predict(4).values(), second.predict(4).values())


def test_fitting_goes_on_where_it_stopped():
    model = network(n_epochs=2)
    model.fit(series())
    model.fit(series(), epochs=3)
    assert model.epochs_trained in (3, 5)


def test_callbacks_and_metrics_hear_of_the_training():
    class Losses(Callback):
        def __init__(self):
            self.train, self.validation = [], []

        def on_train_epoch_end(self, trainer, pl_module):
            self.train.append(trainer.callback_metrics["train_loss"].item())

        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                self.validation.append(trainer.callback_metrics["val_loss"].item())

    losses = Losses()
    model = network(torch_metrics=MeanAbsoluteError(), pl_trainer_kwargs={"callbacks": [losses]})
    model.fit(series(48), val_series=series(72)[48:])
    assert len(losses.train) == len(losses.validation) == 3
    assert "val_MeanAbsoluteError" in model.trainer.callback_metrics


def test_training_stops_early():
    stop = EarlyStopping(monitor="train_loss", patience=1, min_delta=100.0)
    model = network(n_epochs=20, pl_trainer_kwargs={"callbacks": [stop]})
    model.fit(series())
    assert model.epochs_trained == 2


def test_best_model_is_loaded_from_its_checkpoints(tmp_path):
    model = network(save_checkpoints=True, force_reset=True, work_dir=str(tmp_path), model_name="nlinear")
    model.fit(series(48), val_series=series(72)[48:])
    best = NLinearModel.load_from_checkpoint("nlinear", work_dir=str(tmp_path), best=True)
    last = NLinearModel.load_from_checkpoint("nlinear", work_dir=str(tmp_path), best=False)
    assert len(best.predict(4, series=series())) == 4
    assert np.allclose(last.predict(4, series=series()).values(), model.predict(4, series=series()).values())


def test_model_is_saved_and_loaded(tmp_path):
    model = network()
    model.fit(series())
    model.save(str(tmp_path / "model.pt"))
    again = NLinearModel.load(str(tmp_path / "model.pt"))
    again.to_cpu()
    assert np.allclose(again.predict(4).values(), model.predict(4).values())


def test_rate_follows_a_scheduler():
    model = network(
        optimizer_kwargs={"lr": 0.1},
        lr_scheduler_cls=torch.optim.lr_scheduler.ExponentialLR,
        lr_scheduler_kwargs={"gamma": 0.5},
    )
    model.fit(series())
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)


def test_history_is_forecast():
    model = network()
    model.fit(series())
    assert len(model.historical_forecasts(series(), forecast_horizon=4, retrain=False)) > 10
