"""``Trainer(precision=...)``: the spellings, in what numbers things are made, and what it costs in accuracy."""

from __future__ import annotations

import math

import pytest
import torch
from tests.loops.by_hand import Regressor, loader
from torch import nn

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule
from fulmen.plugins import (
    BitsandbytesPrecision,
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
    TransformerEnginePrecision,
    XLAPrecision,
)
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

SPELLINGS = {
    "32-true": [None, 32, "32", "32-true", torch.float32],
    "64-true": [64, "64", "64-true", torch.float64, torch.double],
    "16-mixed": [16, "16", "16-mixed"],
    "bf16-mixed": ["bf16", "bf16-mixed"],
    "16-true": ["16-true", torch.float16, torch.half],
    "bf16-true": ["bf16-true", torch.bfloat16],
}
KINDS = {
    "32-true": Precision,
    "64-true": DoublePrecision,
    "16-mixed": MixedPrecision,
    "bf16-mixed": MixedPrecision,
    "16-true": HalfPrecision,
    "bf16-true": HalfPrecision,
}
DTYPES = {"32-true": torch.float32, "64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}


@pytest.mark.parametrize(("name", "spelling"), [(name, spelling) for name in SPELLINGS for spelling in SPELLINGS[name]])
def test_all_spellings_choose_the_precision(trainer_of, name, spelling):
    trainer = trainer_of(precision=spelling)
    assert trainer.precision == name
    assert type(trainer.precision_plugin) is KINDS[name]


@pytest.mark.parametrize("value", ["fp16", 8, "16-bit", torch.int64, 16.0, [16]])
def test_spelling_that_is_none_is_an_error_that_lists_them(value):
    with pytest.raises(ValueError, match=r"must be one of \['32-true', '64-true', '16-mixed'"):
        Trainer(precision=value)


@pytest.mark.parametrize("precision", DTYPES)
def test_layers_of_init_module_and_configure_model_are_made_in_the_right_type(trainer_of, precision):
    class Late(Regressor):
        def __init__(self):
            super().__init__()
            self.made = None

        def configure_model(self):
            if self.made is None:
                self.made = nn.Linear(2, 2)
                self.type_when_made = self.made.weight.dtype

    trainer = trainer_of(precision=precision, max_steps=1)
    with trainer.init_module():
        assert nn.Linear(2, 2).weight.dtype == DTYPES[precision]
        assert torch.zeros(1).dtype == DTYPES[precision]
    assert nn.Linear(2, 2).weight.dtype == torch.float32
    model = Late()
    trainer.fit(model, loader(4))
    assert model.type_when_made == DTYPES[precision]
    assert {parameter.dtype for parameter in model.parameters()} == {DTYPES[precision]}
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_layers_of_mixed_precision_are_made_in_32_bits_and_compute_in_16(trainer_of, precision):
    seen = []

    class Curious(Regressor):
        def training_step(self, batch, batch_idx):
            seen.append(self.net(batch[0]).dtype)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen.append(self.net(batch[0]).dtype)

    trainer = trainer_of(precision=precision, max_steps=1)
    with trainer.init_module():
        model = Curious()
    assert model.dtype == torch.float32
    trainer.fit(model, loader(4), loader(4))
    trainer.validate(model, loader(4), verbose=False)
    assert set(seen) == {torch.float16 if precision == "16-mixed" else torch.bfloat16}


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "16-mixed"])
def test_epoch_mean_of_16_bit_values_is_as_exact_as_in_double_precision(trainer_of, precision):
    """In 16 bits the sum of 4096 values beyond 1 could not even count them."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    values = torch.linspace(1.0, 3.0, 4096).to(dtype)

    class Logs(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def validation_step(self, batch, batch_idx):
            self.log("value", values[batch_idx], batch_size=1)

    trainer = trainer_of(precision=precision)
    trainer.validate(Logs(), torch.zeros(4096, 1), verbose=False)
    assert trainer.callback_metrics["value"].item() == pytest.approx(values.double().mean().item(), rel=1e-6)


def test_adams_eps_that_is_zero_in_16_bits_is_warned_of(trainer_of):
    def adam(eps):
        return lambda module: torch.optim.Adam(module.parameters(), eps=eps)

    with pytest.warns(UserWarning, match=r"Adam\(eps=1e-08\) and `precision='16-true'`.*Write `eps=1e-4`"):
        trainer_of(precision="16-true", max_steps=1).fit(Regressor(adam(1e-8)), loader(4))
    trainer_of(precision="16-true", max_steps=1).fit(Regressor(adam(1e-4)), loader(4))
    trainer_of(precision="bf16-true", max_steps=1).fit(Regressor(adam(1e-8)), loader(4))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_step_without_a_scaler_is_the_plain_one(trainer_of, precision):
    trainer = trainer_of(precision=precision, max_steps=1)
    trainer.fit(Regressor(), loader(4))
    assert trainer.plan.steps_alone
    assert trainer.scaler is None


def test_step_with_a_scaler_is_not(trainer_of):
    trainer = trainer_of(precision="16-mixed", max_steps=1)
    trainer.fit(Regressor(), loader(4))
    assert not trainer.plan.steps_alone


def test_digits_are_read_as_well_in_16_bits_as_in_32(trainer_of):
    errors = {}
    for precision in ("32-true", "16-mixed", "bf16-mixed"):
        seed_everything(1)
        trainer = trainer_of(precision=precision, max_epochs=3)
        model, digits = DigitsClassifier(channels=8), DigitsDataModule(batch_size=64)
        trainer.fit(model, datamodule=digits)
        errors[precision] = 1 - trainer.test(model, datamodule=digits, verbose=False)[0]["test_acc"]
        assert math.isfinite(trainer.callback_metrics["test_loss"])
    assert errors["32-true"] < 0.07
    for precision in ("16-mixed", "bf16-mixed"):
        assert errors[precision] <= errors["32-true"] + 0.015, errors  # of 300 images, four or five


# -- plugins that need more -------------------------------------------------------------------------------------------


@pytest.mark.skipif(package_available("transformer_engine"), reason="it is installed")
@pytest.mark.parametrize("precision", ["transformer-engine", "transformer-engine-float16"])
def test_transformer_engine_that_is_not_there_is_an_error_with_the_line_that_installs_it(precision):
    with pytest.raises(ModuleNotFoundError, match="pip install 'transformer_engine"):
        Trainer(precision=precision)
    with pytest.raises(ModuleNotFoundError, match="pip install 'transformer_engine"):
        TransformerEnginePrecision(weights_dtype=torch.bfloat16)


@pytest.mark.skipif(package_available("bitsandbytes"), reason="it is installed")
def test_bitsandbytes_that_is_not_there_is_an_error_with_the_line_that_installs_it():
    with pytest.raises(ModuleNotFoundError, match="pip install 'bitsandbytes'"):
        BitsandbytesPrecision("nf4")


def test_mode_of_bitsandbytes_that_is_none_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match=r"must be one of \['nf4', 'nf4-dq'"):
        BitsandbytesPrecision("int4")  # type: ignore[arg-type]


@pytest.mark.skipif(not package_available("bitsandbytes"), reason="bitsandbytes is not installed")
@pytest.mark.parametrize("mode", ["nf4", "nf4-dq", "fp4", "fp4-dq"])
def test_bitsandbytes_keeps_linear_layers_in_4_bits_and_trains_the_others(trainer_of, mode):
    torch.manual_seed(1)
    model = Regressor()
    model.net[0] = nn.Linear(4, 64)
    model.net[3] = nn.Linear(64, 1)
    weight = model.net[0].weight.detach().clone()
    trainer = trainer_of(plugins=BitsandbytesPrecision(mode, ignore_modules={"net.3"}), max_epochs=1)
    trainer.fit(model, loader(16))

    assert type(model.net[0]).__name__ == "Linear4bit"
    assert type(model.net[3]) is nn.Linear
    assert (model.net[0].weight.dtype, model.net[3].weight.dtype) == (torch.uint8, torch.bfloat16)
    assert trainer.precision == mode
    kept = nn.functional.linear(torch.eye(4), weight)
    with torch.no_grad():
        got = model.net[0](torch.eye(4, dtype=torch.bfloat16)) - model.net[0].bias
    assert (got.float() - kept).abs().max() < 0.15


def test_precision_that_xla_does_not_have_is_an_error_that_lists_its_own():
    with pytest.raises(MisconfigurationException, match=r"must be one of \['32-true', '16-true', 'bf16-true'\]"):
        XLAPrecision("16-mixed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'bf16-true' or '16-true'"):
        HalfPrecision("16-mixed")  # type: ignore[arg-type]
