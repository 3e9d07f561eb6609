"""What `save` writes is what `load` puts back, and nothing in a file is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, Net, made, whole
from torch import nn

from fulmen import Fabric
from fulmen.strategies import FSDPStrategy


def fabric_of(**arguments: Any) -> Fabric:
    return Fabric(**{"accelerator": "cpu", **arguments})


def train(fabric: Fabric, model: Any, optimizer: Any, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        inputs = torch.arange(6.0).reshape(2, 3).sin() + fabric.global_rank + step % 3
        loss = model(inputs).square().mean()
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_loop_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path, precision: str) -> None:
    fabric = fabric_of(precision=precision)
    model, optimizer = fabric.setup(*made())
    train(fabric, model, optimizer, 3)
    state = {"model": model, "optimizer": optimizer, "precision": fabric.strategy.precision, "step": 3}
    fabric.save(tmp_path / "a.ckpt", {**state, "rng": torch.get_rng_state(), "note": "x"})
    wanted = train(fabric, model, optimizer, 3), whole(model)

    fabric = fabric_of(precision=precision)
    model, optimizer = fabric.setup(*made())
    state = {"model": model, "optimizer": optimizer, "precision": fabric.strategy.precision, "step": 0}
    rest = fabric.load(tmp_path / "a.ckpt", state)
    assert state["step"] == 3
    assert sorted(rest) == ["note", "rng"]
    torch.set_rng_state(rest["rng"])
    losses, weights = train(fabric, model, optimizer, 3), whole(model)
    assert losses == wanted[0]
    assert all(map(torch.equal, weights, wanted[1]))


def test_a_file_is_plain_data_that_torch_reads(tmp_path: Path) -> None:
    fabric = fabric_of()
    model, optimizer = fabric.setup(*made())
    fabric.save(tmp_path / "a.ckpt", {"model": model, "optimizer": optimizer, "step": 1})
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert list(saved["model"]) == list(Net().state_dict())
    assert fabric.load(tmp_path / "a.ckpt").keys() == saved.keys()


def test_a_filter_chooses_what_is_written(tmp_path: Path) -> None:
    fabric = fabric_of()
    state = {"model": fabric.setup(Net()), "step": 1}
    fabric.save(tmp_path / "a.ckpt", state, filter={"model": lambda name, value: "bias" in name})
    saved = fabric.load(tmp_path / "a.ckpt")
    assert saved["model"]
    assert all("bias" in name for name in saved["model"])
    fabric.load(tmp_path / "a.ckpt", state, strict=False)
    with pytest.raises(RuntimeError, match="missing"):
        fabric.load(tmp_path / "a.ckpt", state)


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (3, TypeError, r"filter=3\)`: write a dict of functions"),
        ({"other": bool}, ValueError, r"has 'other', and the state has \['model', 'step'\]"),
        ({"model": 3}, TypeError, "write a function of a name and a value"),
        ({"step": bool}, TypeError, "has 'step', which is an int"),
    ],
)
def test_a_wrong_filter_writes_nothing(tmp_path: Path, filters: Any, error: type[Exception], message: str) -> None:
    fabric = fabric_of()
    with pytest.raises(error, match=message):
        fabric.save(tmp_path / "a.ckpt", {"model": fabric.setup(Net()), "step": 1}, filter=filters)
    assert not list(tmp_path.iterdir())


def test_an_entry_that_was_not_saved_is_named(tmp_path: Path) -> None:
    fabric = fabric_of()
    fabric.save(tmp_path / "a.ckpt", {"step": 1})
    with pytest.raises(KeyError, match=r"has no 'other'; it has \['step'\]"):
        fabric.load(tmp_path / "a.ckpt", {"other": 2})
    state = {"other": 2, "step": 0}
    assert fabric.load(tmp_path / "a.ckpt", state, strict=False) == {}
    assert state == {"other": 2, "step": 1}


def test_raw_files_of_torch_are_loaded(tmp_path: Path) -> None:
    fabric = fabric_of()
    net, own = made()
    own.param_groups[0]["lr"] = 3.0
    torch.save(net.state_dict(), tmp_path / "model.pt")
    torch.save(own.state_dict(), tmp_path / "optimizer.pt")
    new = Net()
    model, optimizer = fabric.setup(new, torch.optim.AdamW(new.parameters()))
    fabric.load_raw(tmp_path / "model.pt", model)
    fabric.load_raw(tmp_path / "optimizer.pt", optimizer)
    assert all(map(torch.equal, whole(model), whole(net)))
    assert optimizer.param_groups[0]["lr"] == 3.0


class Runs:
    """Its pickle calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_loading_a_file_runs_nothing_that_is_in_it(tmp_path: Path) -> None:
    fabric = fabric_of()
    torch.save({"model": Runs(tmp_path / "ran")}, tmp_path / "bad.ckpt")
    state = {"model": fabric.setup(Net())}
    for load in (
        lambda: fabric.load(tmp_path / "bad.ckpt"),
        lambda: fabric.load(tmp_path / "bad.ckpt", state),
        lambda: fabric.load_raw(tmp_path / "bad.ckpt", state["model"]),
    ):
        with pytest.raises(pickle.UnpicklingError):
            load()
    assert not (tmp_path / "ran").exists()
    with pytest.warns(UserWarning, match="it can run any code"):
        fabric.load(tmp_path / "bad.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


def _saved_by_two(kind: str, folder: str) -> dict[str, Any]:
    strategy: Any = FSDPStrategy(state_dict_type=kind) if kind != "ddp" else "ddp"
    fabric = fabric_of(devices=WORLD, strategy=strategy)
    fabric.launch()
    model, optimizer = fabric.setup(*made())
    model.eval()
    train(fabric, model, optimizer, 2)
    path = Path(folder, "a.ckpt")
    fabric.save(path, {"model": model, "optimizer": optimizer, "step": 2, "extra": torch.arange(3)})
    after = train(fabric, model, optimizer, 2), whole(model)

    torch.manual_seed(9)
    net = Net()
    model, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=0.02))
    model.eval()
    state = {"model": model, "optimizer": optimizer, "step": 0}
    rest = fabric.load(path, state)
    again = train(fabric, model, optimizer, 2), whole(model)
    everything, left = fabric.load(path), fabric.load(path, {"step": 0})
    assert all(torch.equal(value, left["model"][name]) for name, value in everything["model"].items())
    return {
        "same": after[0] == again[0] and all(map(torch.equal, after[1], again[1])),
        "rest": {name: value.tolist() for name, value in rest.items()},
        "step": state["step"],
        "weights": everything["model"],
        "folder": path.is_dir(),
    }


