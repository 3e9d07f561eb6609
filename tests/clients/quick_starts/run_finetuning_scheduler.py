"""Schedules of fine-tuning as the documentation shows them: implicit, explicit, by epochs, generated, and resumed."""

import lightning as L
import pytest
import torch
import yaml
from finetuning_scheduler import FinetuningScheduler, FTSCheckpoint, FTSEarlyStopping
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self, weight_decay=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = (torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))

    def step(self, batch):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch), prog_bar=True)

    def configure_optimizers(self):
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5), "interval": "epoch"}]


def data():
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


def trainer(folder, callbacks, **options):
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=callbacks,
        max_epochs=options.pop("max_epochs", 6),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )


def three_phases(**of_each):
    names = (["head.weight", "head.bias"], ["second.weight", "second.bias"], ["first.weight", "first.bias"])
    return {depth: {"params": params, **of_each} for depth, params in enumerate(names)}


class Watched(FinetuningScheduler):
    """Notes what is trained in each epoch."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.trained, self.depths = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.trained.append(sorted(name for name, p in pl_module.named_parameters() if p.requires_grad))
            self.depths.append(self.curr_depth)


def test_schedule_is_generated(tmp_path):
    run = trainer(tmp_path, [FinetuningScheduler(gen_ft_sched_only=True, log_dir=tmp_path)])
    with pytest.raises(SystemExit):
        run.fit(Net(), data(), data())
    (written,) = tmp_path.rglob("*_ft_schedule.yaml")
    assert next(iter(yaml.safe_load(written.read_text()).values()))["params"] == ["head.bias", "head.weight"]


def test_first_phase_trains_what_it_names_alone(tmp_path):
    schedule = Watched(three_phases(), max_depth=0)
    model = Net()
    before = model.first.weight.clone()
    trainer(tmp_path, [schedule], max_epochs=2).fit(model, data(), data())
    assert schedule.trained[0] == ["head.bias", "head.weight"]
    assert torch.equal(model.first.weight, before)


def test_epochs_end_the_phases(tmp_path):
    plan = three_phases()
    for depth in plan:
        plan[depth]["max_transition_epoch"] = 2 * (depth + 1)
    schedule = Watched(plan, epoch_transitions_only=True, restore_best=False)
    trainer(tmp_path, [schedule, FTSCheckpoint(monitor="val_loss")]).fit(Net(), data(), data())
    assert schedule.depths == [0, 0, 1, 1, 2, 2]
    assert [len(names) for names in schedule.trained] == [2, 2, 4, 4, 6, 6]


def test_best_state_is_restored_between_phases(tmp_path):
    plan = three_phases()
    for depth in plan:
        plan[depth]["max_transition_epoch"] = 2 * (depth + 1)
    schedule = Watched(plan, epoch_transitions_only=True)
    keeps = FTSCheckpoint(dirpath=tmp_path / "kept", monitor="val_loss", save_top_k=5)
    model = Net()
    run = trainer(tmp_path, [schedule, keeps])
    run.fit(model, data(), data())
    assert schedule.depths[-1] == 2
    assert len(run.optimizers[0].param_groups) > 1


def test_early_stopping_ends_the_phases(tmp_path):
    schedule = Watched(three_phases())
    callbacks = [
        schedule,
        FTSEarlyStopping(monitor="val_loss", patience=1, min_delta=10.0),
        FTSCheckpoint(dirpath=tmp_path / "kept", monitor="val_loss"),
    ]
    run = trainer(tmp_path, callbacks, max_epochs=20)
    run.fit(Net(), data(), data())
    assert schedule.depths[-1] == 2
    assert run.current_epoch < 20


def test_implicit_schedule_runs_to_its_end(tmp_path):
    schedule = Watched()
    stop = FTSEarlyStopping(monitor="val_loss", patience=1, min_delta=10.0)
    callbacks = [schedule, stop, FTSCheckpoint(monitor="val_loss")]
    trainer(tmp_path, callbacks, max_epochs=30).fit(Net(), data(), data())
    assert schedule.depths[0] == 0
    assert schedule.depths[-1] == 2


def test_run_goes_on_in_a_later_phase(tmp_path):
    plan = three_phases()
    for depth in plan:
        plan[depth]["max_transition_epoch"] = 2 * (depth + 1)

    def callbacks():
        keeps = FTSCheckpoint(dirpath=tmp_path / "kept", monitor="val_loss", save_top_k=5, save_last=True)
        return Watched(plan, epoch_transitions_only=True, restore_best=False), keeps

    class Fails(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 4:
                raise RuntimeError("in the third phase")

    with pytest.raises(RuntimeError, match="third phase"):
        trainer(tmp_path, [*callbacks(), Fails()]).fit(Net(), data(), data())
    going_on = callbacks()
    run = trainer(tmp_path, [*going_on], max_epochs=6)
    run.fit(Net(), data(), data(), ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert run.current_epoch == 6
    assert going_on[0].depths[-1] == 2


def test_learning_rates_of_phases_are_those_of_the_schedule(tmp_path):
    plan = three_phases()
    for depth in plan:
        plan[depth]["max_transition_epoch"] = 2 * (depth + 1)
    plan[1]["lr"], plan[2]["lr"] = 1e-3, 1e-4
    schedule = Watched(plan, epoch_transitions_only=True, restore_best=False)
    run = trainer(tmp_path, [schedule, FTSCheckpoint(monitor="val_loss")])
    run.fit(Net(), data(), data())
    groups = run.optimizers[0].param_groups
    assert [group["initial_lr"] for group in groups if "initial_lr" in group][-1] == pytest.approx(1e-4)
