from __future__ import annotations

import pytest

from .load import load_example

ema = load_example("ema")


def test_average_reads_digits_better_than_the_weights_that_it_is_of() -> None:
    averaged, plain = (ema.main(seed=1, decay=decay, max_epochs=5) for decay in (0.98, None))

    assert averaged["test_acc"] > 0.97
    assert averaged["test_loss"] < plain["test_loss"]


@pytest.mark.slow
def test_average_reads_digits_better_and_more_evenly_over_seeds() -> None:
    rows = ema.compare(seeds=4, decay=0.98, max_epochs=10)

    assert rows["with"]["loss"] < 0.7 * rows["without"]["loss"]
    assert rows["with"]["loss +-"] < rows["without"]["loss +-"]
    assert rows["with"]["accuracy"] > rows["without"]["accuracy"]
