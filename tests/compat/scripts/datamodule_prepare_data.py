"""A data module that writes its files once and reads them for each stage; predictions are put together at the end."""

import os
import tempfile

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from sklearn.datasets import load_iris
from torch.utils.data import DataLoader, TensorDataset, random_split


class Iris(LightningDataModule):
    def __init__(self, data_dir: str, batch_size: int = 30, num_workers: int = 0):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train = self.data_val = self.data_test = None
        self.stages = []

    @property
    def num_classes(self) -> int:
        return 3

    @property
    def path(self):
        return os.path.join(self.hparams.data_dir, "iris.npz")

    def prepare_data(self) -> None:
        x, y = load_iris(return_X_y=True)
        np.savez(self.path, x=x.astype("float32"), y=y)

    def setup(self, stage: str | None = None) -> None:
        self.stages.append(str(stage.value if hasattr(stage, "value") else stage))
        if not self.data_train and not self.data_val and not self.data_test:
            with np.load(self.path) as file:
                data = TensorDataset(torch.from_numpy(file["x"]), torch.from_numpy(file["y"]))
            parts = random_split(data, [100, 20, 30], generator=torch.Generator().manual_seed(42))
            self.data_train, self.data_val, self.data_test = parts

    def _loader(self, data):
        return DataLoader(data, batch_size=self.hparams.batch_size, num_workers=self.hparams.num_workers)

    def train_dataloader(self):
        return self._loader(self.data_train)

    def val_dataloader(self):
        return self._loader(self.data_val)

    def test_dataloader(self):
        return self._loader(self.data_test)

    predict_dataloader = test_dataloader

    def teardown(self, stage: str | None = None) -> None:
        self.stages.append("down")


class Classifier(LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.layer = torch.nn.Linear(4, classes)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    def _evaluate(self, batch, stage):
        x, y = batch
        self.log(f"{stage}/acc", (self.layer(x).argmax(1) == y).float().mean(), on_step=False, on_epoch=True)

    def validation_step(self, batch, batch_idx):
        self._evaluate(batch, "val")

    def test_step(self, batch, batch_idx):
        self._evaluate(batch, "test")

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self.layer(batch[0]).argmax(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


seed_everything(12)
with tempfile.TemporaryDirectory() as folder:
    data = Iris(folder)
    trainer = Trainer(
        accelerator="cpu", max_epochs=8, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    model = Classifier(data.num_classes)
    trainer.fit(model, data)
    tested = trainer.test(model, datamodule=data, verbose=False)
    predicted = torch.cat(trainer.predict(model, datamodule=data))
print(data.stages, tested, predicted.bincount().tolist())
