"""Paths of classes as configuration files and checkpoints have them, from Lightning's house to ours."""

from __future__ import annotations

from importlib import import_module

from fulmen.compat.table import home_of, is_old, missing_module, missing_name, target_of


def resolve(class_path: str) -> str:
    """Where Fulmen has what ``class_path`` names: ``"pytorch_lightning.callbacks.EarlyStopping"`` becomes
    ``"fulmen.callbacks.EarlyStopping"``. A path that is not of Lightning comes back as it is.

    Neither Lightning nor :func:`~fulmen.compat.install` is needed.

    Raises:
        ModuleNotFoundError: Fulmen has nothing for the module.
        ImportError: it has no such name; the message says which are near.
    """
    parts = class_path.split(".")
    if not is_old(class_path) or parts[0] == "lightning_utilities":  # a package of its own, which others need too
        return class_path
    if (module := target_of(class_path)) and len(parts) > 1:
        return module
    for end in range(len(parts) - 1, 0, -1):
        old, name = ".".join(parts[:end]), parts[end]
        if target_of(old) is None:
            continue
        home = home_of(old, name)
        if home is None or not hasattr(import_module(home[0]), home[1]):
            is_module = name.islower() and end < len(parts) - 1
            raise missing_module(f"{old}.{name}") if is_module else missing_name(old, name)
        return ".".join([*home, *parts[end + 1 :]])
    return class_path  # `lightning` alone
