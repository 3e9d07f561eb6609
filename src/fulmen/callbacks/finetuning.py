"""Freeze parts of a module when training begins, and train them from a later epoch on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fulmen.callbacks.callback import Callback
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

    Modules = nn.Module | Iterable[nn.Module | Iterable[Any]]


def multiplicative(epoch: int) -> float:
    """Twice the learning rate in each epoch: what :class:`BackboneFinetuning` does if it is not told otherwise."""
    return 2.0


class BaseFinetuning(Callback):
    """What finetuning schedules are derived from: write :meth:`freeze_before_training` and :meth:`finetune_function`.

    What was frozen needs no gradient and no state of an optimizer, so give the optimizer only what is trained, and let
    :meth:`unfreeze_and_add_param_group` add the rest when its time has come::

        class HeadFirst(BaseFinetuning):
            def freeze_before_training(self, pl_module):
                self.freeze(pl_module.backbone)

            def finetune_function(self, pl_module, epoch, optimizer):
                if epoch == 5:
                    self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)

        # in the module
        def configure_optimizers(self):
            return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-3)

    Parameter groups that were added become part of the checkpoints, and a run that goes on has them, and what was
    thawed, from the first batch on. A scheduler moves the groups that were added as it moves the first group, in the
    proportion of their learning rates.

    Raises:
        NotImplementedError: when ``fit`` begins, with DeepSpeed, whose parameter groups are fixed.
        KeyError: an optimizer has a parameter that the module does not know, or the checkpoint names one that the
            module has not.
    """

    def __init__(self) -> None:
        #: the parameter groups of each optimizer, with names in place of parameters
        self._internal_optimizer_metadata: dict[int, list[dict[str, Any]]] = {}
        self._restarting = False
        self._configured_groups: dict[int, int] = {}  # how many `configure_optimizers` has made

    # -- to be written ------------------------------------------------------------------------------------------------

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze what is not trained at first. Called when ``fit`` begins, before optimizers are made."""
        raise NotImplementedError(f"{type(self).__name__} must define `freeze_before_training(self, pl_module)`.")

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Thaw what is trained from now on. Called when a training epoch begins, for each optimizer.

        Args:
            epoch: the one that begins, from 0.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `finetune_function(self, pl_module, epoch, optimizer)`."
        )

    # -- what they are written with -----------------------------------------------------------------------------------

    @staticmethod
    def flatten_modules(modules: Modules) -> list[nn.Module]:
        """The modules within ``modules`` that have parameters of their own or no children, each once.

        Args:
            modules: a module, or an iterable of modules and iterables.

        Raises:
            TypeError: something else is among them.
        """
        found: dict[int, nn.Module] = {}
        for module in _members(modules):
            if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False)):
                found[id(module)] = module
        return list(found.values())

    @staticmethod
    def filter_params(
        modules: Modules, train_bn: bool = True, requires_grad: bool = True
    ) -> Generator[nn.Parameter, None, None]:
        """The parameters of ``modules`` whose ``requires_grad`` is as asked, each once.

        Args:
            train_bn: False: leave out those of batch norms.
        """
        seen: set[int] = set()
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and not train_bn:
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad == requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Thaw all parameters of ``modules``, and let their batch norms keep statistics."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm):
                module.track_running_stats = True
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() or parameter.is_complex():  # others cannot have a gradient
                    parameter.requires_grad = True

    @staticmethod
    def freeze_module(module: nn.Module) -> None:
        """Freeze the parameters of ``module`` itself, not those of its children; a batch norm keeps its statistics as
        they are.
        """
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:
        """Freeze all parameters of ``modules``.

        Args:
            train_bn: True: batch norms are trained all the same.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and train_bn:
                BaseFinetuning.make_trainable(module)
            else:
                BaseFinetuning.freeze_module(module)

    @staticmethod
    def filter_on_optimizer(optimizer: Optimizer, params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those of ``params`` that the optimizer does not have; a warning tells if it has some."""
        params = list(params)
        new = _unknown_to(optimizer, params)
        if len(new) < len(params):
            _warn_of_known(optimizer, len(params) - len(new), len(params))
        return new

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Thaw ``modules``, and give their parameters to the optimizer, as a group of their own.

        What the optimizer has is left in its group, with that group's learning rate.

        Args:
            lr: the learning rate of the group. None: that of the first group divided by ``initial_denom_lr``.
            train_bn: False: the optimizer does not get the parameters of batch norms.
        """
        modules = list(_members(modules))
        frozen = {id(one) for one in BaseFinetuning.filter_params(modules, train_bn, requires_grad=False)}
        BaseFinetuning.make_trainable(modules)
        params = list(BaseFinetuning.filter_params(modules, train_bn))
        new = _unknown_to(optimizer, params)
        # what was trained all along, as batch norms may be, belongs into the optimizer; what was frozen does not
        known = frozen - {id(parameter) for parameter in new}
        if known:
            _warn_of_known(optimizer, len(known), len(frozen))
        if new:
            rate = optimizer.param_groups[0]["lr"] / initial_denom_lr if lr is None else float(lr)
            optimizer.add_param_group({"params": new, "lr": rate})

    # -- when ---------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        from fulmen.strategies.deepspeed import DeepSpeedStrategy  # of use here alone

        if isinstance(trainer.strategy, DeepSpeedStrategy):
            raise NotImplementedError(
                f"{type(self).__name__} cannot add parameter groups to an optimizer of DeepSpeed, where they are fixed "
                "when it starts. Use another strategy, such as Trainer(strategy='ddp')."
            )
        self._internal_optimizer_metadata, self._restarting = {}, False
        self.freeze_before_training(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._configured_groups = {at: len(one.param_groups) for at, one in enumerate(trainer.optimizers)}
        if not self._restarting:
            return
        self._restarting = False
        parameters = dict(pl_module.named_parameters())
        for at, groups in self._internal_optimizer_metadata.items():
            if at < len(trainer.optimizers):
                _restore_groups(trainer.optimizers[at], self._apply_mapping_to_param_groups(groups, parameters))
                self._tell_schedulers(trainer, at)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.progress.batches_done:  # in the middle of an epoch: it was called in the run that goes on here
            return
        for at, optimizer in enumerate(trainer.optimizers):
            rates = [group.get("lr") for group in optimizer.param_groups]
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
            self._store(pl_module, at, len(rates), optimizer.param_groups)
            self._tell_schedulers(trainer, at, rates)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if not isinstance(state, dict) or "internal_optimizer_metadata" not in state:
            return
        for at, optimizer in enumerate(trainer.optimizers):  # they may have changed since the epoch began
            self._store(pl_module, at, len(optimizer.param_groups), optimizer.param_groups)
        state["internal_optimizer_metadata"] = self._internal_optimizer_metadata

    def state_dict(self) -> dict[str, Any]:
        return {"internal_optimizer_metadata": self._internal_optimizer_metadata}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restarting = True
        self._internal_optimizer_metadata = state_dict.get("internal_optimizer_metadata", {})

    # -- parameter groups ---------------------------------------------------------------------------------------------

    def _store(
        self,
        pl_module: LightningModule,
        opt_idx: int,
        num_param_groups: int,
        current_param_groups: list[dict[str, Any]],
    ) -> None:
        """Note which groups the optimizer has now.

        Args:
            num_param_groups: how many it had before; of no use here, but of those who override this.
        """
        names = {parameter: name for name, parameter in pl_module.named_parameters()}
        self._internal_optimizer_metadata[opt_idx] = self._apply_mapping_to_param_groups(current_param_groups, names)

    @staticmethod
    def _apply_mapping_to_param_groups(
        param_groups: list[dict[str, Any]], mapping: Mapping[Any, Any]
    ) -> list[dict[str, Any]]:
        """Copies of the groups, with what ``mapping`` has in place of each parameter, or of each name."""
        copies = []
        for group in param_groups:
            unknown = [one for one in group["params"] if one not in mapping]
            if unknown:
                raise KeyError(_why_unknown(unknown[0]))
            settings = {name: value for name, value in group.items() if name != "params"}
            copies.append({**deepcopy(settings), "params": [mapping[one] for one in group["params"]]})
        return copies

    def _tell_schedulers(self, trainer: Trainer, opt_idx: int, rates: list[Any] | None = None) -> None:
        """Let the schedulers know of groups that were added, and of rates that were set.

        Args:
            rates: those of the groups before :meth:`finetune_function`. None: as they are now.
        """
        optimizer = trainer.optimizers[opt_idx]
        for config in trainer.lr_scheduler_configs:
            if getattr(config.scheduler, "optimizer", None) is optimizer:
                later = self._configured_groups.get(opt_idx, len(optimizer.param_groups))
                _follow(config.scheduler, optimizer.param_groups, later, rates)


class BackboneFinetuning(BaseFinetuning):
    """Trains ``pl_module.backbone`` from a later epoch on than the rest, with a learning rate of its own.

    Args:
        unfreeze_backbone_at_epoch: the epoch, from 0, from which on the backbone is trained.
        lambda_func: gives, for the number of an epoch plus one, the factor by which the backbone's learning rate is
            multiplied when that epoch begins.
        backbone_initial_ratio_lr: its first learning rate, as a fraction of that of the optimizer's first group.
        backbone_initial_lr: its first learning rate. None: as ``backbone_initial_ratio_lr`` says.
        should_align: never more than the learning rate of the optimizer's first group.
        initial_denom_lr: has no effect, since one of the two above says how to begin.
        train_bn: batch norms of the backbone are trained from the beginning. False: they are frozen, too, and the
            optimizer does not get their parameters.
        verbose: tell both learning rates in each epoch.
        rounding: to so many decimal places, when they are told.

    Attributes:
        previous_backbone_lr: the backbone's learning rate as it was set last; None as long as it is frozen.

    Raises:
        MisconfigurationException: an argument is none of its allowed values; when ``fit`` begins, if the module has no
            ``backbone``.
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        super().__init__()
        for name, number in (("unfreeze_backbone_at_epoch", unfreeze_backbone_at_epoch), ("rounding", rounding)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise MisconfigurationException(f"BackboneFinetuning({name}={number!r}): write a whole number from 0.")
        for name, rate in (
            ("backbone_initial_ratio_lr", backbone_initial_ratio_lr),
            ("backbone_initial_lr", backbone_initial_lr),
        ):
            if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate >= 0):
                raise MisconfigurationException(f"BackboneFinetuning({name}={rate!r}): write a number from 0.")
        if not callable(lambda_func):
            raise MisconfigurationException(
                f"BackboneFinetuning(lambda_func={lambda_func!r}) cannot be called. Write a function of the epoch, as "
                "`lambda epoch: 1.5`."
            )
        if initial_denom_lr != 10.0:
            rank_zero_warn(
                f"BackboneFinetuning(initial_denom_lr={initial_denom_lr!r}) has no effect: how the backbone begins is "
                f"said by `backbone_initial_ratio_lr`, which {1 / initial_denom_lr if initial_denom_lr else 0:g} would "
                "be, or by `backbone_initial_lr`."
            )
        self.unfreeze_backbone_at_epoch = unfreeze_backbone_at_epoch
        self.lambda_func = lambda_func
        self.backbone_initial_ratio_lr = backbone_initial_ratio_lr
        self.backbone_initial_lr = backbone_initial_lr
        self.should_align = should_align
        self.initial_denom_lr = initial_denom_lr
        self.train_bn = train_bn
        self.verbose = verbose
        self.rounding = rounding
        self.previous_backbone_lr: float | None = None
        self._unfrozen_in: int | None = None  # the epoch, if it was in this process

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "previous_backbone_lr": self.previous_backbone_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.previous_backbone_lr = self._unfrozen_in = None
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(_backbone_of(pl_module), train_bn=self.train_bn)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        if epoch < self.unfreeze_backbone_at_epoch:
            return
        backbone = _backbone_of(pl_module)
        rate_of_head = optimizer.param_groups[0]["lr"]
        if self.previous_backbone_lr is None or self._unfrozen_in == epoch:  # one optimizer comes after another
            rate = self.backbone_initial_lr
            rate = rate_of_head * self.backbone_initial_ratio_lr if rate is None else rate
            self._unfrozen_in = epoch
            self.unfreeze_and_add_param_group(backbone, optimizer, rate, self.initial_denom_lr, self.train_bn)
        else:
            rate = self.lambda_func(epoch + 1) * self.previous_backbone_lr
            if self.should_align and rate > rate_of_head:
                rate = deepcopy(rate_of_head)  # it may be a tensor, which schedulers change in place
            group = _group_of(backbone, optimizer)
            if group is not None:
                group["lr"] = rate
        self.previous_backbone_lr = rate
        if self.verbose:
            rank_zero_info(
                "learning rate %s, of the backbone %s",
                round(float(rate_of_head), self.rounding),
                round(float(rate), self.rounding),
            )


