from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .load import load_example

course_text = load_example("course_text")


def test_course_text_layer_multiplies_by_its_matrix() -> None:
    layer = course_text.DenseLayer(512, 10)
    x = torch.randn(8, 512)
    assert torch.equal(layer(x), x @ layer.weight)


def test_course_text_layers_in_a_row_can_be_called_at_once() -> None:
    assert course_text.call_a_network().shape == (8, 10)


def test_course_text_network_is_trained_saved_and_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = course_text.main(tmp_path)
    assert accuracy > 0.85
    rebuilt = course_text.DigitsNetwork.load_from_checkpoint(tmp_path / "digits.ckpt")
    assert tuple(rebuilt.hparams.hidden) == (48, 24)
    assert [tuple(parameter.shape) for parameter in rebuilt.parameters()] == [(64, 48), (48, 24), (24, 10)]
