from __future__ import annotations

from textwrap import dedent

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fulmen.utilities.model_summary import (
    LayerSummary,
    ModelSummary,
    get_formatted_model_size,
    get_human_readable_count,
    parse_batch_shape,
    summarize,
)


class Net(nn.Module):
    """Parameters by hand: encoder (3*4+4) + (4*4+4) = 36, decoder 4*2+2 = 10, scale 5, unused 2*2 = 4 (frozen)."""

    def __init__(self, example: object = None) -> None:
        super().__init__()
        self.example_input_array = example
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))
        self.decoder = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(5))
        self.unused = nn.Linear(2, 2, bias=False).requires_grad_(False)

    def forward(self, x: Tensor, double: Tensor | None = None) -> Tensor:
        return self.decoder(self.encoder(x))


def test_parameters_are_counted_as_by_hand():
    summary = summarize(Net())
    assert summary.layer_names == ["encoder", "decoder", "unused"]
    assert summary.layer_types == ["Sequential", "Linear", "Linear"]
    assert summary.param_nums == [36, 10, 4]
    assert summary.total_layer_params == 50
    assert summary.leftover_parameters == 5
    assert summary.total_parameters == 55
    assert summary.trainable_parameters == 51
    assert summary.model_size == 55 * 4 / 1e6


@pytest.mark.parametrize(
    ("max_depth", "names", "leftover"),
    [
        (0, [], 55),
        (1, ["encoder", "decoder", "unused"], 5),
        (2, ["encoder", "encoder.0", "encoder.1", "encoder.2", "decoder", "unused"], 5),
        (-1, ["encoder", "encoder.0", "encoder.1", "encoder.2", "decoder", "unused"], 5),
    ],
)
def test_depth_decides_which_modules_are_listed(max_depth, names, leftover):
    summary = ModelSummary(Net(), max_depth=max_depth)
    assert summary.layer_names == names
    assert summary.leftover_parameters == leftover
    assert summary.total_parameters == 55


@pytest.mark.parametrize("max_depth", [-2, "all", 1.5, None])
def test_depth_that_is_none_is_refused(max_depth):
    with pytest.raises(ValueError, match="max_depth"):
        ModelSummary(Net(), max_depth=max_depth)


@pytest.mark.parametrize(
    "example", [torch.ones(7, 3), (torch.ones(7, 3),), [torch.ones(7, 3), torch.ones(1)], {"x": torch.ones(7, 3)}]
)
def test_example_input_gives_sizes_and_flops(example):
    summary = ModelSummary(Net(example), max_depth=-1)
    assert summary.in_sizes == [[7, 3], [7, 3], [7, 4], [7, 4], [7, 4], "?"]
    assert summary.out_sizes == [[7, 4], [7, 4], [7, 4], [7, 4], [7, 2], "?"]
    flops = {name: sum(counts.values()) for name, counts in summary.flop_counts.items()}
    first, second, decoder = 2 * 7 * 3 * 4, 2 * 7 * 4 * 4, 2 * 7 * 4 * 2
    assert flops == {
        "encoder": first + second,
        "encoder.0": first,
        "encoder.1": 0,
        "encoder.2": second,
        "decoder": decoder,
        "unused": 0,
    }
    assert summary.total_flops == first + second + decoder


def test_inputs_by_keyword_and_nested_outputs_have_their_sizes():
    class Recurrent(nn.Module):
        example_input_array = torch.ones(2, 3, 5)

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(5, 7)
            self.head = nn.Linear(7, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.rnn(x)[0])

    summary = summarize(Recurrent())
    assert summary.in_sizes == [[2, 3, 5], [2, 3, 7]]
    assert summary.out_sizes == [[[2, 3, 7], [1, 3, 7]], [2, 3, 1]]