def _backbone_of(module: LightningModule) -> nn.Module:
    backbone = getattr(module, "backbone", None)
    if isinstance(backbone, nn.Module):
        return backbone
    has = "no `backbone`" if backbone is None else f"{shown(backbone)} as `backbone`, which is no module"
    raise MisconfigurationException(
        f"BackboneFinetuning freezes `self.backbone` of the module, but {type(module).__name__} has {has}. Write "
        "`self.backbone = ...` in its `__init__` (`configure_model` comes later), or derive a callback from "
        "BaseFinetuning."
    )


def _group_of(backbone: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """The optimizer's last group that has parameters of the backbone and no others."""
    own = {id(parameter) for parameter in backbone.parameters()}
    groups = [group for group in optimizer.param_groups if own.issuperset(map(id, group["params"]))]
    return groups[-1] if groups else None


# -- modules and parameters -------------------------------------------------------------------------------------------


def _members(modules: Modules) -> Generator[nn.Module, None, None]:
    """All modules within, in the order of a module's own ``modules()``."""
    if isinstance(modules, nn.Module):
        yield from modules.modules()
    elif isinstance(modules, Iterable) and not isinstance(modules, (str, bytes, Mapping, Tensor)):
        for one in modules:
            yield from _members(one)
    else:
        advice = ", such as `modules.values()` of a dict" if isinstance(modules, Mapping) else ""
        raise TypeError(f"{shown(modules)} is no module, and no iterable of modules. Give some{advice}.")


def _unknown_to(optimizer: Optimizer, params: list[nn.Parameter]) -> list[nn.Parameter]:
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [parameter for parameter in params if id(parameter) not in known]


def _warn_of_known(optimizer: Optimizer, known: int, of: int) -> None:
    rank_zero_warn(
        f"{type(optimizer).__name__} has {known} of the {of} parameters that are to be thawed by now. They stay in "
        "their group, and are trained with its learning rate. For a group of their own, give the optimizer only what "
        "is not frozen, in `configure_optimizers`: `[p for p in self.parameters() if p.requires_grad]`."
    )


def _why_unknown(parameter: Any) -> str:
    if isinstance(parameter, str):
        return (
            f"the checkpoint's optimizer has the parameter {parameter!r}, which the module has not. Make the module as "
            "in the run that was saved, or load the weights alone."
        )
    return (
        f"an optimizer has a parameter of the shape {tuple(getattr(parameter, 'shape', ()))} that is none of the "
        "module's, so the group could not be saved. Make it an attribute of the module."
    )


def _restore_groups(optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
    """Give the optimizer these groups; what was added to those of ``configure_optimizers`` was thawed, too."""
    own = optimizer.param_groups
    for group in groups:
        for parameter in _unknown_to(optimizer, group["params"]):
            parameter.requires_grad = True
    members = [[id(parameter) for parameter in group["params"]] for group in groups]
    if members[: len(own)] == [[id(parameter) for parameter in group["params"]] for group in own]:
        for group in groups[len(own) :]:
            optimizer.add_param_group(group)
    else:  # the run has arranged them anew
        own[:] = groups


def _follow(scheduler: Any, groups: list[dict[str, Any]], later: int, rates: list[Any] | None) -> None:
    """Let a scheduler move groups from the number ``later`` on as it moves the first one, from the rates they have."""
    for part in getattr(scheduler, "_schedulers", ()):
        _follow(part, groups, later, rates)
    first = groups[0]
    for number in range(max(1, later), len(groups)):
        group = groups[number]
        known = rates is not None and number < len(rates)
        if known and rates is not None and rates[number] == group["lr"]:
            continue  # as it was
        share = group["lr"] / first["lr"] if first["lr"] else 1.0
        for name in first.keys() - group.keys():  # what a scheduler keeps there
            group[name] = first[name] * share if name.endswith("_lr") else first[name]
        for name in ("base_lrs", "max_lrs"):
            limits = getattr(scheduler, name, None)
            if isinstance(limits, list) and limits and len(limits) >= number:
                limits[number:] = [limits[0] * share, *limits[number + 1 :]]
        for name in ("lr_lambdas", "base_momentums", "max_momentums"):
            of_groups = getattr(scheduler, name, None)
            if isinstance(of_groups, list) and of_groups and len(of_groups) == number:
                of_groups.append(of_groups[0])
