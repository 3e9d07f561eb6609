"""A value network that makes its own data: an IterableDataset over a replay buffer that grows while it trains."""

from collections import deque

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.dataset import IterableDataset


class Buffer(IterableDataset):
    def __init__(self, samples: int):
        self.memory, self.samples = deque(maxlen=100), samples

    def __iter__(self):
        for index in torch.randint(len(self.memory), (self.samples,)).tolist():
            yield self.memory[index]


class DQN(pl.LightningModule):
    def __init__(self, gamma: float = 0.9, sync_rate: int = 2):
        super().__init__()
        self.save_hyperparameters()
        self.net, self.target_net = nn.Linear(2, 2), nn.Linear(2, 2)
        self.target_net.load_state_dict(self.net.state_dict())
        self.buffer = Buffer(samples=8)
        for _ in range(10):
            self.play()

    @torch.no_grad()
    def play(self) -> float:
        state = torch.randn(2)
        action = int(self.net(state.to(self.device)).argmax())
        self.buffer.memory.append((state, action, float(state[action]), torch.randn(2)))
        return float(state[action])

    def training_step(self, batch, nb_batch):
        self.log("reward", self.play(), prog_bar=True)
        states, actions, rewards, next_states = batch
        values = self.net(states).gather(1, actions.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            expected = self.target_net(next_states).max(1)[0] * self.hparams.gamma + rewards.float()
        if self.global_step % self.hparams.sync_rate == 0:
            self.target_net.load_state_dict(self.net.state_dict())
        return nn.functional.mse_loss(values, expected)

    def configure_optimizers(self):
        return [torch.optim.Adam(self.net.parameters(), lr=1e-2)]

    def train_dataloader(self):
        return DataLoader(dataset=self.buffer, batch_size=4)


model = DQN()
trainer = pl.Trainer(
    accelerator="auto", devices=1, max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model)
rank_zero_only(print)("steps", trainer.global_step, "memory", len(model.buffer.memory))
