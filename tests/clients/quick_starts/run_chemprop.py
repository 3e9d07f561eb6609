"""Training, validation, prediction and transfer as chemprop's documentation shows them, on a few molecules."""

import numpy as np
import pytest
import torch
from chemprop import data, featurizers, models, nn
from lightning import pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

SMILES = "C CC CCC CCO CCN c1ccccc1 Cc1ccccc1 CCCl CC(=O)O CCOC CC#N CCCC OCCO NCCN CC(C)C C=C".split()


def molecules():
    return [data.MoleculeDatapoint.from_smi(smiles, np.array([float(len(smiles))])) for smiles in SMILES]


def loaders():
    featurizer = featurizers.SimpleMoleculeMolGraphFeaturizer()
    train = data.MoleculeDataset(molecules()[:12], featurizer)
    scaler = train.normalize_targets()
    rest = data.MoleculeDataset(molecules()[12:], featurizer)
    rest.normalize_targets(scaler)
    test = data.MoleculeDataset(molecules()[12:], featurizer)
    made = [data.build_dataloader(part, batch_size=4, shuffle=part is train, seed=0) for part in (train, rest, test)]
    return *made, scaler


def model(scaler=None):
    torch.manual_seed(0)
    transform = None if scaler is None else nn.UnscaleTransform.from_standard_scaler(scaler)
    head = nn.RegressionFFN(output_transform=transform)
    metrics = [nn.metrics.RMSE(), nn.metrics.MAE()]
    return models.MPNN(nn.BondMessagePassing(), nn.MeanAggregation(), head, batch_norm=True, metrics=metrics)


def trainer(tmp_path, *callbacks, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=tmp_path,
        max_epochs=options.pop("max_epochs", 3),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=[*callbacks],
        **options,
    )


def test_network_is_trained_and_tested(tmp_path):
    train, validation, test, scaler = loaders()
    run, network = trainer(tmp_path), model(scaler)
    run.fit(network, train, validation)
    assert {"train_loss", "val_loss", "train_loss_epoch"} <= {*run.callback_metrics}
    (result,) = run.test(network, test, verbose=False)
    assert set(result) == {"test/rmse", "test/mae"}


def test_predictions_are_those_of_a_loop_written_by_hand(tmp_path):
    train, validation, test, scaler = loaders()
    run, network = trainer(tmp_path), model(scaler)
    run.fit(network, train, validation)
    predictions = torch.cat(run.predict(network, test))
    network.eval()
    with torch.no_grad():
        by_hand = torch.cat([network(batch.bmg, batch.V_d, batch.X_d) for batch in test])
    assert torch.equal(predictions, by_hand)


def test_best_network_is_loaded_from_its_file(tmp_path):
    train, validation, test, scaler = loaders()
    keeps = ModelCheckpoint(tmp_path / "kept", "best-{epoch}-{val_loss:.2f}", "val_loss", mode="min", save_last=True)
    run, network = trainer(tmp_path, keeps), model(scaler)
    run.fit(network, train, validation)
    best = models.MPNN.load_from_checkpoint(keeps.best_model_path)
    before = torch.cat(run.predict(network, test, ckpt_path=keeps.best_model_path, weights_only=False))
    assert torch.allclose(torch.cat(trainer(tmp_path).predict(best, test)), before)


def test_package_saves_and_loads_its_own_files(tmp_path):
    train, validation, test, scaler = loaders()
    run, network = trainer(tmp_path), model(scaler)
    run.fit(network, train, validation)
    models.save_model(tmp_path / "model.pt", network)
    again = models.load_model(tmp_path / "model.pt", multicomponent=False)
    assert torch.allclose(torch.cat(run.predict(again, test)), torch.cat(run.predict(network, test)))


def test_rate_follows_the_schedule_of_steps(tmp_path):
    train, validation, _, _ = loaders()
    rates = []

    class Notes(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    network = models.MPNN(nn.BondMessagePassing(), nn.MeanAggregation(), nn.RegressionFFN(), warmup_epochs=1)
    trainer(tmp_path, Notes()).fit(network, train, validation)
    assert len(rates) == 9
    assert rates[0] == pytest.approx(network.init_lr)
    assert max(rates) == pytest.approx(network.max_lr)
    assert rates[-1] < rates[3]


def test_training_stops_early(tmp_path):
    train, validation, _, scaler = loaders()
    stop = EarlyStopping("val_loss", patience=1, min_delta=100.0)
    run = trainer(tmp_path, stop, max_epochs=20)
    run.fit(model(scaler), train, validation)
    assert run.current_epoch == 2


def test_frozen_part_stays_as_it_was(tmp_path):
    train, validation, _, scaler = loaders()
    network = model(scaler)
    network.message_passing.apply(lambda module: module.requires_grad_(False))
    network.message_passing.eval()
    before = {name: value.clone() for name, value in network.message_passing.state_dict().items()}
    trainer(tmp_path).fit(network, train, validation)
    assert all(torch.equal(before[name], value) for name, value in network.message_passing.state_dict().items())
