"""Activation checkpoints in a deep network, clipping of one's own, and gradients that are looked at."""

import pytorch_lightning as pl
import torch
from lightning.pytorch.utilities import grad_norm
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader


class Deep(pl.LightningModule):
    def __init__(self, depth: int = 6):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(depth))
        self.head, self.norms = torch.nn.Linear(4, 1), []

    def forward(self, x):
        for block in self.blocks:
            x = x + checkpoint(lambda h, block=block: torch.tanh(block(h)), x, use_reentrant=False)
        return self.head(x)

    def training_step(self, batch, batch_idx):
        return (self(batch) - batch.sum(1, keepdim=True)).pow(2).mean()

    def on_before_optimizer_step(self, optimizer):
        self.norms.append(grad_norm(self, norm_type=2)["grad_2.0_norm_total"].item())

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(
            optimizer,
            gradient_clip_val=gradient_clip_val * (1 + self.current_epoch),
            gradient_clip_algorithm=gradient_clip_algorithm,
        ) if self.current_epoch == 0 else None

    def configure_optimizers(self):
        decay = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim == 1]
        groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)


pl.seed_everything(21)
model = Deep()
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=2,
    gradient_clip_val=0.1,
    gradient_clip_algorithm="norm",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(model, DataLoader(torch.randn(24, 4, generator=torch.Generator().manual_seed(5)), batch_size=8))
print("norms", [round(norm, 4) for norm in model.norms], round(sum(p.sum().item() for p in model.parameters()), 4))
