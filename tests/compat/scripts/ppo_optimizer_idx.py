"""Proximal policy optimization as bolts of 1.x had it: actor and critic have optimizers of their own, and data are
made on the way by an iterable dataset."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Experience(IterableDataset):
    def __init__(self, generate_batch):
        self.generate_batch = generate_batch

    def __iter__(self):
        return self.generate_batch()


class PPO(pl.LightningModule):
    def __init__(self, steps_per_epoch: int = 24, batch_size: int = 8, clip_ratio: float = 0.2):
        super().__init__()
        self.save_hyperparameters()
        self.actor, self.critic = nn.Linear(3, 2), nn.Linear(3, 1)
        self.random = torch.Generator().manual_seed(7)
        self.avg_reward = 0.0

    def play(self):
        """Steps of an environment in which the sign of the first number says which action is right."""
        rewards = []
        for _ in range(self.hparams.steps_per_epoch):
            state = torch.randn(3, generator=self.random)
            with torch.no_grad():
                probabilities = self.actor(state).softmax(-1)
                action = torch.multinomial(probabilities, 1, generator=self.random)[0]
                reward = float(action == int(state[0] > 0))
                advantage = reward - self.critic(state)[0]
            rewards.append(reward)
            yield state, action, probabilities[action].log(), torch.tensor(reward), advantage
        self.avg_reward = sum(rewards) / len(rewards)

    def actor_loss(self, state, action, logp_old, advantage):
        logp = self.actor(state).log_softmax(-1).gather(1, action.unsqueeze(1)).squeeze(1)
        ratio = torch.exp(logp - logp_old)
        clipped = torch.clamp(ratio, 1 - self.hparams.clip_ratio, 1 + self.hparams.clip_ratio) * advantage
        return -torch.min(ratio * advantage, clipped).mean()

    def training_step(self, batch, batch_idx, optimizer_idx):
        state, action, logp_old, reward, advantage = batch
        self.log("avg_reward", self.avg_reward, prog_bar=True, on_step=False, on_epoch=True)
        if optimizer_idx == 0:
            loss = self.actor_loss(state, action, logp_old, advantage)
            self.log("loss_actor", loss, on_step=False, on_epoch=True, prog_bar=False)
            return loss
        loss = (reward - self.critic(state).squeeze(1)).pow(2).mean()
        self.log("loss_critic", loss, on_step=False, on_epoch=True)
        return loss

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, *args, **kwargs):
        for _ in range(2):  # some steps on the same batch
            optimizer.step(closure=optimizer_closure)

    def configure_optimizers(self):
        return (
            torch.optim.Adam(self.actor.parameters(), lr=0.05),
            torch.optim.Adam(self.critic.parameters(), lr=0.05),
        )

    def train_dataloader(self):
        return DataLoader(dataset=Experience(self.play), batch_size=self.hparams.batch_size)


pl.seed_everything(0)
model = PPO()
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=10, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model)
weights = round(sum(p.abs().sum().item() for p in model.parameters()), 3)
print("weights", weights, "learns", model.avg_reward > 0.5)
