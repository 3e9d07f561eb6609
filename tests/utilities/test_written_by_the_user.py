from __future__ import annotations

from functools import partial, wraps

import pytest

from fulmen.callbacks.callback import Callback
from fulmen.utilities.model_helpers import is_overridden
from fulmen.utilities.signature_utils import is_param_in_hook_signature


class Listener(Callback):
    def on_fit_start(self, trainer, pl_module):
        pass


def test_method_of_the_class_is_overridden_and_the_inherited_one_is_not():
    assert is_overridden("on_fit_start", Listener())
    assert not is_overridden("on_fit_end", Listener())
    assert not is_overridden("on_fit_start", None)
    assert is_overridden("on_fit_start", Listener(), parent=Callback)
    assert not is_overridden("on_fit_start", Listener(), parent=Listener)


def test_method_of_the_instance_is_overridden_and_none_switches_off():
    callback = Callback()
    callback.on_fit_end = print
    assert is_overridden("on_fit_end", callback)
    callback.on_fit_end = None
    assert not is_overridden("on_fit_end", callback)


def test_wrapping_the_parents_own_method_does_not_override_it():
    callback = Callback()
    callback.on_fit_end = partial(callback.on_fit_end)
    assert not is_overridden("on_fit_end", callback)
    callback.on_fit_start = wraps(callback.on_fit_start)(lambda *args: None)
    assert not is_overridden("on_fit_start", callback)


def test_unknown_parent_and_unknown_method_are_errors():
    with pytest.raises(ValueError, match="int derives from none of"):
        is_overridden("on_fit_end", 5)
    with pytest.raises(ValueError, match="Callback has no such method"):
        is_overridden("on_fit_finish", Callback())


@pytest.mark.parametrize(
    ("function", "options", "found"),
    [
        (lambda batch, batch_idx: 0, {}, True),
        (lambda batch: 0, {}, False),
        (lambda *args: 0, {}, True),
        (lambda *args: 0, {"explicit": True}, False),
        (lambda **kwargs: 0, {}, False),
        (lambda a, b: 0, {"min_args": 2}, True),
        (lambda a: 0, {"min_args": 2}, False),
        (partial(lambda a, batch_idx: 0, 1), {"explicit": True}, True),
        (Listener().on_fit_start, {"min_args": 3}, False),
    ],
)
def test_parameter_is_found_by_name_by_star_or_by_number(function, options, found):
    assert is_param_in_hook_signature(function, "batch_idx", **options) is found
