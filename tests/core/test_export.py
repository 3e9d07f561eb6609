"""Modules in the formats of other programs compute what the module computes, and leave it as it was."""

from __future__ import annotations

import importlib.util
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fulmen.core.module import LightningModule
from fulmen.trainer.trainer import Trainer
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import LightningDeprecationWarning


class Net(LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.frozen = nn.Dropout(0.5).eval()
        self.layers = nn.Sequential(nn.Linear(width, 2), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.frozen(x))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("loss", self.trainer.global_step)
        return self(batch).sum()


class OfTwo(LightningModule):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y


SAMPLE = torch.arange(6.0).reshape(2, 3)


def expected(net: Net, x: Tensor) -> Tensor:
    return nn.functional.linear(x, net.layers[0].weight, net.layers[0].bias)


def assert_untouched(net: Net) -> None:
    assert net.training
    assert net.layers[1].training
    assert not net.frozen.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))


# -- torch.export -----------------------------------------------------------------------------------------------------


def test_exported_program_computes_forward_for_evaluation() -> None:
    net = Net()

    program = net.to_exported_program(SAMPLE)

    torch.testing.assert_close(program.module()(SAMPLE), expected(net, SAMPLE))
    assert_untouched(net)


def test_exported_program_passes_arguments_on() -> None:
    batch = torch.export.Dim("batch")

    program = Net().to_exported_program(SAMPLE, dynamic_shapes={"x": {0: batch}})

    assert program.module()(torch.ones(7, 3)).shape == (7, 2)


@pytest.mark.parametrize(
    "sample", [(torch.tensor(3.0), torch.tensor(1.0)), {"y": torch.tensor(1.0), "x": torch.ones(())}]
)
def test_exported_program_takes_positional_and_keyword_samples(sample) -> None:
    program = OfTwo().to_exported_program(sample)

    if isinstance(sample, tuple):
        assert program.module()(*sample) == 2
    else:
        assert program.module()(**sample) == 0


def test_example_input_array_stands_in_for_a_sample() -> None:
    net = Net()
    net.example_input_array = SAMPLE

    torch.testing.assert_close(net.to_exported_program().module()(SAMPLE), expected(net, SAMPLE))


def test_sample_goes_through_the_hooks_of_a_batch() -> None:
    class Doubling(OfTwo):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch["first"], batch["second"]

    program = Doubling().to_exported_program({"first": torch.tensor(3.0), "second": torch.tensor(1.0)})

    assert program.module()(torch.tensor(3.0), torch.tensor(1.0)) == 2


@pytest.mark.parametrize(
    "export",
    [
        lambda net: net.to_exported_program(),
        lambda net: net.to_onnx("x.onnx"),
        lambda net: net.to_torchscript(method="trace"),
    ],
)
def test_export_without_a_sample_raises_and_says_what_to_write(export) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LightningDeprecationWarning)
        with pytest.raises(
            ValueError, match=r"export Net\. Write `to_.*=\.\.\.\)`, or set `self\.example_input_array`"
        ):
            export(Net())


# -- torchscript ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["script", "trace"])
def test_torchscript_computes_forward_and_can_be_saved(tmp_path, method) -> None:
    net = Net()
    net.example_input_array = SAMPLE

    with pytest.warns(LightningDeprecationWarning, match="to_exported_program") as caught:
        scripted = net.to_torchscript(tmp_path / "deep" / "net.pt", method=method)

    assert len(caught) == 1
    torch.testing.assert_close(scripted(SAMPLE), expected(net, SAMPLE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        again = torch.jit.load(tmp_path / "deep" / "net.pt")
    torch.testing.assert_close(again(SAMPLE), expected(net, SAMPLE))
    assert_untouched(net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_traces_keyword_samples() -> None:
    scripted = OfTwo().to_torchscript(method="trace", example_inputs={"y": torch.tensor(1.0), "x": torch.tensor(3.0)})

    assert scripted(x=torch.tensor(5.0), y=torch.tensor(1.0)) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_a_module_within_a_module_works() -> None:
    class Outer(LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * 2

    model = Outer()

    torch.testing.assert_close(model.to_torchscript()(SAMPLE), expected(model.inner, SAMPLE) * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_module_asks_for_its_trainer_as_before_once_it_was_scripted() -> None:
    net = Net()
    net.to_torchscript()

    with pytest.raises(RuntimeError, match="not attached to a Trainer"):
        net.trainer  # noqa: B018
    assert net.global_step == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_module_with_a_trainer_can_be_exported_and_keeps_it() -> None:
    net = Net()
    trainer = Trainer(logger=False, enable_checkpointing=False)
    net.trainer = trainer

    net.to_torchscript()
    net.to_torchscript(method="trace", example_inputs=SAMPLE)
    net.to_exported_program(SAMPLE)

    assert net.trainer is trainer


def test_torchscript_of_another_method_raises_and_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"method='guess'.*'script' and 'trace'"):
        Net().to_torchscript(method="guess")  # type: ignore[arg-type]


# -- onnx -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("target", ["path", "text", "file"])
def test_onnx_is_written(tmp_path, target) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    net, path, file = Net(), tmp_path / "net.onnx", io.BytesIO()

    net.to_onnx({"path": path, "text": str(path), "file": file}[target], SAMPLE, dynamo=False)

    model = onnx.load_from_string(file.getvalue() if target == "file" else path.read_bytes())
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.input] != []
    assert_untouched(net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_program_is_returned() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")

    program = OfTwo().to_onnx(input_sample={"x": torch.ones(2), "y": torch.ones(2)}, dynamo=True)

    assert isinstance(program, torch.onnx.ONNXProgram)
    assert {tensor.name for tensor in program.model_proto.graph.input} == {"x", "y"}


@pytest.mark.parametrize(("package", "hint"), [("onnx", "pip install onnx`"), ("onnxscript", "dynamo=False")])
def test_onnx_without_its_packages_raises_and_says_what_to_run(monkeypatch, package, hint) -> None:
    without(monkeypatch, package)

    with pytest.raises(ModuleNotFoundError, match=rf"needs the package {package},.*{hint}"):
        Net().to_onnx(io.BytesIO(), SAMPLE, dynamo=True)


# -- tensorrt ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tensorrt(monkeypatch) -> None:
    """Something that can be found under the name of the package, for the checks before it is used."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: find("io") if name == "torch_tensorrt" else find(name, *rest)
    )


def test_tensorrt_without_its_package_raises_and_says_what_to_run(monkeypatch) -> None:
    without(monkeypatch, "torch_tensorrt")

    with pytest.raises(ModuleNotFoundError, match="pip install torch-tensorrt"):
        Net().to_tensorrt(input_sample=SAMPLE)


def test_tensorrt_off_a_gpu_raises_and_says_where_it_runs(tensorrt) -> None:
    with pytest.raises(MisconfigurationException, match="module is on cpu and `default_device` is cpu"):
        Net().to_tensorrt(input_sample=SAMPLE, default_device="cpu")


@pytest.mark.parametrize("arguments", [{"ir": "ts"}, {"ir": "other"}])
def test_tensorrt_with_formats_that_do_not_exist_raises(tensorrt, arguments) -> None:
    with pytest.raises(ValueError, match=r"it has only 'torchscript'|only 'default'"):
        Net().to_tensorrt(input_sample=SAMPLE, **arguments)
