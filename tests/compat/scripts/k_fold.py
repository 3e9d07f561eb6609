"""Cross-validation: a data module and a Trainer for each fold, the best checkpoint of each tested."""

import tempfile

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold
from torch.utils.data import DataLoader, Subset, TensorDataset


class Fold(L.LightningDataModule):
    def __init__(self, number, folds=3):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage):
        x, y = load_diabetes(return_X_y=True)
        data = TensorDataset(torch.tensor(x, dtype=torch.float32) * 20, torch.tensor(y, dtype=torch.float32) / 100)
        splits = list(KFold(self.hparams.folds).split(x))
        self.train, self.val = (Subset(data, list(part)) for part in splits[self.hparams.number])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=64)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=64)

    test_dataloader = val_dataloader


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(10, 1)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x).squeeze(1), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


results = []
for number in range(3):
    L.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_loss")
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=12,
            callbacks=[best, EarlyStopping("val_loss", patience=2)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = Fold(number)
        trainer.fit(Regression(), datamodule=data)
        results.append(round(trainer.test(datamodule=data, ckpt_path="best", verbose=False)[0]["test_loss"], 4))
print("folds", results)
