"""How a module is cut into parts that are sharded one by one, and how whole tensors and shards become each other."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from fulmen.utilities.exceptions import MisconfigurationException

#: what says which modules are sharded on their own: a function of a module, or their classes
Policy = Callable[..., Any] | set[type[nn.Module]]


# -- the parts --------------------------------------------------------------------------------------------------------


def parts_of(module: nn.Module, policy: Policy | None) -> list[nn.Module]:
    """The sub-modules that are gathered and freed one by one; what is in none of them is one more part.

    Args:
        policy: a set of classes; a function ``policy(module) -> bool``, which may be written for the older
            ``FullyShardedDataParallel`` (``policy(module, recurse, nonwrapped_numel)``, or an object with
            ``_run_policy``). None: the members of each ``ModuleList`` or ``Sequential`` that has at least two of the
            same class with parameters.

    Raises:
        MisconfigurationException: ``policy`` chooses nothing, so that all would be gathered at once.
    """
    inner = [child for name, child in module.named_modules() if name]
    if policy is None:
        return [part for part in _repeated(module) if not _shares_parameters(part, module)]
    if isinstance(policy, (set, frozenset, list, tuple)):
        classes = tuple(policy)
        chosen = [child for child in inner if isinstance(child, classes)]
        asked = ", ".join(sorted(one.__name__ for one in classes)) or "no class"
    elif hasattr(policy, "_run_policy"):  # torch's own for the older one, such as ModuleWrapPolicy
        found = policy._run_policy(module, set(), {})  # type: ignore[attr-defined]
        chosen = [child for child in inner if child in found]
        asked = repr(policy)
    else:
        chosen = [child for child in inner if _is_chosen(policy, child)]
        asked = getattr(policy, "__name__", repr(policy))
    chosen = [part for part in chosen if any(True for _ in part.parameters())]
    if not chosen:
        kinds = Counter(type(child).__name__ for child in inner if any(True for _ in child.parameters()))
        known = ", ".join(kinds) or "none"
        raise MisconfigurationException(
            f"`auto_wrap_policy` ({asked}) chooses no sub-module of {type(module).__name__}, so nothing would be "
            f"sharded on its own. Those with parameters are of the classes {known}. Name some of these, or leave the "
            "argument out."
        )
    shared = next((part for part in chosen if _shares_parameters(part, module)), None)
    if shared is not None:
        raise MisconfigurationException(
            f"`auto_wrap_policy` ({asked}) chooses a {type(shared).__name__} that shares a parameter with another part "
            f"of {type(module).__name__}; both must be sharded together. Leave this one out of the policy."
        )
    return chosen


def _repeated(module: nn.Module) -> list[nn.Module]:
    """The blocks of a model: what it repeats, without what they repeat themselves."""
    found: list[nn.Module] = []
    count: Counter[type] = Counter()
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        count.update(type(member) for member in module if any(True for _ in member.parameters()))
    for child in module.children():
        found += [child] if count[type(child)] > 1 else _repeated(child)
    return list(dict.fromkeys(found))


def parts_by_hand(module: nn.Module) -> list[nn.Module]:
    """The sub-modules that a step calls in manual optimization: children, and the members of containers that cannot be
    called. Each is gathered when it is called, as steps go backward, and step optimizers, in between.

    Raises:
        MisconfigurationException: the module has parameters in none of them.
    """
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if own:
        raise MisconfigurationException(
            f"in manual optimization with sharded parameters {type(module).__name__} cannot have the parameter "
            f"{own[0]!r} itself, as nobody knows when it is used. Put it into a sub-module with a `forward`."
        )
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found += parts_by_hand(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found


def _is_chosen(policy: Callable[..., Any], child: nn.Module) -> bool:
    try:
        return bool(policy(child))
    except TypeError:  # written for the older one, which asks for more
        return bool(policy(module=child, recurse=False, nonwrapped_numel=sum(p.numel() for p in child.parameters())))


def _shares_parameters(part: nn.Module, module: nn.Module) -> bool:
    own = {id(parameter) for parameter in part.parameters()}
    inside = set(part.modules())
    others = (child for child in module.modules() if child not in inside)
    return any(id(parameter) in own for child in others for parameter in child.parameters(recurse=False))


# -- from a whole module to its shards --------------------------------------------------------------------------------


def shard(
    module: nn.Module,
    parts: Iterable[nn.Module],
    fully_shard: Callable[[nn.Module], Any],
    device: torch.device,
    will_be_loaded: bool = False,
    as_a_whole: bool = True,
) -> None:
    """Shard the parts of a module and then the module, each as soon as its parameters are there.

    Those on the meta device are made here, one module after the other in the order in which a constructor makes them,
    so that they get the values that they have in one process with the same seed; a part is sharded before the next is
    made, and no more than one is whole at a time.

    Args:
        device: where parameters and buffers go.
        will_be_loaded: a checkpoint gives the values, so that those need no rule which cannot be made.
        as_a_whole: shard what is in no part.

    Raises:
        MisconfigurationException: a module on the meta device has no ``reset_parameters``.
    """
    own_parts = {*parts, *([module] if as_a_whole else [])}
    done: set[nn.Module] = set()

    def visit(child: nn.Module) -> None:
        if child in done:
            return
        done.add(child)
        for inner in child.children():
            visit(inner)
        _make(child, device, will_be_loaded)
        if child in own_parts:
            child.to(device)
            fully_shard(child)

    visit(module)


def materialize(module: nn.Module, device: torch.device) -> None:
    """Give parameters and buffers on the meta device memory on ``device``, and the values of a constructor there."""
    shard(module, (), _not_sharded, device, as_a_whole=False)


def _not_sharded(part: nn.Module) -> None:
    """What is called for each part where there is none."""


def _make(child: nn.Module, device: torch.device, will_be_loaded: bool) -> None:
    """Give the parameters and buffers of one module memory and values, if they are on the meta device."""
    tensors = [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]
    if not any(tensor.is_meta for _, tensor in tensors):
        return
    # what is spread already gets its values as a whole, which are those that one process gives it
    spread = {name: one for name, one in child.named_parameters(recurse=False) if isinstance(one, DTensor)}
    for name, parameter in spread.items():
        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
        setattr(child, name, nn.Parameter(empty, parameter.requires_grad))
    child.to_empty(device=device, recurse=False)
    reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
    if reset is not None:
        with torch.no_grad():
            reset()
    else:
        persistent = {name for name, _ in tensors} - child._non_persistent_buffers_set
        if not will_be_loaded or len(persistent) < len(tensors):
            names = ", ".join(name for name, _ in tensors)
            raise MisconfigurationException(
                f"{type(child).__name__} was made on the meta device and has no `reset_parameters`, so nobody knows "
                f"the values of its {names}. Write `def reset_parameters(self):` that fills them, and call it in "
                "`__init__`."
            )
    for name, parameter in spread.items():
        own = spread_like(getattr(child, name).detach(), parameter)
        setattr(child, name, nn.Parameter(own, parameter.requires_grad))


def topmost_sharded(module: nn.Module) -> list[FSDPModule]:
    """The modules that ``fully_shard`` was called on and that are in no other such module."""
    if isinstance(module, FSDPModule):
        return [module]
    return [found for child in module.children() for found in topmost_sharded(child)]


# -- tensors ----------------------------------------------------------------------------------------------------------


def whole(value: Any, keep: bool) -> Any:
    """``value`` with plain tensors on the CPU instead of sharded ones; to be called on all processes.

    Args:
        value: tensors in dicts, lists and tuples. What is not sharded is taken over as it is.
        keep: whether this process wants the tensors. If not, it gets such of the same shapes on the meta device.
    """
    if isinstance(value, DTensor):
        full: Tensor = value.full_tensor().detach()
        return full.cpu() if keep else torch.empty_like(full, device="meta")
    if isinstance(value, dict):
        return _like(value, {key: whole(one, keep) for key, one in value.items()})
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(whole(one, keep) for one in value)
    return value


def _like(original: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """``items`` in a dict of the same class; torch keeps the versions of modules as an attribute of it."""
    if type(original) is not OrderedDict:
        return items
    fresh = OrderedDict(items)
    fresh.__dict__.update(vars(original))
    return fresh


def spread_like(full: Any, reference: Tensor) -> Any:
    """The shards of ``full`` that this process has if it is spread as ``reference`` is; ``full`` itself if it is not
    spread, or if ``full`` is of another shape, as a counter is.
    """
    if not isinstance(reference, DTensor) or not isinstance(full, Tensor) or isinstance(full, DTensor):
        return full
    if full.shape != reference.shape:
        return full
    local = full if reference.is_meta else full.to(reference.to_local().device)
    # each has the whole, so that nobody sends anything
    return distribute_tensor(local, reference.device_mesh, reference.placements, src_data_rank=None)


def broadcast_from_first(module: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first one; those without memory and sharded ones stay."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_meta and not isinstance(tensor, DTensor):
            dist.broadcast(tensor.data, 0)
