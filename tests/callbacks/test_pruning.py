"""ModelPruning, compared with loops written by hand on ``torch.nn.utils.prune``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fulmen import Callback, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint, ModelPruning
from fulmen.utilities.exceptions import MisconfigurationException

from .averaging import Net, assert_same, fit, loader, weights_of


class Decaying(Net):
    """Weights that are hidden by a mask change, too."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05, weight_decay=0.1)


class SaveAt(Callback):
    """Saves when so many batches are trained, and ends the run there."""

    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.path)
        raise InterruptedError


class Largest(prune.BasePruningMethod):
    """Removes the largest weights."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        mask = default_mask.clone()
        mask[t.abs().topk(int(self.amount * t.numel())).indices] = 0
        return mask


def by_hand(prunes: Any, resets: bool = False, epochs: int = 3, dimensions: int = 1) -> dict[str, Tensor]:
    """Train in a plain loop that prunes after each epoch; the weights that remain, by name."""
    seed_everything(1, verbose=False)
    net = Decaying()
    layers = [net.net[0], net.net[1], net.net[4]]
    pairs = [(layer, name) for name in ("weight", "bias") for layer in layers]
    pairs = [(layer, name) for layer, name in pairs if getattr(layer, name).dim() >= dimensions]
    initial = [getattr(*pair).detach().clone() for pair in pairs]
    optimizer = net.configure_optimizers()

    def refresh() -> None:
        for layer in layers:
            for hook in layer._forward_pre_hooks.values():
                hook(layer, ())

    for _ in range(epochs):
        for batch in loader():
            optimizer.zero_grad()
            net.loss(batch).backward()
            optimizer.step()
        refresh()  # else the layers have the weights of the last forward pass
        prunes(pairs)
        if resets:
            for (layer, name), value in zip(pairs, initial):
                getattr(layer, f"{name}_orig").data.copy_(value)
            refresh()
    for layer, name in pairs:
        prune.remove(layer, name)
    return {name: value.detach() for name, value in net.named_parameters()}


def assert_pruned_as(model: Any, expected: dict[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(own[name], value), name


def share_of_zeros(model: Any) -> float:
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return float((weights == 0).float().mean())


# -- the same numbers as by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resets", [False, True])
def test_global_pruning_is_that_of_a_loop_by_hand(resets: bool):
    expected = by_hand(
        lambda pairs: prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.3), resets
    )
    model = fit(ModelPruning("l1_unstructured", amount=0.3, use_lottery_ticket_hypothesis=resets), model=Decaying)

    assert_pruned_as(model, expected)
    assert share_of_zeros(model) == pytest.approx(1 - 0.7**3, abs=0.04)


def each(function: Any, **kwargs: Any) -> Any:
    def prunes(pairs: Any) -> None:
        for layer, name in pairs:
            function(layer, name, **kwargs)

    return prunes


def smallest(module: nn.Module, name: str, amount: float) -> None:
    prune.l1_unstructured(module, name, amount)


@pytest.mark.parametrize(
    ("method", "arguments", "prunes"),
    [
        ("l1_unstructured", {}, each(prune.l1_unstructured, amount=0.3)),
        ("random_unstructured", {}, each(prune.random_unstructured, amount=0.3)),
        (smallest, {}, each(prune.l1_unstructured, amount=0.3)),
        ("ln_structured", dict(pruning_dim=0, pruning_norm=2), each(prune.ln_structured, amount=0.3, n=2, dim=0)),
        ("random_structured", dict(pruning_dim=0), each(prune.random_structured, amount=0.3, dim=0)),
    ],
)
def test_pruning_of_each_parameter_is_that_of_a_loop_by_hand(method: Any, arguments: dict[str, Any], prunes: Any):
    callback = ModelPruning(
        method, amount=0.3, use_global_unstructured=False, use_lottery_ticket_hypothesis=False, **arguments
    )
    assert_pruned_as(fit(callback, model=Decaying), by_hand(prunes, dimensions=2 if arguments else 1))


def test_own_class_prunes():
    expected = by_hand(lambda pairs: prune.global_unstructured(pairs, pruning_method=Largest, amount=0.2))
    assert_pruned_as(
        fit(ModelPruning(Largest, amount=0.2, use_lottery_ticket_hypothesis=False), model=Decaying), expected
    )


def test_arguments_may_be_functions_of_the_epoch():
    asked: list[int] = []
    callback = ModelPruning(
        "l1_unstructured",
        parameter_names=["weight"],
        amount=lambda epoch: asked.append(epoch) or 4,
        apply_pruning=lambda epoch: epoch != 1,
        use_lottery_ticket_hypothesis=lambda epoch: False,
    )
    model = fit(callback)

    assert asked == [0, 1, 2]
    weights = [model.net[number].weight for number in (0, 1, 4)]
    assert sum(int((weight == 0).sum()) for weight in weights) == 8


def test_only_what_was_asked_for_is_pruned():
    class Chosen(ModelPruning):
        def filter_parameters_to_prune(self, parameters_to_prune: Any = ()) -> Any:
            return [(layer, name) for layer, name in parameters_to_prune if name == "weight"]

    seed_everything(1, verbose=False)
    model = Net()
    pairs = [(model.net[0], "weight"), (model.net[0], "bias")]
    fit(Chosen("l1_unstructured", pairs), model=model)

    assert int((model.net[0].weight == 0).sum()) == 15  # of 18: 9, then 4 of 9, then 2 of 5
    assert all(not (parameter == 0).any() for name, parameter in model.named_parameters() if name != "net.0.weight")


def test_new_values_are_drawn_where_that_was_asked_for():
    class Before(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.weights = weights_of(pl_module)

    before = Before()
    fit(before, ModelPruning("l1_unstructured", resample_parameters=True), max_epochs=2)
    weights, mask = before.weights["net.0.weight_orig"], before.weights["net.0.weight_mask"].bool()
    seed_everything(1, verbose=False)
    initial = Net().net[0].weight

    assert float(weights.abs().max()) <= 3**-0.5  # the bounds of its `reset_parameters`
    assert not torch.equal(weights[mask], initial[mask])


def test_pruning_after_validation_follows_each_of_them():
    pruned: list[float] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            masks = [buffer for name, buffer in pl_module.named_buffers() if name.endswith("weight_mask")]
            pruned.append(sum(int((mask == 0).sum()) for mask in masks))

    model = fit(
        ModelPruning("l1_unstructured", parameter_names=["weight"], amount=2, prune_on_train_epoch_end=False),
        Look(),
        validation=loader(1),
        max_epochs=2,
        num_sanity_val_steps=1,
    )
    model.trainer.validate(model, loader(1), verbose=False)

    assert pruned == [0, 2, 4, 0]  # the sanity check and a validation alone do not prune


def test_what_is_pruned_is_told(caplog):
    with caplog.at_level("INFO"):
        fit(ModelPruning("l1_unstructured", amount=5, verbose=2), max_epochs=2)

    assert "pruned 10 of 50 weights (20.0%), 5 before" in caplog.text
    assert "  net.0.weight: " in caplog.text


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize("batches", [3, 5, 7, 8, 10, 13])
@pytest.mark.parametrize(
    "options",
    [
        dict(pruning_fn="l1_unstructured", use_lottery_ticket_hypothesis=False),
        dict(pruning_fn="random_unstructured", resample_parameters=True),
        dict(pruning_fn="l1_unstructured", prune_on_train_epoch_end=False, amount=0.2),
    ],
)
def test_run_goes_on_exactly_after_any_batch(tmp_path, batches: int, permanent: bool, options: dict[str, Any]):
    arguments: dict[str, Any] = dict(accumulate_grad_batches=2, model=Decaying, val_check_interval=3)

    def run(*more: Any, **other: Any) -> Any:
        callback = ModelPruning(**{"amount": 0.3, "make_pruning_permanent": permanent, **options})
        return fit(callback, *more, train=loader(shuffle=True), validation=loader(1), **arguments, **other)

    whole = run()
    with pytest.raises(InterruptedError):
        run(SaveAt(tmp_path / "k.ckpt", batches))
    resumed = run(path=tmp_path / "k.ckpt", seed=5)

    assert_same(weights_of(resumed), weights_of(whole))
    torch.testing.assert_close(
        resumed.trainer.optimizers[0].state_dict(), whole.trainer.optimizers[0].state_dict(), rtol=0, atol=0
    )


@pytest.mark.parametrize("permanent", [True, False])
def test_run_that_had_ended_goes_on_exactly(tmp_path, permanent: bool):
    def run(**other: Any) -> Any:
        return fit(
            ModelPruning("l1_unstructured", amount=0.3, make_pruning_permanent=permanent), model=Decaying, **other
        )

    run(max_epochs=2).trainer.save_checkpoint(tmp_path / "k.ckpt")
    assert_same(weights_of(run(path=tmp_path / "k.ckpt", seed=5)), weights_of(run()))


@pytest.mark.parametrize("weights_only", [False, True])
def test_file_is_loaded_by_a_plain_module(tmp_path, weights_only: bool):
    files = ModelCheckpoint(dirpath=tmp_path, save_weights_only=weights_only, save_top_k=-1)
    callback = ModelPruning("l1_unstructured", amount=0.3, use_lottery_ticket_hypothesis=False)
    model = fit(callback, files, enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)

    assert len(paths) == 3
    for number, path in enumerate(paths, 1):
        loaded = Net.load_from_checkpoint(path)
        assert share_of_zeros(loaded) == pytest.approx(1 - 0.7**number, abs=0.04)
        assert list(loaded.state_dict()) == list(torch.load(path, weights_only=True)["state_dict"])
    assert_same(dict(loaded.state_dict()), dict(model.state_dict()))


def test_file_with_masks_is_tested(tmp_path):
    trained = fit(ModelPruning("l1_unstructured", amount=0.3, make_pruning_permanent=False))
    trained.trainer.save_checkpoint(tmp_path / "k.ckpt")
    assert "net.0.weight_mask" in torch.load(tmp_path / "k.ckpt", weights_only=True)["state_dict"]
    model = Net()
    trainer = Trainer(
        callbacks=ModelPruning("l1_unstructured"), accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.test(model, loader(1), ckpt_path=tmp_path / "k.ckpt", verbose=False)

    assert torch.equal(model.net[0].weight, trained.net[0].weight_orig * trained.net[0].weight_mask)


def test_own_buffer_that_is_named_like_a_mask_stays(tmp_path):
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("attention_mask", torch.ones(2))

    model = fit(ModelPruning("l1_unstructured"), model=Masked)
    model.trainer.save_checkpoint(tmp_path / "k.ckpt")
    assert "attention_mask" in torch.load(tmp_path / "k.ckpt", weights_only=True)["state_dict"]


def test_module_goes_on_in_another_run_of_the_same_process(tmp_path):
    def run(**arguments: Any) -> Any:
        return fit(ModelPruning("l1_unstructured", parameter_names=["weight"]), **arguments)

    model = run(max_epochs=1)
    model.trainer.save_checkpoint(tmp_path / "k.ckpt")
    again, fresh = (run(path=tmp_path / "k.ckpt", max_epochs=2, model=one) for one in (model, None))

    assert_same(weights_of(again), weights_of(fresh))


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(pruning_fn="l3_unstructured"), r"pruning_fn='l3_unstructured'"),
        (dict(pruning_fn="ln_structured", use_global_unstructured=False), "needs `pruning_dim`"),
        (dict(pruning_fn="ln_structured", use_global_unstructured=False, pruning_dim=0), "needs `pruning_norm`"),
        (dict(pruning_fn="random_structured", pruning_dim=0), "Add `use_global_unstructured=False`"),
        (dict(pruning_fn=prune.RandomStructured), "Add `use_global_unstructured=False`"),
        (dict(pruning_fn=prune.L1Unstructured, use_global_unstructured=False), "a class prunes globally"),
        (dict(pruning_fn=prune.L1Unstructured(0.5)), "no instance"),
        (dict(pruning_fn=prune.l1_unstructured), "Add `use_global_unstructured=False`"),
        (dict(pruning_fn="l1_unstructured", parameter_names=["kernel"]), "parameter_names="),
        (dict(pruning_fn="l1_unstructured", amount=1.5), r"amount=1\.5"),
        (dict(pruning_fn="l1_unstructured", amount="half"), "amount='half'"),
        (dict(pruning_fn="l1_unstructured", verbose=3), "verbose=3"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(MisconfigurationException, match=message):
        ModelPruning(**arguments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([(nn.Linear(1, 1), "weight")], "the parameter 'weight' of a Linear"),
        (["weight"], "pairs of a layer and a name"),
    ],
)
def test_parameters_of_another_module_are_refused(given: Any, message: str):
    with pytest.raises(MisconfigurationException, match=message):
        fit(ModelPruning("l1_unstructured", given))


def test_module_without_anything_to_prune_is_refused():
    class Bare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten())
            self.table = nn.Parameter(torch.zeros(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table

    with pytest.raises(MisconfigurationException, match="nothing to prune in Bare"):
        fit(ModelPruning("l1_unstructured"), model=Bare)
