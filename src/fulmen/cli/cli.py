"""LightningCLI: a program whose every argument can be given in the shell, in files and in the environment."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, TypeAlias

from jsonargparse import ActionConfigFile, Namespace  # pyright: ignore[reportPrivateImportUsage]
from torch.optim import Optimizer

from fulmen import __version__
from fulmen.callbacks.callback import Callback
from fulmen.cli import names
from fulmen.cli.checkpoint import hyperparameters_of
from fulmen.cli.help import HOW_TO_NAME_A_CLASS
from fulmen.cli.names import class_at, options_below
from fulmen.cli.optimizers import LRSchedulerTypeUnion, ReduceLROnPlateau, instantiate_class
from fulmen.cli.parsed import arguments_of, construct, made_by, remembering, watched
from fulmen.cli.parser import LightningArgumentParser
from fulmen.cli.save_config import SaveConfigCallback
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.module import LightningModule
from fulmen.trainer.trainer import Trainer
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.model_helpers import is_overridden
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import seed_everything

#: what ``args`` may be; None: the arguments of the program
ArgsType: TypeAlias = list[str] | dict[str, Any] | Namespace | None


class LightningCLI:
    """A command line for a module, a datamodule and a Trainer: parses, makes them, and runs a subcommand.

    The objects are then in ``model``, ``datamodule`` and ``trainer``; ``config`` is what was parsed, ``config_init``
    the same with objects in place of their descriptions, ``subcommand`` the one that was chosen.

    Args:
        model_class: the module's class, or a function whose annotation says that it returns one. None: it is chosen on
            the command line, with ``--model``.
        datamodule_class: the same for the datamodule, ``--data``. None: one may be chosen.
        save_config_callback: the callback that saves the configuration. None: it is not saved.
        save_config_kwargs: more arguments for that callback.
        trainer_class: the Trainer's class, or a function that returns one.
        trainer_defaults: other defaults for the Trainer's arguments. Objects under ``callbacks`` are always there.
        seed_everything_default: the default of ``--seed_everything``: a seed; True: one from the environment
            (``PL_GLOBAL_SEED``), or else 0; False: nothing is seeded.
        parser_kwargs: arguments for the parser; with subcommands, also by subcommand: ``{"fit": {...}}``.
        parser_class: the parser's class.
        subclass_mode_model: whether ``--model`` chooses among the subclasses of ``model_class``.
        subclass_mode_data: the same for ``--data``.
        args: what to parse: a list of arguments, or a configuration as a dict or Namespace. None: the arguments of the
            program.
        run: whether there are subcommands, and the chosen one is run. False: the objects are made, and no more.
        auto_configure_optimizers: whether an optimizer that is chosen on the command line replaces
            ``configure_optimizers`` of the module.
        load_from_checkpoint_support: whether modules save what was parsed as their hyperparameters, so that
            ``load_from_checkpoint`` can make them with the objects that they were given.

    A mistake in the arguments ends the program with exit code 2.
    """

    def __init__(
        self,
        model_class: type[LightningModule] | Callable[..., LightningModule] | None = None,
        datamodule_class: type[LightningDataModule] | Callable[..., LightningDataModule] | None = None,
        save_config_callback: type[SaveConfigCallback] | None = SaveConfigCallback,
        save_config_kwargs: dict[str, Any] | None = None,
        trainer_class: type[Trainer] | Callable[..., Trainer] = Trainer,
        trainer_defaults: dict[str, Any] | None = None,
        seed_everything_default: bool | int = True,
        parser_kwargs: dict[str, Any] | None = None,
        parser_class: type[LightningArgumentParser] = LightningArgumentParser,
        subclass_mode_model: bool = False,
        subclass_mode_data: bool = False,
        args: ArgsType = None,
        run: bool = True,
        auto_configure_optimizers: bool = True,
        load_from_checkpoint_support: bool = True,
    ) -> None:
        self.save_config_callback = save_config_callback
        self.save_config_kwargs = save_config_kwargs or {}
        self.trainer_class = trainer_class
        self.trainer_defaults = trainer_defaults or {}
        self.seed_everything_default = seed_everything_default
        self.parser_kwargs = parser_kwargs or {}
        self.parser_class = parser_class
        self.auto_configure_optimizers = auto_configure_optimizers
        self.load_from_checkpoint_support = load_from_checkpoint_support
        self.model_class = model_class
        self.datamodule_class = datamodule_class
        # without a class, any is allowed
        self._model_class = model_class or LightningModule
        self._datamodule_class = datamodule_class or LightningDataModule
        self.subclass_mode_model = subclass_mode_model or model_class is None
        self.subclass_mode_data = subclass_mode_data or datamodule_class is None

        self._args = args
        main, by_subcommand = self._arguments_of_parsers(run)
        self.setup_parser(run, main, by_subcommand)
        self.parse_arguments(self.parser, args)
        self.subcommand: str | None = self.config["subcommand"] if run else None
        self._take_hyperparameters_of_checkpoint()
        self._set_seed()

        self.before_instantiate_classes()
        self.instantiate_classes()
        self.after_instantiate_classes()
        if self.subcommand:
            self._run_subcommand(self.subcommand)

    # -- parsers ------------------------------------------------------------------------------------------------------

    def _arguments_of_parsers(self, run: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """``parser_kwargs`` for the main parser, and by subcommand."""
        header = {"dump_header": [f"fulmen=={__version__}"]}
        by_subcommand = {name: {**header, **self.parser_kwargs.get(name, {})} for name in self.subcommands()}
        main = {key: value for key, value in self.parser_kwargs.items() if not run or key not in by_subcommand}
        return {**header, **main}, by_subcommand

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Make ``self.parser`` with all arguments, or with a parser for each subcommand."""
        self.parser = self.init_parser(**main_kwargs)
        self._subcommand_parsers: dict[str, LightningArgumentParser] = {}
        self._subcommand_method_arguments: dict[str, list[str]] = {}
        if add_subcommands:
            self._add_subcommands(self.parser, **subparser_kwargs)
        else:
            self._add_arguments(self.parser)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that has no arguments but ``--config``."""
        parser = self.parser_class(**{"epilog": HOW_TO_NAME_A_CLASS, **kwargs})
        parser.add_argument(
            "-c", "--config", action=ActionConfigFile, help="Path to a configuration file in json or yaml format."
        )
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments that belong to no class."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help=(
                "Seed all generators of random numbers with this. True: with $PL_GLOBAL_SEED, or else 0. False: leave"
                " them alone."
            ),
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of Trainer, module and datamodule."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        defaults = {f"trainer.{key}": value for key, value in self.trainer_defaults.items() if key != "callbacks"}
        parser.set_defaults(defaults)
        parser.add_lightning_class_args(self._model_class, "model", subclass_mode=self.subclass_mode_model)
        if self.datamodule_class is not None:
            parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=self.subclass_mode_data)
        else:
            parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Override to add arguments, links and defaults of your own."""

    def _add_arguments(self, parser: LightningArgumentParser) -> None:
        self.add_default_arguments_to_parser(parser)
        self.add_core_arguments_to_parser(parser)
        self.add_arguments_to_parser(parser)
        variables = names.from_environment(made_by(self.trainer_class))
        parser.set_defaults({f"trainer.{key}": value for key, value in variables.items()})
        if self.auto_configure_optimizers:
            if not parser._optimizers:
                parser.add_optimizer_args()
            if not parser._lr_schedulers:
                parser.add_lr_scheduler_args()
        self.link_optimizers_and_lr_schedulers(parser)

    @staticmethod
    def link_optimizers_and_lr_schedulers(parser: LightningArgumentParser) -> None:
        """Send each optimizer and scheduler that is not automatic to the argument that it was linked to."""
        for key, (classes, target) in {**parser._optimizers, **parser._lr_schedulers}.items():
            if target == "AUTOMATIC":
                continue
            describe = _plain if isinstance(classes, tuple) else partial(_description, classes)
            parser.link_arguments(key, target, compute_fn=describe)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, each a method of the Trainer, with those of its arguments that the CLI itself gives."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
            "predict": {"model", "dataloaders", "datamodule"},
        }

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        actions = parser.add_subcommands()
        trainer_class = made_by(self.trainer_class)
        chosen = self._subcommand_in_sight(parser)
        for name, given in self.subcommands().items():
            method = getattr(trainer_class, name)
            description = (inspect.getdoc(method) or "").partition("\n")[0]
            options = {"description": description, **kwargs.get(name, {})}
            subparser = self.init_parser(**options)
            if chosen in (name, None):
                self._add_arguments(subparser)
                self._subcommand_method_arguments[name] = subparser.add_method_arguments(
                    trainer_class, name, skip=set(given)
                )
            self._subcommand_parsers[name] = subparser
            actions.add_subcommand(name, subparser, help=description)
            if "default_env" in options:  # that of the main parser has taken its place
                subparser.default_env = options["default_env"]

    def _subcommand_in_sight(self, parser: LightningArgumentParser) -> str | None:
        """The subcommand if the others cannot matter, so that their arguments need not be looked up; else None.

        That is most of the time that a command line takes.
        """
        args = sys.argv[1:] if self._args is None else self._args
        if isinstance(args, list) and args and not parser.default_env and not parser.default_config_files:
            return args[0] if args[0] in self.subcommands() else None  # before it, --config has parts for all
        return None

    def _parser(self, subcommand: str | None) -> LightningArgumentParser:
        return self.parser if subcommand is None else self._subcommand_parsers[subcommand]

    # -- parsing ------------------------------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse ``args`` into ``self.config``."""
        if args is not None and len(sys.argv) > 1:
            rank_zero_warn(
                f"LightningCLI was given args={args}, so that the arguments of the program are ignored:"
                f" {' '.join(sys.argv[1:])}.",
                stacklevel=5,
            )
        if isinstance(args, (dict, Namespace)):
            self.config = parser.parse_object(args)
        else:
            self.config = parser.parse_args(args)

    def _take_hyperparameters_of_checkpoint(self) -> None:
        """Let the hyperparameters in the file of ``--ckpt_path`` be the module's arguments.

        They replace what configurations say, since the weights fit nothing else. An option of the command line itself
        was written for this run, and stays.
        """
        path = self._get(self.config, "ckpt_path") if self.subcommand else None
        part = self._get(self.config, "model")
        if path is None or part is None or not os.path.isfile(path):
            return
        cls = made_by(self._model_class)
        if self.subclass_mode_model:
            cls = class_at(part["class_path"])
        args = sys.argv[1:] if self._args is None else self._args
        again = options_below("--model", args) if isinstance(args, list) else []
        options = [word.partition("=")[0].removeprefix("--model.") for word in again if word.startswith("--model.")]
        given = {option.removeprefix("init_args.") for option in options}
        try:
            named, others = hyperparameters_of(path, cls, arguments_of(self._dumped("model")), given)
        except (TypeError, ValueError) as error:
            self.parser.error(f"`--ckpt_path`: {error}", error)
        if not named and not others:
            return
        model: dict[str, Any] = named
        if self.subclass_mode_model:
            model = {
                "class_path": part["class_path"],
                "init_args": named,
                **({"dict_kwargs": others} if others else {}),
            }
        config = self.parser.parse_object({self.subcommand: {"model": model}}, self.config, env=False)
        self.config = self.parser.parse_args([str(self.subcommand), *again], config, env=False) if again else config

    def _get(self, config: Namespace, key: str, default: Any = None) -> Any:
        """An entry of the subcommand's configuration, or of the whole if there are no subcommands."""
        return config.get(str(self.subcommand), config).get(key, default)

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if seed is False:
            return
        if seed is True:
            seed = None if "PL_GLOBAL_SEED" in os.environ else 0
        seed = seed_everything(seed, workers=True)
        (self.config[self.subcommand] if self.subcommand else self.config)["seed_everything"] = seed

    # -- objects ------------------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Override to do something before the objects are made."""

    def after_instantiate_classes(self) -> None:
        """Override to do something after the objects are made, and before the subcommand runs."""

    def instantiate_classes(self) -> None:
        """Make datamodule, module and Trainer."""
        raised: list[Exception] = []
        makers = [*self._instantiators(), (construct, object, True)]
        instantiators = [(watched(make, raised), cls, chosen) for make, cls, chosen in makers]
        try:
            self.config_init = self.parser.instantiate(self.config, instantiators=instantiators)
        except Exception:
            if not raised:
                raise
            raise raised[-1] from None
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self._add_configure_optimizers_method_to_model(self.subcommand)
        self.trainer = self.instantiate_trainer()

    def _instantiators(self) -> list[tuple[Any, type, bool]]:
        if not self.load_from_checkpoint_support:
            return []
        found = []
        for key, maker, chosen in (
            ("model", self._model_class, self.subclass_mode_model),
            ("data", self._datamodule_class, self.subclass_mode_data),
        ):
            part = self._get(self.config, key)
            path = part.get("class_path") if chosen and part is not None else None
            if part is not None and (path is not None or not chosen):
                subclasses = chosen or not isinstance(maker, type)  # a function is made a subclass of what it returns
                found.append((remembering(partial(self._dumped, key), path), made_by(maker), subclasses))
        return found

    def _dumped(self, key: str) -> dict[str, Any]:
        """A part of the configuration as plain data."""
        import yaml

        text = self.parser.dump(
            self.config, format="yaml", skip_link_targets=False, skip_unset=False, skip_validation=True
        )
        dumped = yaml.safe_load(text)
        return (dumped[self.subcommand] if self.subcommand else dumped).get(key) or {}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer; ``kwargs`` replace what was parsed."""
        parser = self._parser(self.subcommand)
        callbacks = [self._get(self.config_init, key) for key in parser.callback_keys]
        return self._instantiate_trainer({**self._get(self.config_init, "trainer", {}), **kwargs}, callbacks)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if "callbacks" not in config:
            rank_zero_warn(
                f"{self.trainer_class.__qualname__} has no argument `callbacks`, so that the command line's callbacks"
                " are left out: the configuration is not saved, for one."
            )
            return self.trainer_class(**config)
        callbacks = [*_listed(config["callbacks"]), *callbacks, *_listed(self.trainer_defaults.get("callbacks"))]
        if self.save_config_callback is not None and not config.get("fast_dev_run"):
            own = self.config[self.subcommand] if self.subcommand else self.config
            callbacks.append(self.save_config_callback(self._parser(self.subcommand), own, **self.save_config_kwargs))
        return self.trainer_class(**{**config, "callbacks": callbacks})

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerTypeUnion | None = None
    ) -> Any:
        """What the module's ``configure_optimizers`` returns if the command line chose; override to change it."""
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": lr_scheduler, "monitor": lr_scheduler.monitor},
            }
        return [optimizer], [lr_scheduler]

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Replace the module's ``configure_optimizers`` if an automatic optimizer was chosen."""
        if not self.auto_configure_optimizers:
            return
        parser = self._parser(subcommand)
        optimizers = [key for key, (_, target) in parser._optimizers.items() if target == "AUTOMATIC"]
        schedulers = [key for key, (_, target) in parser._lr_schedulers.items() if target == "AUTOMATIC"]
        if not optimizers:
            return
        if len(optimizers) > 1 or len(schedulers) > 1:
            raise MisconfigurationException(
                f"{type(self).__name__} has {' and '.join(f'`{key}`' for key in optimizers + schedulers)}, and can use"
                " one optimizer and one scheduler by itself. Link all of them to arguments of the module"
                " (`add_optimizer_args(..., link_to='model.optimizer_init')`) and make them in its"
                " `configure_optimizers` with `instantiate_class`."
            )
        optimizer = self._chosen(parser._optimizers, optimizers[0])
        if optimizer is None:
            return
        scheduler = self._chosen(parser._lr_schedulers, schedulers[0]) if schedulers else None
        if is_overridden("configure_optimizers", self.model):
            rank_zero_warn(
                f"`{type(self.model).__name__}.configure_optimizers` is not used: the command line chooses"
                f" {optimizer['class_path']}.",
                stacklevel=6,
            )
        choose = self.configure_optimizers

        def configure_optimizers(module: LightningModule) -> Any:
            # not before it is asked for: a strategy may have replaced the parameters
            made = instantiate_class(module.parameters(), optimizer)
            return choose(module, made, instantiate_class(made, scheduler) if scheduler else None)

        self.model.configure_optimizers = MethodType(configure_optimizers, self.model)

    def _chosen(self, registered: dict[str, Any], key: str) -> dict[str, Any] | None:
        """The description of what was chosen; None if nothing was."""
        classes = registered[key][0]
        choice = self._get(self.config_init, key)
        return _plain(choice) if isinstance(classes, tuple) else _description(classes, choice)

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        for step in (f"before_{subcommand}", subcommand, f"after_{subcommand}"):
            run = getattr(self, step, None)
            if step == subcommand:
                run = run if callable(run) else getattr(self.trainer, subcommand)
                run(**self._arguments_of_subcommand(subcommand))
            elif callable(run):
                run()

    def _arguments_of_subcommand(self, subcommand: str) -> dict[str, Any]:
        config = self.config_init[subcommand]
        arguments = {name: config[name] for name in self._subcommand_method_arguments[subcommand]}
        arguments["model"] = self.model
        if self.datamodule is not None:
            arguments["datamodule"] = self.datamodule
        return arguments


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _plain(value: Namespace | dict[str, Any] | None) -> dict[str, Any] | None:
    return value.as_dict() if isinstance(value, Namespace) else value


def _description(cls: type, init_args: Namespace | dict[str, Any] | None) -> dict[str, Any]:
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": _plain(init_args) or {}}
