"""Several validation sets, whose outputs come as a list of lists, and a custom sampler of batches."""

import pytorch_lightning as pl
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset


class EveryOther(BatchSampler):
    def __iter__(self):
        for index, batch in enumerate(super().__iter__()):
            if index % 2 == 0:
                yield batch

    def __len__(self):
        return (super().__len__() + 1) // 2


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        (x,) = batch
        return self.layer(x).pow(2).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx):
        (x,) = batch
        return {"loss": self.layer(x).pow(2).mean(), "samples": len(x)}

    def validation_epoch_end(self, outputs):
        for name, of_loader in zip(("near", "far"), outputs):
            total = sum(o["loss"] * o["samples"] for o in of_loader)
            self.log(f"val_{name}", total / sum(o["samples"] for o in of_loader))
        self.log("samples", float(sum(o["samples"] for of_loader in outputs for o in of_loader)))

    def val_dataloader(self):
        return [self.loader(0.5), self.loader(4.0)]

    def train_dataloader(self):
        return self.loader(1.0)

    def loader(self, scale):
        data = TensorDataset(scale * torch.linspace(-1, 1, 28).reshape(14, 2))
        return DataLoader(data, batch_sampler=EveryOther(SequentialSampler(data), 3, drop_last=False))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


pl.seed_everything(14)
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(Model())
print({name: round(value.item(), 5) for name, value in sorted(trainer.callback_metrics.items())})
