from __future__ import annotations

import numpy as np
import torch
from sklearn import datasets

from fulmen.demos.digits import DigitsDataModule, load_digits


def test_digits_shipped_are_those_of_scikit_learn() -> None:
    images, digits = load_digits()
    theirs = datasets.load_digits()
    assert np.array_equal(images.squeeze(1).numpy() * 16, theirs.images)
    assert np.array_equal(digits.numpy(), theirs.target)


def test_digits_splits_share_no_image_and_leave_none_out() -> None:
    data = DigitsDataModule()
    data.setup("fit")
    indices = [index for split in (data.train_set, data.val_set, data.test_set) for index in split.indices]
    assert sorted(indices) == list(range(1797))


def test_digits_splits_are_the_same_whatever_the_seed() -> None:
    splits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        data = DigitsDataModule()
        data.setup("test")
        splits.append(list(data.test_set.indices))
    assert splits[0] == splits[1]
