"""A small U-Net for masks: a dict as batch, a cosine schedule, the dice score over an epoch."""

import pytorch_lightning as pl
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset


class Squares(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        mask = torch.zeros(1, 16, 16)
        mask[:, index % 8 : index % 8 + 6, index % 5 : index % 5 + 6] = 1
        noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(index))
        return {"image": mask + 0.3 * noise, "mask": mask}


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(pl.LightningModule):
    def __init__(self, width: int = 4, lr: float = 0.02):
        super().__init__()
        self.save_hyperparameters()
        self.down, self.bottom, self.up = block(1, width), block(width, 2 * width), block(3 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        skipped = self.down(x)
        deep = nn.functional.interpolate(self.bottom(self.pool(skipped)), scale_factor=2.0)
        return self.head(self.up(torch.cat([skipped, deep], 1)))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.binary_cross_entropy_with_logits(self(batch["image"]), batch["mask"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        predicted = self(batch["image"]) > 0
        both = (predicted & batch["mask"].bool()).sum()
        dice = 2 * both / (predicted.sum() + batch["mask"].sum())
        self.log_dict({"val_dice": dice, "val_share": predicted.float().mean()}, on_epoch=True)

    def configure_optimizers(self):
        opt = torch.optim.Adam(self.net_parameters(), lr=self.hparams.lr)
        return [opt], [torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)]

    def net_parameters(self):
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


pl.seed_everything(5)
model = UNet()
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=10, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(Squares(), batch_size=4), DataLoader(Squares(), batch_size=6))
dice = trainer.callback_metrics["val_dice"].item()
print(
    "dice above 0.8",
    dice > 0.8,
    round(trainer.optimizers[0].param_groups[0]["lr"], 6),
    sorted(trainer.callback_metrics),
)
