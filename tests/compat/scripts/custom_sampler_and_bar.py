"""A batch sampler and a progress bar of the program's own, batches of a dataclass, and a transfer to the device."""

import sys
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler


@dataclass
class Sample:
    value: torch.Tensor


class Numbers(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Backwards(Sampler):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __iter__(self):
        return iter(range(self.size - 1, -1, -1))


class Bar(TQDMProgressBar):
    def init_train_tqdm(self) -> Tqdm:
        bar = super().init_train_tqdm()
        bar.set_description("going backwards")
        return bar

    def get_metrics(self, trainer, pl_module):
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


class Order(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.first = torch.nn.Linear(1, 1), []

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        batch.value = batch.value.to(device)
        return batch

    def training_step(self, batch, batch_idx):
        self.first.append(int(batch.value[0]))
        loss = self.layer(batch.value).pow(2).mean() * 1e-3
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.value))
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


model = Order()
loader = DataLoader(
    Numbers(), batch_sampler=BatchSampler(Backwards(12), 4, False), collate_fn=lambda x: Sample(torch.stack(x))
)
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[Bar()], logger=False, enable_checkpointing=False)
trainer.fit(model, loader)
print("order", model.first, file=sys.stdout)
