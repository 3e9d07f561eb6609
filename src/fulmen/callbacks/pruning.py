"""Set weights to zero while training, and keep them there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fulmen.callbacks.callback import Callback
from fulmen.core.module import LightningModule
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_PARAM_LIST = Sequence[tuple[nn.Module, str]]

#: by name: torch's function for one layer, and its class
_METHODS: dict[str, tuple[Callable[..., Any], type[prune.BasePruningMethod]]] = {
    "ln_structured": (prune.ln_structured, prune.LnStructured),
    "l1_unstructured": (prune.l1_unstructured, prune.L1Unstructured),
    "random_structured": (prune.random_structured, prune.RandomStructured),
    "random_unstructured": (prune.random_unstructured, prune.RandomUnstructured),
}
#: what is no layer itself
_CONTAINERS = (LightningModule, nn.Sequential, nn.ModuleList, nn.ModuleDict)


class ModelPruning(Callback):
    """Prunes parameters with ``torch.nn.utils.prune`` at the end of each epoch: each time ``amount`` of those that are
    left.

    While it trains, a pruned parameter ``weight`` of a layer is there as ``weight_orig``, its mask as ``weight_mask``.
    A run that is resumed goes on exactly: the masks, and what they hide, are in the state of this callback.

    Args:
        pruning_fn: ``"l1_unstructured"``, ``"random_unstructured"``, ``"ln_structured"`` or ``"random_structured"``; a
            class derived from ``torch.nn.utils.prune.BasePruningMethod``; or, without ``use_global_unstructured``, a
            function ``fn(module, name=..., amount=...)``.
        parameters_to_prune: pairs of a layer and the name of its parameter. Empty: those of all layers; for structured
            pruning those with at least two dimensions.
        parameter_names: which parameters of all layers: ``"weight"``, ``"bias"`` or both. None: both.
        use_global_unstructured: compare all weights with each other. False: prune each parameter by itself.
        amount: how much to prune: a fraction (float from 0 to 1), a number of weights (int), or a function of the epoch
            that gives one.
        apply_pruning: whether to prune, or a function of the epoch that says so.
        make_pruning_permanent: files have the pruned weights, under their usual names, so that any module loads them;
            in the end the module has, too. False: both keep masks and weights apart.
        use_lottery_ticket_hypothesis: give the weights that are left the values that they had when training began, each
            time after pruning; or a function of the epoch that says whether.
        resample_parameters: give them new random values instead, where the layer has a ``reset_parameters``.
        pruning_dim: along which dimension structured pruning removes.
        pruning_norm: the ``n`` of the norm of ``"ln_structured"``.
        verbose: 1: tell how much is pruned; 2: of each parameter, too; 0: nothing.
        prune_on_train_epoch_end: False: prune at the end of each validation instead.

    Raises:
        MisconfigurationException: an argument has none of these values, or structured pruning lacks ``pruning_dim`` or
            ``pruning_norm``, or is asked for with ``use_global_unstructured``; or, when training begins, the module
            does not have the parameters, or has them spread over the processes.
    """

    PARAMETER_NAMES = ("weight", "bias")

    def __init__(
        self,
        pruning_fn: Callable[..., Any] | str,
        parameters_to_prune: _PARAM_LIST = (),
        parameter_names: list[str] | None = None,
        use_global_unstructured: bool = True,
        amount: int | float | Callable[[int], int | float] = 0.5,
        apply_pruning: bool | Callable[[int], bool] = True,
        make_pruning_permanent: bool = True,
        use_lottery_ticket_hypothesis: bool | Callable[[int], bool] = True,
        resample_parameters: bool = False,
        pruning_dim: int | None = None,
        pruning_norm: int | None = None,
        verbose: int = 0,
        prune_on_train_epoch_end: bool = True,
    ) -> None:
        self._parameter_names = tuple(parameter_names or self.PARAMETER_NAMES)
        for name in self._parameter_names:
            if name not in self.PARAMETER_NAMES:
                raise _wrong("parameter_names", parameter_names, f"some of {list(self.PARAMETER_NAMES)}")
        if not callable(amount) and (
            type(amount) not in (int, float) or amount < 0 or (isinstance(amount, float) and amount > 1)
        ):
            raise _wrong(
                "amount", amount, "a fraction from 0.0 to 1.0, a number of weights, or a function of the epoch"
            )
        if verbose not in (0, 1, 2):
            raise _wrong("verbose", verbose, "0, 1 or 2")
        self._use_global_unstructured = use_global_unstructured
        self.pruning_fn = self._method(pruning_fn, pruning_dim, pruning_norm)
        self._is_structured = isinstance(self.pruning_fn, partial)
        self.amount = amount
        self._apply_pruning, self._make_pruning_permanent = apply_pruning, make_pruning_permanent
        self._use_lottery_ticket_hypothesis = use_lottery_ticket_hypothesis
        self._resample_parameters, self._verbose = resample_parameters, verbose
        self._prune_on_train_epoch_end = prune_on_train_epoch_end
        self._given = parameters_to_prune
        self._forget()

    def _forget(self) -> None:
        """A run begins."""
        self._parameters_to_prune: _PARAM_LIST = ()
        self._names: list[str] = []  # of the parameters to prune, in the module
        self._order: dict[nn.Module, list[str]] = {}  # in which each layer had its parameters
        self._keys: list[str] = []  # of the weights in a file, in their order
        self._initial: dict[str, Tensor] = {}
        self._fresh: dict[nn.Module, nn.Module] = {}  # a copy of each layer, to draw new values in
        self._to_restore: dict[str, Any] = {}
        self._ended_with: dict[str, Any] | None = None  # the state when pruning was made permanent

    def _method(self, given: Any, dim: int | None, norm: int | None) -> Callable[..., Any]:
        """What prunes: a class to compare all weights with each other, else a function for each parameter."""
        globally = self._use_global_unstructured
        if isinstance(given, str):
            name = given.lower()
            if name not in _METHODS:
                raise _wrong("pruning_fn", given, f"one of {list(_METHODS)}, or a class of torch's BasePruningMethod")
            function, kind = _METHODS[name]
            if "unstructured" in name:
                return kind if globally else function
            if dim is None or (name == "ln_structured" and norm is None):
                lacks = "pruning_dim" if dim is None else "pruning_norm"
                raise MisconfigurationException(
                    f"ModelPruning(pruning_fn={given!r}) needs `{lacks}`: "
                    + ("along which dimension to remove." if dim is None else "the n of the norm to compare by.")
                )
            if not globally:
                return partial(function, dim=dim, **({"n": norm} if name == "ln_structured" else {}))
            raise _structured(given)
        if inspect.isclass(given) and issubclass(given, prune.BasePruningMethod):
            if not globally:
                raise MisconfigurationException(
                    f"ModelPruning(pruning_fn={given.__name__}, use_global_unstructured=False): a class prunes "
                    "globally. Write the name of a method, or a function `fn(module, name=..., amount=...)`."
                )
            if getattr(given, "PRUNING_TYPE", None) != "unstructured":
                raise _structured(given.__name__)
            return given
        if callable(given) and not inspect.isclass(given) and not isinstance(given, prune.BasePruningMethod):
            if not globally:
                return given
            raise MisconfigurationException(
                f"ModelPruning(pruning_fn={getattr(given, '__name__', given)!r}): a function prunes one parameter. Add "
                "`use_global_unstructured=False`, or write the name of a method."
            )
        raise _wrong("pruning_fn", given, f"one of {list(_METHODS)}, or a class (no instance) of BasePruningMethod")

    # -- what to prune ------------------------------------------------------------------------------------------------

    def filter_parameters_to_prune(self, parameters_to_prune: _PARAM_LIST = ()) -> _PARAM_LIST:
        """Override this to choose among the pairs of a layer and a name; the default takes all."""
        return parameters_to_prune

    @staticmethod
    def sanitize_parameters_to_prune(
        pl_module: LightningModule, parameters_to_prune: _PARAM_LIST = (), parameter_names: Sequence[str] = ()
    ) -> _PARAM_LIST:
        """The pairs of a layer and the name of a parameter to prune.

        Args:
            parameters_to_prune: the pairs. Empty: all layers that have one of ``parameter_names``.
            parameter_names: ``"weight"``, ``"bias"`` or both. Empty: both.

        Raises:
            MisconfigurationException: these are no pairs, or the module does not have them.
        """
        layers = [module for module in pl_module.modules() if not isinstance(module, _CONTAINERS)]
        names = parameter_names or ModelPruning.PARAMETER_NAMES
        if not parameters_to_prune:
            return [(one, name) for name in names for one in layers if isinstance(_parameter(one, name), nn.Parameter)]
        for pair in parameters_to_prune:
            if not (
                isinstance(pair, (tuple, list))
                and len(pair) == 2
                and isinstance(pair[0], nn.Module)
                and isinstance(pair[1], str)
            ):
                raise _wrong("parameters_to_prune", pair, "pairs of a layer and a name, as `(model.layer, 'weight')`")
            layer, name = pair
            if not any(layer is one for one in layers) or not isinstance(_parameter(layer, name), nn.Parameter):
                raise MisconfigurationException(
                    f"ModelPruning(parameters_to_prune=...) has the parameter {name!r} of a {type(layer).__name__}, "
                    f"which {type(pl_module).__name__} does not have. Pass layers of the module that is trained."
                )
        return parameters_to_prune

    # -- the run ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._forget()
        if trainer.strategy.forward_is_collective or trainer.strategy.restores_optimizers:
            raise MisconfigurationException(
                f"ModelPruning cannot prune under {type(trainer.strategy).__name__}, which spreads the parameters over "
                "the processes. Write `Trainer(strategy='ddp')`."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self.sanitize_parameters_to_prune(pl_module, self._given, self._parameter_names)
        if self._is_structured and not self._given:
            found = [pair for pair in found if _weights(*pair).dim() > 1]  # others have no rows to remove
        self._parameters_to_prune = list(self.filter_parameters_to_prune(found))
        if not self._parameters_to_prune:
            raise MisconfigurationException(
                f"ModelPruning found nothing to prune in {type(pl_module).__name__}: no layer has a parameter named "
                f"{' or '.join(map(repr, self._parameter_names))}. Name it by `parameters_to_prune`."
            )
        paths = {module: path for path, module in pl_module.named_modules()}
        self._names = [f"{paths[layer]}.{name}" for layer, name in self._parameters_to_prune]
        self._order = {layer: _names(layer) for layer, _ in self._parameters_to_prune}
        self._keys = list(pl_module.state_dict())
        if self._use_lottery_ticket_hypothesis:
            self._initial = {name: _weights(*pair).detach().clone() for name, pair in self._named()}
            if self._resample_parameters:
                layers = [one for one in self._order if callable(getattr(one, "reset_parameters", None))]
                self._fresh = {one: deepcopy(one) for one in layers if not any(_is_pruned(one, n) for n in _names(one))}
        self._restore()

    def _named(self) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
        return zip(self._names, self._parameters_to_prune, strict=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._prune_on_train_epoch_end:
            self._run_pruning(trainer, trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_of_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_of_fit and not self._prune_on_train_epoch_end:
            self._run_pruning(trainer, trainer.current_epoch)

    def _run_pruning(self, trainer: Trainer, epoch: int) -> None:
        applies, amount = _at(self._apply_pruning, epoch), _at(self.amount, epoch)
        if not applies or not amount:
            return
        self.apply_pruning(amount)
        if _at(self._use_lottery_ticket_hypothesis, epoch):
            self.apply_lottery_ticket_hypothesis()
        if trainer.world_size > 1:  # each process has drawn random numbers of its own
            for layer, name in self._parameters_to_prune:
                for tensor in (getattr(layer, f"{name}_mask"), _weights(layer, name)):
                    tensor.data.copy_(trainer.strategy.broadcast(tensor.detach().cpu()))
        self._refresh()

    def apply_pruning(self, amount: int | float) -> None:
        """Prune ``amount`` of what is left: a fraction (float) or a number of weights (int)."""
        before = self._zeros()
        self._refresh()
        if self._use_global_unstructured:
            known = inspect.signature(self.pruning_fn).parameters
            kwargs = {"amount": amount} if "amount" in known else {}
            prune.global_unstructured(self._parameters_to_prune, pruning_method=self.pruning_fn, **kwargs)
        else:
            for layer, name in self._parameters_to_prune:
                self.pruning_fn(layer, name=name, amount=amount)
        if self._verbose:
            self._tell(before, self._zeros(), amount)

    def _refresh(self) -> None:
        """Let layers have their masked weights as these are now, and not as the last forward pass had them."""
        for layer, name in self._parameters_to_prune:
            for hook in layer._forward_pre_hooks.values():
                if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name:
                    with torch.no_grad():
                        setattr(layer, name, hook.apply_mask(layer))

    def apply_lottery_ticket_hypothesis(self) -> None:
        """Give the weights that are left the values of the beginning, or new ones, as the arguments say."""
        for fresh in self._fresh.values():
            fresh.reset_parameters()  # type: ignore[operator]
        for key, (layer, name) in self._named():
            value = getattr(self._fresh[layer], name) if layer in self._fresh else self._initial[key]
            _weights(layer, name).data.copy_(value.detach())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._make_pruning_permanent:
            self._ended_with = deepcopy(self.state_dict())
            self.make_pruning_permanent(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ended_with is None:  # the run that was to go on had ended, so that nothing was trained
            self.on_train_end(trainer, pl_module)

    def make_pruning_permanent(self, module: nn.Module) -> None:
        """Give all layers of ``module`` their pruned weights as their parameters, without masks."""
        for layer in module.modules():
            for key, hook in list(layer._forward_pre_hooks.items()):
                if isinstance(hook, prune.BasePruningMethod):
                    hook.remove(layer)
                    del layer._forward_pre_hooks[key]
            if layer in self._order:  # where an optimizer of a later run expects them
                layer._parameters = {
                    **{name: layer._parameters[name] for name in self._order[layer] if name in layer._parameters},
                    **layer._parameters,
                }

    # -- what it tells ------------------------------------------------------------------------------------------------

    def _zeros(self) -> list[tuple[int, int]]:
        """How many weights of each parameter are pruned, and how many there are."""
        if not self._verbose:
            return []
        masks = [getattr(layer, f"{name}_mask", None) for layer, name in self._parameters_to_prune]
        sizes = [_weights(*pair).numel() for pair in self._parameters_to_prune]
        return [(0 if mask is None else int((mask == 0).sum()), size) for mask, size in zip(masks, sizes)]

    def _tell(self, before: list[tuple[int, int]], after: list[tuple[int, int]], amount: int | float) -> None:
        total = sum(size for _, size in after)
        was, now = (sum(zeros for zeros, _ in one) for one in (before, after))
        rank_zero_info("pruned %d of %d weights (%.1f%%), %d before", now, total, 100 * now / total, was)
        if self._verbose == 2:
            for name, (was, size), (now, _) in zip(self._names, before, after):
                rank_zero_info("  %s: %d of %d (%.1f%%), %d before", name, now, size, 100 * now / size, was)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        if self._ended_with is not None:
            return self._ended_with
        if not self._names:
            return self._to_restore
        state: dict[str, Any] = {"masks": {}, "hidden": {}, "initial": self._initial}
        for key, (layer, name) in self._named():
            if _is_pruned(layer, name):
                mask = getattr(layer, f"{name}_mask").bool()
                state["masks"][key], state["hidden"][key] = mask, _weights(layer, name).detach()[~mask]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._to_restore.update(state_dict)
        if self._names:
            self._restore()

    def _restore(self) -> None:
        """Prune as in the run that goes on, once the module and its optimizer are there as it began with them."""
        state, self._to_restore = self._to_restore, {}
        masks, hidden, initial = (state.get(name, {}) for name in ("masks", "hidden", "initial"))
        for key, (layer, name) in self._named():
            if key in self._initial and key in initial:
                self._initial[key].copy_(initial[key])
            if key not in masks:
                continue
            weights = _weights(layer, name)
            mask = masks[key].to(weights.device)
            if key in hidden:
                weights.data[~mask.bool()] = hidden[key].to(weights)
            if _is_pruned(layer, name):
                getattr(layer, f"{name}_mask").copy_(mask)
            else:
                prune.custom_from_mask(layer, name, mask.to(weights.dtype))
        self._refresh()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._on_save_weights(trainer, pl_module, checkpoint)

    def _on_save_weights(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._make_pruning_permanent:
            checkpoint["state_dict"] = self._folded(checkpoint["state_dict"])

    def _folded(self, state: dict[str, Any]) -> dict[str, Any]:
        """The same with pruned weights under their usual names, where they belong."""
        folded = dict(state)
        for key in self._names:
            if f"{key}_orig" in folded and f"{key}_mask" in folded:
                weights, mask = folded.pop(f"{key}_orig"), folded.pop(f"{key}_mask")
                folded[key] = weights * mask.to(weights.dtype)
        return {**{key: folded[key] for key in self._keys if key in folded}, **folded}

    def _on_load_weights(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A file that keeps masks and weights apart is loaded by a module that does not, yet."""
        state, own = checkpoint["state_dict"], dict(pl_module.named_parameters(remove_duplicate=False))
        apart = [name for name in own if name not in state and f"{name}_orig" in state and f"{name}_mask" in state]
        if not apart:
            return
        masks = {name: state[f"{name}_mask"] for name in apart}
        weights = {name: state[f"{name}_orig"] for name in apart}
        if trainer.state.fn == "fit":
            self._to_restore["masks"] = masks
        else:
            weights = {name: value * masks[name] for name, value in weights.items()}
        gone = {f"{name}_{kind}" for name in apart for kind in ("orig", "mask")}
        checkpoint["state_dict"] = {**{key: value for key, value in state.items() if key not in gone}, **weights}


