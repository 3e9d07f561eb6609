from __future__ import annotations

from .load import load_example

finetune = load_example("finetune")


def test_finetune_counts_holes_better_than_a_network_that_knew_nothing() -> None:
    finetuned, from_nothing = finetune.main()
    assert finetuned > 0.85
    assert finetuned > from_nothing + 0.02