@pytest.mark.parametrize("kind", ["ddp", "full", "sharded"])
def test_two_processes_go_on_from_their_checkpoint_and_one_reads_it(tmp_path: Path, kind: str) -> None:
    for found in run(WORLD, _saved_by_two, kind, str(tmp_path)):
        assert found["same"]
        assert (found["rest"], found["step"], found["folder"]) == ({"extra": [0, 1, 2]}, 2, kind == "sharded")
    fabric = fabric_of()
    model: nn.Module = fabric.setup(Net())
    fabric.load(tmp_path / "a.ckpt", {"model": model})
    assert all(torch.equal(value, found["weights"][name]) for name, value in model.state_dict().items())


def _optimizer_with_state(folder: str) -> bool:
    """Set up for two processes an optimizer that has made steps before."""
    net, own = made()
    net.eval()
    fabric = fabric_of(devices=WORLD, strategy="fsdp")
    fabric.launch()
    net(torch.ones(2, 3)).sum().backward()
    own.step()
    own.zero_grad()
    state = {name: value["exp_avg"].clone() for name, value in zip(dict(net.named_parameters()), own.state.values())}
    model, optimizer = fabric.setup(net, own)
    kept = optimizer.state_dict()["state"]
    fabric.save(Path(folder, "a.ckpt"), {"optimizer": optimizer})
    train(fabric, model, optimizer, 1)
    return fabric.is_global_zero and all(
        torch.equal(one["exp_avg"], other) for one, other in zip(kept.values(), state.values())
    )


def test_an_optimizer_that_has_made_steps_keeps_its_state_when_it_is_sharded(tmp_path: Path) -> None:
    assert run(WORLD, _optimizer_with_state, str(tmp_path))[0]
