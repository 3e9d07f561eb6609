from __future__ import annotations

import pytest
import torch
from torch import nn

from fulmen.utilities.grads import grad_norm
from fulmen.utilities.parameter_tying import find_shared_parameters, set_shared_parameters


def layers() -> nn.Sequential:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    module[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    module[0].bias.grad = torch.tensor([0.0, 12.0])
    return module  # the second layer has no gradient


@pytest.mark.parametrize(
    ("norm_type", "p", "weight", "bias", "total"),
    [(2, "2.0", 5.0, 12.0, 13.0), ("1", "1.0", 7.0, 12.0, 19.0), ("inf", "inf", 4.0, 12.0, 12.0)],
)
def test_norms_of_the_parts_and_of_all(norm_type, p, weight, bias, total):
    norms = {name: norm.item() for name, norm in grad_norm(layers(), norm_type).items()}
    assert norms == {
        f"grad_{p}_norm/0.weight": weight,
        f"grad_{p}_norm/0.bias": bias,
        f"grad_{p}_norm_total": pytest.approx(total),
    }


def test_norms_have_the_separator_asked_for_and_none_without_gradients():
    assert "grad_2.0_norm.0.bias" in grad_norm(layers(), 2, group_separator=".")
    assert grad_norm(nn.Linear(1, 1), 2) == {}


@pytest.mark.parametrize("norm_type", [0, -1, "nan", "two"])
def test_norm_of_no_positive_order_is_refused(norm_type):
    with pytest.raises(ValueError, match=str(norm_type)):
        grad_norm(layers(), norm_type)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.decoder = nn.Linear(2, 2)
        self.free = nn.Linear(2, 2, bias=False)
        self.tie()

    def tie(self) -> None:
        self.decoder.weight = self.encoder.weight
        self.encoder.bias = self.decoder.bias


def test_shared_parameters_are_found_and_shared_again_after_they_came_apart():
    module = Tied()
    groups = find_shared_parameters(module)
    assert groups == [["encoder.weight", "decoder.weight"], ["encoder.bias", "decoder.bias"]]

    module.decoder.weight = nn.Parameter(torch.zeros(2, 2))
    assert find_shared_parameters(module) == groups[1:]
    assert set_shared_parameters(module, groups) is module
    assert find_shared_parameters(module) == groups
    assert module.decoder.weight.abs().sum() > 0  # the first name's parameter has won
