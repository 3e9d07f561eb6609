from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen.utilities.parsing import (
    AttributeDict,
    clean_namespace,
    is_picklable,
    lightning_getattr,
    lightning_hasattr,
    lightning_setattr,
)


@given(st.dictionaries(st.text(min_size=1), st.integers()))
def test_attribute_dict_has_its_entries_as_attributes_and_stays_a_dict(entries):
    record = AttributeDict(entries)
    assert record == entries
    for key in entries:
        if key not in dir(AttributeDict):
            assert getattr(record, key) == entries[key]
    for clone in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert type(clone) is AttributeDict
        assert clone == entries


def test_attribute_dict_is_set_and_deleted_through_attributes():
    record = AttributeDict(lr=0.1)
    record.lr = 0.2
    record.depth = 3
    assert record == {"lr": 0.2, "depth": 3}
    del record.lr
    assert "lr" not in record
    with pytest.raises(AttributeError, match="'lr' is not among"):
        record.lr  # noqa: B018
    with pytest.raises(KeyError):
        del record.lr


def test_attribute_dict_prints_its_entries_sorted_one_a_line():
    assert repr(AttributeDict(width=1, lr="x")) == '"lr":    x\n"width": 1'
    assert repr(AttributeDict()) == ""


def test_clean_namespace_removes_what_cannot_be_pickled_and_names_it():
    hparams = {"lr": 1, "function": lambda: 0}
    with pytest.warns(UserWarning, match="'function'"):
        clean_namespace(hparams)
    assert hparams == {"lr": 1}
    assert is_picklable(hparams)


def owners(hparams):
    datamodule = SimpleNamespace(batch_size=8, hparams=AttributeDict(batch_size=8))
    return SimpleNamespace(lr=0.1, hparams=hparams, trainer=SimpleNamespace(datamodule=datamodule))


@pytest.mark.parametrize("kind", [AttributeDict, SimpleNamespace])
def test_attribute_is_found_at_module_hparams_and_datamodule_and_set_at_each(kind):
    model = owners(kind(lr=0.2))
    assert lightning_hasattr(model, "lr")
    assert lightning_getattr(model, "lr") == 0.2  # the hyperparameters come after the module
    assert lightning_getattr(model, "batch_size") == 8

    lightning_setattr(model, "lr", 0.5)
    assert (model.lr, model.hparams.lr) == (0.5, 0.5)
    lightning_setattr(model, "batch_size", 16)
    assert (model.trainer.datamodule.batch_size, model.trainer.datamodule.hparams.batch_size) == (16, 16)
    assert not hasattr(model, "batch_size")


def test_an_attribute_that_nobody_has_is_an_error():
    model = SimpleNamespace(hparams={})
    assert not lightning_hasattr(model, "lr")
    with pytest.raises(AttributeError, match=r"'lr'.*hyperparameters"):
        lightning_getattr(model, "lr")
    with pytest.raises(AttributeError, match="'lr'"):
        lightning_setattr(model, "lr", 1)
