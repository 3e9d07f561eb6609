"""A language model with a warm-up per step, clipped gradients, accumulation, and perplexity in validation."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

TEXT = "the quick brown fox jumps over the lazy dog and then the dog sleeps. " * 6
LETTERS = sorted(set(TEXT))


class Text(Dataset):
    def __init__(self, length=16):
        self.codes, self.length = torch.tensor([LETTERS.index(letter) for letter in TEXT]), length

    def __len__(self):
        return 64

    def __getitem__(self, index):
        part = self.codes[index : index + self.length + 1]
        return part[:-1], part[1:]


class LanguageModel(pl.LightningModule):
    def __init__(self, width: int = 16, warmup: int = 5):
        super().__init__()
        self.save_hyperparameters()
        self.embed, self.place = nn.Embedding(len(LETTERS), width), nn.Embedding(16, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, len(LETTERS))

    def forward(self, codes):
        length = codes.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=self.device)
        x = self.embed(codes) + self.place(torch.arange(length, device=self.device))
        return self.head(self.layer(x, src_mask=mask, is_causal=True))

    def training_step(self, batch, batch_idx):
        codes, target = batch
        loss = nn.functional.cross_entropy(self(codes).transpose(1, 2), target)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        codes, target = batch
        loss = nn.functional.cross_entropy(self(codes).transpose(1, 2), target)
        self.log("perplexity", loss.exp(), batch_size=len(codes))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        warmup = self.hparams.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


pl.seed_everything(8, workers=True)
model = LanguageModel()
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=3,
    accumulate_grad_batches=2,
    gradient_clip_val=0.5,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(model, DataLoader(Text(), batch_size=8), DataLoader(Text(), batch_size=16))
print("steps", trainer.global_step, "perplexity", round(trainer.callback_metrics["perplexity"].item(), 2))
