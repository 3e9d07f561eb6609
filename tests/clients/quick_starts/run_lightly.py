"""Self-supervised learning as lightly's documentation shows it: losses, heads and schedules in a LightningModule."""

import copy

import lightly
import pytest
import pytorch_lightning as pl
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.benchmarking import BenchmarkModule, LinearClassifier, OnlineLinearClassifier
from lightly.utils.scheduler import CosineWarmupScheduler, cosine_schedule
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Views(Dataset):
    """Two noisy views of each image, its label and its name."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(32, 3, 8, 8, generator=generator)
        self.noise = torch.randn(2, 32, 3, 8, 8, generator=generator) / 10

    def __len__(self):
        return 32

    def __getitem__(self, index):
        views = [self.images[index] + noise[index] for noise in self.noise]
        return views, int(self.images[index].mean() > 0), f"image_{index}"


def backbone():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=options.pop("max_epochs", 2),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )


class SimCLR(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = backbone()
        self.head = SimCLRProjectionHead(8, 8, 4)
        self.criterion = NTXentLoss()

    def forward(self, x):
        return self.head(self.backbone(x))

    def training_step(self, batch, batch_idx):
        (first, second), _, _ = batch
        loss = self.criterion(self(first), self(second))
        self.log("train_loss_ssl", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = CosineWarmupScheduler(optimizer, warmup_epochs=1, max_epochs=steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class BYOL(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone, self.projection, self.prediction = (
            backbone(),
            BYOLProjectionHead(8, 8, 4),
            BYOLPredictionHead(4, 8, 4),
        )
        self.slow_backbone, self.slow_projection = copy.deepcopy(self.backbone), copy.deepcopy(self.projection)
        deactivate_requires_grad(self.slow_backbone)
        deactivate_requires_grad(self.slow_projection)
        self.criterion = NegativeCosineSimilarity()
        self.momenta = []

    def training_step(self, batch, batch_idx):
        momentum = cosine_schedule(self.current_epoch, self.trainer.max_epochs, 0.9, 1)
        self.momenta.append(momentum)
        update_momentum(self.backbone, self.slow_backbone, m=momentum)
        update_momentum(self.projection, self.slow_projection, m=momentum)
        (first, second), _, _ = batch
        fast = [self.prediction(self.projection(self.backbone(view))) for view in (first, second)]
        slow = [self.slow_projection(self.slow_backbone(view)).detach() for view in (first, second)]
        return 0.5 * (self.criterion(fast[0], slow[1]) + self.criterion(fast[1], slow[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.06)


def test_simclr_trains_with_a_schedule_of_steps(tmp_path):
    run = trainer(tmp_path)
    run.fit(SimCLR(), DataLoader(Views(), batch_size=8))
    assert run.global_step == 8
    assert torch.isfinite(run.callback_metrics["train_loss_ssl_epoch"])


def test_byol_moves_its_slow_copies_alone_by_momentum(tmp_path):
    model = BYOL()
    before = copy.deepcopy(model.slow_backbone.state_dict())
    trainer(tmp_path).fit(model, DataLoader(Views(), batch_size=8))
    assert model.momenta[0] == pytest.approx(0.9)
    assert any(not torch.equal(before[name], value) for name, value in model.slow_backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in model.slow_backbone.parameters())


def test_linear_classifier_is_trained_on_a_frozen_backbone(tmp_path):
    model = LinearClassifier(backbone(), 1, 1, feature_dim=8, num_classes=2, topk=(1,))
    before = copy.deepcopy(model.model.state_dict())
    images = Views().images
    loader = DataLoader(TensorDataset(images, (images.mean((1, 2, 3)) > 0).long()), batch_size=8)
    run = trainer(tmp_path)
    run.fit(model, loader, loader)
    assert {"train_loss", "train_top1", "val_loss", "val_top1"} <= {*run.callback_metrics}
    assert all(torch.equal(before[name], value) for name, value in model.model.state_dict().items())


def test_online_classifier_is_a_part_of_a_module(tmp_path):
    class Both(SimCLR):
        def __init__(self):
            super().__init__()
            self.classifier = OnlineLinearClassifier(feature_dim=8, num_classes=2, topk=(1,))

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            (view, _), labels, _ = batch
            extra, logged = self.classifier.training_step((self.backbone(view).detach(), labels), batch_idx)
            self.log_dict(logged, batch_size=len(labels))
            return loss + extra

    run = trainer(tmp_path)
    run.fit(Both(), DataLoader(Views(), batch_size=8))
    assert "train_online_cls_top1" in run.callback_metrics


def test_benchmark_module_compares_neighbours_after_each_epoch(tmp_path):
    class Bench(BenchmarkModule):
        def __init__(self, loader):
            super().__init__(loader, num_classes=2, knn_k=5)
            self.backbone = backbone()
            self.head = torch.nn.Linear(8, 1)

        def training_step(self, batch, batch_idx):
            (view, _), _, _ = batch
            return self.head(self.backbone(view)).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class One(Views):
        def __getitem__(self, index):
            (view, _), label, name = super().__getitem__(index)
            return view, label, name

    bank = DataLoader(One(), batch_size=8)
    model = Bench(bank)
    run = trainer(tmp_path, num_sanity_val_steps=0)
    run.fit(model, DataLoader(Views(), batch_size=8), bank)
    assert 0 <= model.max_accuracy <= 1
    assert "kNN_accuracy" in run.callback_metrics
    assert lightly.__version__
