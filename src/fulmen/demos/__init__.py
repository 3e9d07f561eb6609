"""Small models and data for tests, bug reports and the documentation."""

from fulmen.demos.boring_classes import BoringDataModule, BoringModel, DemoModel

__all__ = ["BoringDataModule", "BoringModel", "DemoModel"]
