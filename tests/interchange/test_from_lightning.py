"""A run that Lightning 2.6.6 began goes on here, from files that ``record.py`` recorded, as a loop by hand goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from .record import LOOKED_AT, RUNS
from .toys import BATCHES, Run, adam_with_schedule, loader, loss_of, network, rivals, run

RECORDED = Path(__file__).with_name("recorded")

#: where each file goes on: epoch, batch, steps made; an open window is begun anew, since Lightning saves no gradients
GOES_ON_AT = {
    "epoch_end": (1, 0, 5),
    "mid_epoch": (0, 3, 3),
    "last_batch": (1, 0, 5),
    "validation_end": (0, 2, 2),
    "batch_start": (1, 2, 7),
    "epoch_start": (1, 0, 5),
    "hpc_ckpt_1": (0, 3, 3),
    "watched": (1, 0, 5),
    "accumulated": (0, 4, 2),
    "open_window": (1, 2, 4),
    "manual": (1, 2, 14),
    "finished": (1, 0, 5),
}


def recorded(name: str) -> dict[str, Any]:
    return torch.load(RECORDED / f"{name}.ckpt", weights_only=True)


def resumed(name: str, tmp_path: Path, **attributes: Any) -> dict[str, Any]:
    what, _ = RUNS[name]
    trainer = {**what.trainer, "max_epochs": 2}
    file = str(RECORDED / f"{name}.ckpt")
    return run("fulmen", Run(what.model, trainer, what.callbacks, ckpt_path=file, **attributes), tmp_path)


def by_hand(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The weights and the states of the optimizers, trained from the file to the end of the second epoch."""
    checkpoint, (what, _) = recorded(name), RUNS[name]
    accumulate = what.trainer.get("accumulate_grad_batches", 1)
    net = network()
    net.load_state_dict({key.removeprefix("net."): value for key, value in checkpoint["state_dict"].items()})
    if what.model == "Rivals":
        optimizers, schedule = rivals(net), None
    else:
        optimizer, schedule = adam_with_schedule(net)
        optimizers = (optimizer,)
        schedule.load_state_dict(checkpoint["lr_schedulers"][0])
    for optimizer, state in zip(optimizers, checkpoint["optimizer_states"], strict=True):
        optimizer.load_state_dict(state)
    epoch, first, _ = GOES_ON_AT[name]
    for number in range(epoch, 2):
        for index, batch in enumerate(loader()):
            if number == epoch and index < first:
                continue
            window_begins = index - index % accumulate
            (loss_of(net, batch) / min(accumulate, BATCHES - window_begins)).backward()
            if (index + 1) % accumulate == 0 or index + 1 == BATCHES:
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
                if schedule is not None:
                    schedule.step()
    return net.state_dict(), [optimizer.state_dict() for optimizer in optimizers]


@pytest.mark.parametrize("name", GOES_ON_AT)
def test_file_of_lightning_goes_on_as_by_hand_with_the_batch_that_follows(tmp_path: Path, name: str) -> None:
    seen = resumed(name, tmp_path)

    weights, optimizers = by_hand(name)
    torch.testing.assert_close(
        seen["ended"]["weights"], {f"net.{key}": value for key, value in weights.items()}, rtol=0, atol=0
    )
    torch.testing.assert_close(seen["ended"]["optimizers"], optimizers, rtol=0, atol=0)
    epoch, first, step = GOES_ON_AT[name]
    assert seen["batches"][0][:3] == (epoch, first, step)
    assert len(seen["batches"]) == 2 * BATCHES - epoch * BATCHES - first


