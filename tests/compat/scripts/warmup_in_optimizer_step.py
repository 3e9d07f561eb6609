"""A warm-up in `optimizer_step` with the arguments of 1.x, a scheduler of one's own, and `training_step_end`."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader


class Poly(torch.optim.lr_scheduler.LambdaLR):
    def __init__(self, optimizer, power):
        super().__init__(optimizer, lambda epoch: (1 - epoch / 10) ** power)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.rates = torch.nn.Linear(3, 1), []

    def training_step(self, batch, batch_idx):
        return {"out": self.layer(batch), "batch": batch}

    def training_step_end(self, outputs):
        loss = (outputs["out"] - outputs["batch"].mean(1, keepdim=True)).abs().mean()
        self.log("loss", loss)
        return loss

    def optimizer_step(
        self,
        epoch,
        batch_idx,
        optimizer,
        optimizer_idx=0,
        optimizer_closure=None,
        on_tpu=False,
        using_native_amp=False,
        using_lbfgs=False,
    ):
        if self.trainer.global_step < 4:
            scale = min(1.0, float(self.trainer.global_step + 1) / 4)
            for group in optimizer.param_groups:
                group["lr"] = scale * 0.2
        self.rates.append(round(optimizer.param_groups[0]["lr"], 4))
        optimizer.step(closure=optimizer_closure)

    def lr_scheduler_step(self, scheduler, optimizer_idx, metric):
        assert optimizer_idx == 0
        assert metric is None
        scheduler.step()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        return [optimizer], [{"scheduler": Poly(optimizer, 0.9), "interval": "epoch"}]


pl.seed_everything(30)
model = Net()
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(torch.randn(20, 3, generator=torch.Generator().manual_seed(6)), batch_size=4))
print("rates", model.rates, "loss", round(trainer.callback_metrics["loss"].item(), 5))
