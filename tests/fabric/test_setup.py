"""What `setup` gives behaves as the module, the optimizer and the loader that it was given."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, Net, loader, made
from torch import nn

from fulmen import Fabric
from fulmen.fabric import is_wrapped
from fulmen.fabric.wrappers import _FabricDataLoader, _FabricModule, _FabricOptimizer, _unwrap_objects


def fabric_of(**arguments: Any) -> Fabric:
    return Fabric(**{"accelerator": "cpu", **arguments})


class Talker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.temperature = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def generate(self, x: torch.Tensor) -> torch.Tensor:
        return self(x) * self.temperature

    def name(self) -> str:
        return "talker"


def test_what_was_set_up_is_known_and_can_be_unwrapped() -> None:
    fabric = fabric_of()
    net, optimizer = made()
    batches = loader()
    model, wrapped = fabric.setup(net, optimizer)
    shared = fabric.setup_dataloaders(batches)
    assert (type(model), isinstance(wrapped, _FabricOptimizer), type(shared)) == (
        _FabricModule,
        True,
        _FabricDataLoader,
    )
    assert isinstance(wrapped, torch.optim.AdamW)
    assert all(map(is_wrapped, (model, wrapped, shared)))
    assert not any(map(is_wrapped, (net, optimizer, batches)))
    assert _unwrap_objects({"a": [model, wrapped], "b": shared}) == {"a": [net, optimizer], "b": batches}
    assert model.module is net


def test_attributes_are_those_of_the_module() -> None:
    model = fabric_of().setup(Talker())
    model.temperature = 2.0
    model.extra = "more"
    assert model.module.temperature == 2.0
    assert model.module.extra == "more"
    assert model.name() == "talker"
    assert [name for name, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    assert list(model.state_dict()) == ["layer.weight", "layer.bias"]
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    model.eval()
    assert not model.module.training
    with pytest.raises(AttributeError, match="'Talker' object has no attribute 'nothing'"):
        model.nothing  # noqa: B018


def test_inputs_get_the_type_of_the_precision_and_outputs_that_of_torch() -> None:
    seen = []

    class Look(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((x.dtype, super().forward(x).dtype))
            return super().forward(x)

    for precision in ("32-true", "bf16-mixed", "bf16-true", "64-true"):
        output = fabric_of(precision=precision).setup(Look(3, 1))(torch.ones(2, 3, dtype=torch.float64))
        assert output.dtype == torch.float32
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    assert seen == [(single, single), (single, half), (half, half), (double, double)]


class Picky(OrderedDict[str, Any]):
    """A dict as the outputs of some libraries are, which do not take `update`."""

    def update(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        raise TypeError("no update")


def test_an_output_that_does_not_take_update_is_converted() -> None:
    class Wordy(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            output = Picky()
            output["logits"] = super().forward(x)
            return output

    output = fabric_of(precision="bf16-true").setup(Wordy(3, 1))(torch.ones(2, 3))
    assert (type(output), output["logits"].dtype) == (Picky, torch.float32)


def test_a_backward_pass_past_the_scaler_is_refused() -> None:
    fabric = fabric_of(precision="16-mixed")
    model, _ = fabric.setup(*made(torch.optim.SGD))
    with pytest.raises(RuntimeError, match=r"Write `fabric\.backward\(loss\)`"):
        model(torch.ones(2, 3)).sum().backward()
    fabric.backward(model(torch.ones(2, 3)).sum())


def test_a_step_past_the_scaler_is_refused() -> None:
    fabric = fabric_of(precision="16-mixed")
    net, optimizer = made(torch.optim.SGD)
    model, _ = fabric.setup(net, optimizer)
    fabric.backward(model(torch.ones(2, 3)).sum())
    with pytest.raises(Exception, match="SGD was stepped directly"):
        optimizer.step()


def test_two_optimizers_share_the_scaler_as_by_hand() -> None:
    fabric = fabric_of(precision="16-mixed")
    (one, first), (other, second) = fabric.setup(*made()), fabric.setup(*made(lr=0.01))
    (mine, by_hand), (theirs, also) = made(), made(lr=0.01)
    scaler, inputs = torch.amp.GradScaler("cpu"), torch.ones(2, 3)
    for model in (one, other, mine, theirs):
        model.eval()  # no dropout
    for _ in range(6):
        fabric.backward((one(inputs) - other(inputs)).sum() / 64)
        first.step()
        second.step()
        with torch.autocast("cpu", torch.float16, cache_enabled=False):
            outputs = mine(inputs), theirs(inputs)
        scaler.scale((outputs[0].float() - outputs[1].float()).sum() / 64).backward()
        scaler.step(by_hand)
        scaler.step(also)
        scaler.update()
    start = made()[0].enter.weight
    assert not torch.equal(one.enter.weight, start)
    assert torch.equal(one.enter.weight, mine.enter.weight)
    assert torch.equal(other.enter.weight, theirs.enter.weight)


def test_a_scheduler_of_the_wrapped_optimizer_moves_its_rate() -> None:
    fabric = fabric_of()
    model, optimizer = fabric.setup(*made(torch.optim.SGD, lr=1.0))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    fabric.backward(model(torch.ones(2, 3)).sum())
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_scheduler_that_was_set_up_comes_back() -> None:
    net, optimizer = made()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert fabric_of().setup(net, optimizer, scheduler=scheduler)[2] is scheduler


def test_lbfgs_steps_by_its_closure() -> None:
    fabric = fabric_of()
    model, optimizer = fabric.setup(*made(torch.optim.LBFGS, lr=0.1))
    inputs = torch.ones(2, 3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.eval()(inputs).square().sum()
        fabric.backward(loss)
        return loss

    before = optimizer.step(closure).detach()
    assert closure().detach() < before


def test_callbacks_hear_of_steps_of_the_optimizer() -> None:
    heard = []

    class Listener:
        def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:
            heard.append((strategy, optimizer))

    fabric = fabric_of(callbacks=Listener())
    net, own = made()
    _, optimizer = fabric.setup(net, own)
    optimizer.step()
    assert heard == [(fabric.strategy, own)]


def test_a_compiled_module_is_compiled_around_what_it_is_wrapped_in() -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    net = Net().eval()
    model = fabric_of().setup(torch.compile(net, backend=backend))
    inputs = torch.ones(2, 3)
    assert torch.equal(model(inputs), net(inputs))
    assert len(graphs) == 1
    assert list(model.state_dict()) == list(net.state_dict())


def _mark(kind: str) -> str:
    fabric = fabric_of(devices=WORLD, strategy=kind)
    fabric.launch()
    model = fabric.setup(Talker())
    assert model.name() == "talker"
    refused = ""
    try:
        model.generate(torch.ones(1, 3))
    except RuntimeError as error:
        refused = str(error)
    model.mark_forward_method("generate")
    fabric.backward(model.generate(torch.ones(1, 3) * fabric.global_rank).sum())
    gradient = model.layer.weight.grad
    assert gradient is not None
    whole = gradient.full_tensor() if kind == "fsdp" else gradient
    assert whole.flatten().tolist() == [0.5] * 6  # of both processes
    assert "forward" not in vars(model.module)
    return refused


def test_a_method_that_runs_the_module_goes_through_ddp_when_marked() -> None:
    for refused in run(WORLD, _mark, "ddp"):
        assert "`Talker.generate` runs the module past its strategy" in refused
        assert "mark_forward_method('generate')" in refused


def test_a_method_that_runs_the_module_goes_through_fsdp_when_marked() -> None:
    assert run(WORLD, _mark, "fsdp") == ["", ""]


def test_only_a_method_of_the_module_can_be_marked() -> None:
    model = fabric_of().setup(Talker())
    with pytest.raises(TypeError, match=r"mark_forward_method\(3\)"):
        model.mark_forward_method(3)
    with pytest.raises(ValueError, match="needs no mark"):
        model.mark_forward_method("forward")
    with pytest.raises(AttributeError, match="Talker has no method of that name"):
        model.mark_forward_method("temperature")


def test_what_was_set_up_cannot_be_set_up_again() -> None:
    fabric = fabric_of()
    model, optimizer = fabric.setup(*made())
    batches = fabric.setup_dataloaders(loader())
    with pytest.raises(ValueError, match="a module that it has set up already"):
        fabric.setup(model)
    with pytest.raises(ValueError, match="an optimizer that it has set up already"):
        fabric.setup_optimizers(optimizer)
    with pytest.raises(ValueError, match="a loader that it has set up"):
        fabric.setup_dataloaders(batches)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda fabric: fabric.setup(3), TypeError, r"fabric\.setup\(3\)`: must be a `torch\.nn\.Module`"),
        (lambda fabric: fabric.setup(Net(), Net()), TypeError, r"must be a `torch\.optim\.Optimizer`, not a Net"),
        (lambda fabric: fabric.setup_optimizers(), ValueError, "was given no optimizer"),
        (lambda fabric: fabric.setup_dataloaders(), ValueError, "was given no loader"),
        (lambda fabric: fabric.setup_dataloaders(3), TypeError, "cannot be iterated over"),
        (lambda fabric: fabric.backward(torch.ones(1)), RuntimeError, r"called before `fabric\.setup"),
        (lambda fabric: fabric.clip_gradients(*made()), ValueError, "give one of the two"),
        (lambda fabric: fabric.clip_gradients(*made(), clip_val=1, max_norm=1), ValueError, "give one of the two"),
        (lambda fabric: fabric.no_backward_sync(Net()), TypeError, r"the module that `fabric\.setup` returned"),
        (lambda fabric: fabric.setup(Net(), scheduler=3), TypeError, "a scheduler needs its optimizer"),
    ],
)
def test_a_wrong_call_says_what_to_write(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fabric_of())


def test_deepspeed_is_left_to_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    from fulmen.strategies.deepspeed import DeepSpeedStrategy

    with pytest.raises(Exception, match="run by the Trainer only"):
        DeepSpeedStrategy.wrap_module(object(), Net())  # type: ignore[arg-type]


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    fabric = fabric_of()
    model, optimizer = fabric.setup(*made())
    fabric.backward(model(torch.ones(2, 3)).sum() * 100)
    norm = fabric.clip_gradients(model, optimizer, max_norm=1.0, norm_type=1)
    assert norm is not None
    assert norm > 1
    assert float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()], 1.0)) == pytest.approx(1)
    fabric.clip_gradients(model, optimizer, clip_val=0.001)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) == pytest.approx(0.001)
    model.enter.weight.grad[0] = float("nan")
    with pytest.raises(RuntimeError, match="non-finite"):
        fabric.clip_gradients(model, optimizer, max_norm=1.0)


def test_modules_and_tensors_are_made_in_the_precision() -> None:
    fabric = fabric_of(precision="bf16-true")
    with fabric.init_module():
        assert nn.Linear(1, 1).weight.dtype == torch.bfloat16
    with fabric.init_tensor():
        assert torch.ones(1).dtype == torch.bfloat16
    random = torch.get_rng_state()
    with fabric.init_module(empty_init=True):
        nn.Linear(50, 50)
    assert torch.equal(torch.get_rng_state(), random)  # nothing was drawn


def _optimizer_before_sharding() -> tuple[str, bool]:
    fabric = fabric_of(devices=WORLD, strategy="fsdp")
    fabric.launch()
    net, optimizer = made()
    model = fabric.setup_module(net)
    try:
        fabric.setup_optimizers(optimizer)
    except RuntimeError as error:
        text = str(error)
    later = fabric.setup_optimizers(torch.optim.SGD(model.parameters(), 0.1))
    before = net.enter.bias.full_tensor().clone()
    fabric.backward(model(torch.ones(2, 3)).sum())
    later.step()
    return text, torch.equal(before, net.enter.bias.full_tensor())


def test_an_optimizer_of_parameters_that_are_no_more_is_refused() -> None:
    for text, is_still in run(WORLD, _optimizer_before_sharding):
        assert "AdamW was made before `fabric.setup_module(model)`" in text
        assert not is_still


def _backward_of_the_module_as_it_was() -> str:
    fabric = fabric_of(devices=WORLD, strategy="ddp")
    fabric.launch()
    net, optimizer = made()
    fabric.setup(net, optimizer)
    try:
        fabric.backward(net(torch.ones(2, 3)).sum())
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_loss_of_the_module_as_it_was_before_setup_is_refused_on_several_processes() -> None:
    for refused in run(WORLD, _backward_of_the_module_as_it_was):
        assert "model, optimizer = fabric.setup(model, optimizer)" in refused


def test_an_optimizer_of_another_module_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="has no parameter of Talker"):
        fabric_of().setup(Talker(), torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