def _at(value: Any, epoch: int) -> Any:
    return value(epoch) if callable(value) else value


def _is_pruned(layer: nn.Module, name: str) -> bool:
    return f"{name}_mask" in layer._buffers and f"{name}_orig" in layer._parameters


def _parameter(layer: nn.Module, name: str) -> Any:
    """The parameter ``name`` of ``layer``, pruned or not."""
    return layer._parameters.get(f"{name}_orig") if _is_pruned(layer, name) else layer._parameters.get(name)


def _weights(layer: nn.Module, name: str) -> nn.Parameter:
    """The same, where it is known to be there: its values without the mask."""
    return _parameter(layer, name)


def _names(layer: nn.Module) -> list[str]:
    """The names of the parameters of ``layer``, as they are without pruning."""
    plain = {name: name.removesuffix("_orig") for name in layer._parameters}
    return [short if _is_pruned(layer, short) else name for name, short in plain.items()]


def _wrong(name: str, value: Any, right: str) -> MisconfigurationException:
    return MisconfigurationException(f"ModelPruning({name}={value!r}): write {right}.")


def _structured(given: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"ModelPruning(pruning_fn={given!r}) is structured: it removes whole rows of one parameter, which cannot be "
        "compared over all of them. Add `use_global_unstructured=False`."
    )
