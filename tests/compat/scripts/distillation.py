"""A frozen teacher in a student, batches that are changed on the device, and weights averaged by a callback."""

import copy

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class Average(Callback):
    """An exponential moving average, as everyone wrote it."""

    def __init__(self, decay=0.9):
        self.decay, self.shadow = decay, None

    def on_fit_start(self, trainer, pl_module):
        self.shadow = copy.deepcopy(pl_module.student).requires_grad_(False)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with torch.no_grad():
            for mean, now in zip(self.shadow.parameters(), pl_module.student.parameters()):
                mean.mul_(self.decay).add_(now, alpha=1 - self.decay)

    def on_validation_epoch_start(self, trainer, pl_module):
        if self.shadow is not None:
            pl_module.student, self.shadow = self.shadow, pl_module.student

    def on_validation_epoch_end(self, trainer, pl_module):
        if self.shadow is not None:
            pl_module.student, self.shadow = self.shadow, pl_module.student


class Distillation(L.LightningModule):
    def __init__(self, temperature: float = 2.0):
        super().__init__()
        self.save_hyperparameters()
        self.teacher, self.student = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
        self.teacher.requires_grad_(False)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch * 2 if self.trainer.training else batch

    def loss(self, x):
        t = self.hparams.temperature
        soft = F.softmax(self.teacher(x) / t, dim=1)
        return F.kl_div(F.log_softmax(self.student(x) / t, dim=1), soft, reduction="batchmean") * t**2

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_kl", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=0.05)


L.seed_everything(17)
model, average = Distillation(), Average()
trainer = L.Trainer(
    accelerator="cpu",
    max_epochs=3,
    callbacks=[average],
    num_sanity_val_steps=0,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
data = DataLoader(torch.randn(32, 5, generator=torch.Generator().manual_seed(8)), batch_size=8)
trainer.fit(model, data, data)
print("kl", round(trainer.callback_metrics["val_kl"].item(), 6), round(average.shadow.weight.sum().item(), 5))
