"""The table of hooks, the callback and the module say the same."""

from __future__ import annotations

import inspect

from fulmen.callbacks.callback import Callback
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.hooks import HOOK, HOOKS, CheckpointHooks, DataHooks, ModelHooks, Owner
from fulmen.core.module import LightningModule

NOT_HOOKS_OF_A_CALLBACK = {"state_key"}


def hooks_owned_by(owner: Owner) -> set[str]:
    return {hook.name for hook in HOOKS if owner in hook.owners}


def public_methods(cls: type) -> set[str]:
    return {name for name, member in vars(cls).items() if not name.startswith("_") and inspect.isfunction(member)}


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_hooks_table_has_each_hook_once() -> None:
    assert len(HOOK) == len(HOOKS)


def test_hooks_table_and_callback_have_the_same_hooks() -> None:
    assert public_methods(Callback) - NOT_HOOKS_OF_A_CALLBACK == hooks_owned_by("callback")


def test_hooks_table_and_module_have_the_same_hooks() -> None:
    table = hooks_owned_by("module")
    assert {name for name in table if not callable(getattr(LightningModule, name, None))} == set()
    assert public_methods(ModelHooks) | public_methods(DataHooks) | public_methods(CheckpointHooks) <= table


def test_hooks_table_and_datamodule_have_the_same_hooks() -> None:
    table = hooks_owned_by("datamodule")
    assert {name for name in table if not callable(getattr(LightningDataModule, name, None))} == set()
    assert public_methods(DataHooks) <= table


def test_a_callback_gets_trainer_and_module_and_then_what_the_module_gets() -> None:
    for name in hooks_owned_by("callback") & public_methods(ModelHooks):
        expected = ["self", "trainer", "pl_module", *parameters(getattr(ModelHooks, name))[1:]]
        assert parameters(getattr(Callback, name)) == expected, name


def test_every_hook_has_a_docstring() -> None:
    owners = (Callback, LightningModule, LightningDataModule)
    silent = [f"{o.__name__}.{h}" for o in owners for h in HOOK if hasattr(o, h) and not getattr(o, h).__doc__]
    assert not silent