def test_the_look_at_the_model_leaves_modes_generators_gradients_and_hooks_alone():
    class Noisy(nn.Module):
        example_input_array = torch.ones(2, 3)

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.frozen = nn.Dropout().eval()
            self.seen: list[tuple[bool, bool]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append((self.norm.training, torch.is_grad_enabled()))
            return self.frozen(self.norm(x + torch.rand(1)))

    model = Noisy()
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    summary = summarize(model)
    assert torch.equal(torch.rand(1), wanted)
    assert model.seen == [(False, False)]
    assert summary.training_modes == [True, False]
    assert summary.total_training_modes == {"train": 1, "eval": 1}
    assert model.norm.num_batches_tracked == 0
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failing_example_leaves_the_model_as_it_was():
    model = Net(torch.ones(1, 99))
    with pytest.raises(RuntimeError, match="shapes"):
        summarize(model)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_shared_parameters_and_modules_count_once_in_the_total():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.again = self.first
            self.own = nn.Parameter(torch.ones(2))

    summary = summarize(Tied())
    assert summary.layer_names == ["first", "second"]
    assert summary.param_nums == [12, 12]
    assert summary.total_parameters == 9 + 3 + 3 + 2
    assert summary.leftover_parameters == 2


def test_lazy_parameters_count_as_zero_with_a_warning_and_fully_after_an_example():
    model = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2))
    with pytest.warns(UserWarning, match="not initialised"):
        summary = summarize(model)
    assert summary.param_nums == [0, 6]
    assert summary.total_parameters == 6

    model.example_input_array = torch.ones(1, 4)
    assert summarize(model).param_nums == [10, 6]


def test_size_in_megabytes_is_that_of_the_types_in_use():
    model = nn.Sequential(nn.Linear(999, 1000).half(), nn.Linear(1000, 1, bias=False))
    assert summarize(model).model_size == pytest.approx((1_000_000 * 2 + 1000 * 4) / 1e6)


def test_table_shows_layers_leftovers_and_totals():
    model = Net(torch.ones(7, 3))
    model.decoder.eval()
    assert str(summarize(model)) == dedent(
        """\
          | Name         | Type       | Params | Mode  | FLOPs | In sizes | Out sizes
        -----------------------------------------------------------------------------
        0 | encoder      | Sequential | 36     | train | 392   | [7, 3]   | [7, 4]
        1 | decoder      | Linear     | 10     | eval  | 112   | [7, 4]   | [7, 2]
        2 | unused       | Linear     | 4      | train | 0     | ?        | ?
          | other params | n/a        | 5      | n/a   | n/a   | n/a      | n/a
        -----------------------------------------------------------------------------
        51        Trainable params
        4         Non-trainable params
        55        Total params
        0.000     Total estimated model params size (MB)
        5         Modules in train mode
        1         Modules in eval mode
        504       Total FLOPs"""
    )


def test_table_without_an_example_does_not_claim_zero_flops():
    columns = dict(summarize(Net()).columns())
    assert list(columns) == [" ", "Name", "Type", "Params", "Mode", "FLOPs"]
    assert columns["FLOPs"] == ["?", "?", "?", "n/a"]


def test_table_of_an_empty_model_has_totals_only():
    assert "0         Total params" in str(summarize(nn.Module()))


def test_layer_notes_its_first_call_only():
    layer = nn.Linear(2, 3)
    summary = LayerSummary(layer)
    assert (summary.in_size, summary.out_size) == ("?", "?")
    layer(torch.ones(4, 2))
    layer(torch.ones(9, 2))
    assert (summary.in_size, summary.out_size) == ([4, 2], [4, 3])


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        (torch.ones(2, 3), [2, 3]),
        (torch.ones(()), []),
        ([torch.ones(1), (torch.ones(2), None)], [[1], [[2], "?"]]),
        ({"x": torch.ones(1)}, "?"),
        (None, "?"),
        ("text", "?"),
    ],
)
def test_shape_of_a_batch(batch, shape):
    assert parse_batch_shape(batch) == shape


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0  "),
        (123, "123  "),
        (999, "999  "),
        (1000, "1.0 K"),
        (1234, "1.2 K"),
        (99_949, "99.9 K"),
        (99_960, "100 K"),
        (123_999, "124 K"),
        (999_999, "1.0 M"),
        (2_000_000, "2.0 M"),
        (3_000_000_000, "3.0 B"),
        (4 * 10**14, "400 T"),
        (5 * 10**15, "5,000 T"),
    ],
)
def test_counts_are_written_for_people(number, text):
    assert get_human_readable_count(number) == text


@given(st.integers(0, 10**16))
def test_count_written_for_people_is_within_a_twentieth(number):
    value, _, unit = get_human_readable_count(number).partition(" ")
    read = float(value.replace(",", "")) * 1000 ** " KMBT".index(unit.strip() or " ")
    assert read == pytest.approx(number, rel=0.05)


def test_negative_count_is_refused():
    with pytest.raises(ValueError, match="-1"):
        get_human_readable_count(-1)


def test_size_is_written_with_separators_and_three_decimals():
    assert get_formatted_model_size(1234567.8912) == "1,234,567.891"
