"""Who is heard: callbacks that come and go, hooks that are patched, switched off or mocked."""

from __future__ import annotations

import functools
from unittest.mock import MagicMock

import pytest
import torch

from fulmen import Callback
from fulmen.callbacks import LambdaCallback

from .counting import Trains, Validates, batches


class Notes(Callback):
    """Notes the batches that it hears of."""

    def __init__(self):
        self.heard = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.heard.append((trainer.current_epoch, batch_idx))


def test_callback_added_in_mid_epoch_is_heard_from_the_next_batch(trainer_of):
    late = Notes()

    class Adds(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 1 and late not in trainer.callbacks:
                trainer.callbacks.append(late)

    trainer_of(max_epochs=2, callbacks=Adds()).fit(Trains(), batches(3))

    assert late.heard == [(0, 2), (1, 0), (1, 1), (1, 2)]


def test_callback_removed_in_mid_epoch_is_heard_no_more(trainer_of):
    notes = Notes()

    class Removes(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1 and notes in trainer.callbacks:
                trainer.callbacks.remove(notes)

    trainer_of(max_epochs=2, callbacks=[Removes(), notes]).fit(Trains(), batches(3))

    assert notes.heard == [(0, 0), (0, 1)]


@pytest.mark.parametrize("patch", ["function", "partial", "method"])
def test_hook_patched_on_the_instance_is_heard(trainer_of, patch):
    heard = []

    def hook(*args):
        heard.append(len(args))

    module = Trains()
    if patch == "function":
        module.on_train_batch_start = lambda batch, batch_idx: hook(batch, batch_idx)
    elif patch == "partial":
        module.on_train_batch_start = functools.partial(hook, "more")
    else:
        module.on_train_batch_start = hook.__get__(module)
    trainer_of(max_epochs=1).fit(module, batches(2))

    assert heard == [{"function": 2, "partial": 3, "method": 3}[patch]] * 2


def test_hook_patched_when_an_epoch_starts_is_heard_in_that_epoch(trainer_of):
    heard = []

    class Patches(Trains):
        def on_train_epoch_start(self):
            step = type(self).training_step

            def training_step(batch, batch_idx):
                heard.append((self.current_epoch, batch_idx))
                return step(self, batch, batch_idx)

            if self.current_epoch == 1:
                self.training_step = training_step

    trainer_of(max_epochs=2).fit(Patches(), batches(2))

    assert heard == [(1, 0), (1, 1)]


@pytest.mark.parametrize("owner", ["module", "callback"])
def test_hook_set_to_none_is_switched_off(trainer_of, owner):
    class Fails(Trains):
        def on_train_batch_start(self, batch, batch_idx):
            raise AssertionError

    class FailsToo(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            raise AssertionError

    module, callbacks = Trains(), []
    if owner == "module":
        module = Fails()
        module.on_train_batch_start = None
    else:
        callbacks = [FailsToo()]
        callbacks[0].on_train_batch_start = None
    trainer_of(max_epochs=1, callbacks=callbacks).fit(module, batches(2))

    assert len(module.trained) == 2


def test_validation_step_set_to_none_is_no_validation(trainer_of):
    module = Validates()
    module.validation_step = None
    with pytest.warns(UserWarning, match="nothing is validated"):
        trainer_of(max_epochs=1).fit(module, batches(2), batches(2))

    assert module.validated == []


@pytest.mark.parametrize("spec", [None, Callback])
def test_magic_mock_is_a_callback(trainer_of, spec):
    mock = MagicMock(spec=spec) if spec else MagicMock()
    mock.state_dict.return_value = {}
    trainer_of(max_epochs=2, callbacks=mock).fit(Validates(), batches(3), batches(1))

    assert mock.on_train_batch_end.call_count == 6
    assert mock.on_validation_epoch_end.call_count == 3  # with the sanity check
    assert mock.setup.call_args.kwargs.get("stage", mock.setup.call_args.args[-1]) == "fit"
    assert mock.on_fit_end.call_count == mock.teardown.call_count == 1


def test_any_object_with_some_hooks_is_a_callback(trainer_of):
    class Small:
        heard = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.heard += 1

    small = Small()
    trainer_of(max_epochs=1, callbacks=[small]).fit(Trains(), batches(3))

    assert small.heard == 3


def test_lambda_callback_hears(trainer_of):
    heard = []
    callback = LambdaCallback(on_train_batch_end=lambda *args: heard.append(args[-1]))
    trainer_of(max_epochs=1, callbacks=callback).fit(Trains(), batches(3))

    assert heard == [0, 1, 2]


def test_callbacks_of_the_module_take_the_place_of_those_of_the_same_class(trainer_of):
    class Mine(Notes): ...

    given, same, own = Notes(), Mine(), Mine()

    class Configures(Trains):
        def configure_callbacks(self):
            return own

    trainer = trainer_of(max_epochs=1, callbacks=[same])
    trainer.fit(Configures(), batches(1))

    assert trainer.callbacks == [own]
    assert (given.heard, same.heard, own.heard) == ([], [], [(0, 0)])


def test_outputs_of_the_step_reach_the_hooks_detached(trainer_of):
    seen = []

    class Returns(Trains):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return {"loss": loss, "hidden": [self.layer(batch)], "text": "x"}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(outputs)

    trainer_of(max_epochs=1).fit(Returns(), batches(1))

    (outputs,) = seen
    assert outputs["text"] == "x"
    assert not outputs["loss"].requires_grad
    assert not outputs["hidden"][0].requires_grad


def test_outputs_of_validation_and_prediction_reach_the_hooks_as_they_are(trainer_of):
    seen = {}
    token = object()

    class Returns(Trains):
        def validation_step(self, batch, batch_idx):
            return token

        def on_validation_batch_end(self, outputs, batch, batch_idx):
            seen["validation"] = outputs

        def predict_step(self, batch, batch_idx):
            return "text"

        def on_predict_batch_end(self, outputs, batch, batch_idx):
            seen["predict"] = outputs

    module = Returns()
    trainer = trainer_of()
    trainer.validate(module, batches(1), verbose=False)
    predictions = trainer.predict(module, batches(2))

    assert seen == {"validation": token, "predict": "text"}
    assert predictions == ["text", "text"]


def test_predictions_are_a_list_of_batches_or_one_for_each_loader(trainer_of):
    class Predicts(Trains):
        def forward(self, batch):
            return batch * 2

    module, trainer = Predicts(), trainer_of()
    one = trainer.predict(module, batches(2))
    several = trainer.predict(module, [batches(2), batches(1)])

    assert [batch.flatten().tolist() for batch in one] == [[0.0, 2.0], [4.0, 6.0]]
    assert [len(loader) for loader in several] == [2, 1]
    assert trainer.predict(module, batches(2), return_predictions=False) is None


def test_other_spellings_of_the_two_methods_are_accepted(trainer_of):
    from fulmen import LightningModule

    class Spelled(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def train_step(self, batch, batch_idx):
            return self.layer(batch).mean()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Spelled(), batches(3))

    assert trainer.global_step == 3


def test_method_named_almost_like_a_hook_gets_a_warning_with_the_right_name(trainer_of):
    class Misspelled(Trains):
        def on_train_epochs_end(self): ...

    with pytest.warns(UserWarning, match="`on_train_epoch_end`"):
        trainer_of(max_epochs=1).fit(Misspelled(), batches(1))


def test_plan_names_who_is_called(trainer_of):
    printed = []

    class Prints(Callback):
        def on_train_start(self, trainer, pl_module):
            printed.append(str(trainer.plan))

    trainer_of(max_epochs=1, callbacks=Prints()).fit(Trains(), batches(1))

    (text,) = printed
    assert "on_train_start" in text
    assert "Prints" in text
    assert "forward, backward, clip, step" in text
    assert "on_train_end" not in text