@pytest.mark.parametrize("name", GOES_ON_AT)
def test_file_of_lightning_gives_its_state_back(tmp_path: Path, name: str) -> None:
    began, saved = resumed(name, tmp_path)["began"], recorded(name)

    torch.testing.assert_close(began["weights"], saved["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(began["optimizers"], saved["optimizer_states"], rtol=0, atol=0)
    assert began["schedulers"] == saved["lr_schedulers"]
    assert began["step"] == saved["global_step"]


@pytest.mark.parametrize("name", GOES_ON_AT)
def test_counters_at_the_end_are_those_of_a_run_that_lightning_did_not_begin(tmp_path: Path, name: str) -> None:
    what, _ = RUNS[name]
    whole = run("fulmen", Run(what.model, {**what.trainer, "max_epochs": 2}), tmp_path)["ended"]
    ended = resumed(name, tmp_path)["ended"]

    for counter in ("epoch", "step", "batches_that_stepped"):
        assert ended[counter] == whole[counter], counter


def test_state_of_early_stopping_is_found_under_its_key(tmp_path: Path) -> None:
    began, saved = resumed("watched", tmp_path)["began"]["callbacks"], recorded("watched")["callbacks"]

    key = "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"
    ours = {name: began[key][name] for name in saved[key]}
    torch.testing.assert_close(ours, saved[key], rtol=0, atol=0)
    assert began.keys() == saved.keys()


def test_average_that_lightning_began_goes_on_as_by_hand(tmp_path: Path) -> None:
    checkpoint = recorded("averaged")
    net, averaged = network(), AveragedModel(network(), avg_fn=get_ema_avg_fn(0.9))
    for one, key in ((net, "current_model_state"), (averaged.module, "state_dict")):
        one.load_state_dict({name.removeprefix("net."): value for name, value in checkpoint[key].items()})
    averaged.n_averaged.copy_(checkpoint["averaging_state"]["n_averaged"])
    optimizer, schedule = adam_with_schedule(net)
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    schedule.load_state_dict(checkpoint["lr_schedulers"][0])
    for batch in [*list(loader())[3:], *loader()]:
        loss_of(net, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        averaged.update_parameters(net)
    ended = resumed("averaged", tmp_path)["ended"]

    assert averaged.n_averaged == 2 * BATCHES
    torch.testing.assert_close(
        ended["weights"], {f"net.{key}": value for key, value in averaged.module.state_dict().items()}, rtol=0, atol=0
    )


@pytest.mark.parametrize(("name", "validates"), [("last_batch", 2), ("validation_end", 3), ("epoch_end", 1)])
def test_validation_that_lightning_had_not_made_yet_is_made(tmp_path: Path, name: str, validates: int) -> None:
    """Lightning itself leaves out the one that follows the last batch when it goes on from such a file."""
    paths = {f"on_validation_end {call}": str(tmp_path / f"{call}.ckpt") for call in range(1, 9)}
    resumed(name, tmp_path, save=paths)

    assert len(list(tmp_path.glob("*.ckpt"))) == validates


@pytest.mark.parametrize("name", LOOKED_AT)
def test_counters_of_the_loops_are_written_as_lightning_writes_them(tmp_path: Path, name: str) -> None:
    ours = run("fulmen", LOOKED_AT[name], tmp_path)["moments"]
    theirs = json.loads((RECORDED / "counters.json").read_text())[name]

    assert ours.keys() == theirs.keys()
    for moment, loops in theirs.items():
        assert ours[moment].keys() == loops.keys()
        for key, counters in loops.items():
            # these two tell nobody where to go on, and nobody counts them here
            if key not in ("epoch_loop.scheduler_progress", "epoch_loop.val_loop.batch_progress"):
                assert ours[moment][key] == counters, (moment, key)


def test_weights_only_file_of_lightning_is_loaded_and_not_resumed(tmp_path: Path) -> None:
    from .toys import models

    path = RECORDED / "weights_only.ckpt"
    model = models("fulmen")["Net"].load_from_checkpoint(path)

    torch.testing.assert_close(model.state_dict(), recorded("weights_only")["state_dict"], rtol=0, atol=0)
    with pytest.raises(KeyError, match="weights only"):
        run("fulmen", Run(trainer={"max_epochs": 2}, ckpt_path=str(path)), tmp_path)


def test_file_in_the_layout_of_version_1_9_goes_on_as_one_of_today(tmp_path: Path) -> None:
    checkpoint = recorded("mid_epoch")
    fit = checkpoint["loops"]["fit_loop"]
    for now, before in {
        "epoch_loop.automatic_optimization.": "epoch_loop.batch_loop.optimizer_loop.",
        "epoch_loop.manual_optimization.": "epoch_loop.batch_loop.manual_loop.",
        "epoch_loop.val_loop.batch_progress": "epoch_loop.val_loop.epoch_loop.batch_progress",
    }.items():
        for key in [key for key in fit if key.startswith(now)]:
            fit[key.replace(now, before)] = fit.pop(key)
    key = "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
    old_key = key + "'train_time_interval': None, 'save_on_train_epoch_end': None}"
    states = {old_key: recorded("watched")["callbacks"].popitem()[1]}
    checkpoint |= {"pytorch-lightning_version": "1.8.6", "callbacks": states}
    torch.save(checkpoint, tmp_path / "old.ckpt")

    callbacks: list[Any] = [("ModelCheckpoint", {"dirpath": str(tmp_path / "kept")})]
    old = Run(trainer={"max_epochs": 2}, callbacks=callbacks, ckpt_path=str(tmp_path / "old.ckpt"))
    seen, of_today = run("fulmen", old, tmp_path), resumed("mid_epoch", tmp_path)

    assert seen["batches"] == of_today["batches"]
    torch.testing.assert_close(seen["ended"]["weights"], of_today["ended"]["weights"], rtol=0, atol=0)
    (state,) = states.values()
    assert seen["began"]["callbacks"][key + "'train_time_interval': None}"]["current_score"] == state["current_score"]
