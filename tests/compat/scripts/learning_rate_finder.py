"""The search for a learning rate as 1.x had it, by `auto_lr_find` and `trainer.tune`, and a batch size before it."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Regression(pl.LightningModule):
    def __init__(self, learning_rate=1e-3, batch_size=2):
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("loss", loss)
        return loss

    def train_dataloader(self):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=self.batch_size)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


pl.seed_everything(1)
model = Regression()
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=2,
    auto_lr_find="learning_rate",
    auto_scale_batch_size="power",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
found = trainer.tune(
    model, lr_find_kwargs={"num_training": 40}, scale_batch_size_kwargs={"max_trials": 2, "steps_per_trial": 1}
)
trainer.fit(model)
print(sorted(found), model.batch_size > 2, model.learning_rate == found["lr_find"].suggestion())
