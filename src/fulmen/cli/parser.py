"""The parser of the command line: jsonargparse's, which knows modules, trainers, optimizers and schedulers."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, class_from_function
from torch.optim import Optimizer

from fulmen.callbacks.callback import Callback
from fulmen.cli import mistakes, names
from fulmen.cli.help import ReadableHelp
from fulmen.cli.optimizers import LRSchedulerType, LRSchedulerTypeTuple
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.module import LightningModule
from fulmen.trainer.trainer import Trainer
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown

#: what :meth:`LightningArgumentParser.add_optimizer_args` knows: the class or classes, and where the choice goes
Registered = tuple[type | tuple[type, ...], str]


class LightningArgumentParser(ArgumentParser):
    """A parser with groups of arguments for Fulmen's classes; see the documentation of ``jsonargparse``.

    Args:
        args: as for ``jsonargparse.ArgumentParser``.
        description: what ``--help`` begins with.
        env_prefix: what names of environment variables begin with.
        default_env: whether variables of the environment are read.
        kwargs: as for ``jsonargparse.ArgumentParser``.
    """

    def __init__(
        self,
        *args: Any,
        description: str = "Train, validate, test and predict with Fulmen.",
        env_prefix: str = "PL",
        default_env: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("parser_mode", names.parser_mode())
        kwargs.setdefault("formatter_class", ReadableHelp)
        kwargs.setdefault("allow_abbrev", False)  # what is short for one option today is short for two tomorrow
        super().__init__(*args, description=description, env_prefix=env_prefix, default_env=default_env, **kwargs)
        self._written: list[str] = []
        self.callback_keys: list[str] = []  #: groups whose objects are callbacks for the Trainer
        self._optimizers: dict[str, Registered] = {}
        self._lr_schedulers: dict[str, Registered] = {}

    def add_lightning_class_args(
        self,
        lightning_class: Callable[..., Any] | type[Any],
        nested_key: str,
        subclass_mode: bool = False,
        required: bool = True,
    ) -> list[str]:
        """Add the arguments of a class as a group.

        Args:
            lightning_class: a Trainer, LightningModule, LightningDataModule or Callback class, or a function whose
                annotation says that it returns one. Callbacks are given to the Trainer.
            nested_key: the name of the group: ``model`` in ``--model.width``.
            subclass_mode: whether the class is chosen on the command line, among this one and its subclasses.
            required: whether it must be chosen; only with ``subclass_mode``.

        Returns:
            The names of the arguments added.

        Raises:
            MisconfigurationException: it is none of these classes.
        """
        if callable(lightning_class) and not isinstance(lightning_class, type):
            lightning_class = class_from_function(lightning_class)
        known = (Trainer, LightningModule, LightningDataModule, Callback)
        if not (isinstance(lightning_class, type) and issubclass(lightning_class, known)):
            raise MisconfigurationException(
                f"`add_lightning_class_args` got {shown(lightning_class)} for `{nested_key}`. It takes a Trainer,"
                " LightningModule, LightningDataModule or Callback class, or a function whose annotation says that it"
                " returns one; `add_class_arguments` takes any class."
            )
        if issubclass(lightning_class, Callback):
            self.callback_keys.append(nested_key)
        if subclass_mode:
            return self.add_subclass_arguments(lightning_class, nested_key, fail_untyped=False, required=required)
        return self.add_class_arguments(
            lightning_class,
            nested_key,
            fail_untyped=False,
            instantiate=not issubclass(lightning_class, Trainer),
            sub_configs=True,
        )

    def add_optimizer_args(
        self,
        optimizer_class: type[Optimizer] | tuple[type[Optimizer], ...] = (Optimizer,),
        nested_key: str = "optimizer",
        link_to: str = "AUTOMATIC",
    ) -> None:
        """Add the arguments of an optimizer, without its parameters, as a group.

        Args:
            optimizer_class: the optimizer's class; a tuple: it is chosen on the command line, among the subclasses of
                these.
            nested_key: the name of the group.
            link_to: the argument that gets the choice as a dict with ``class_path`` and ``init_args``, for
                :func:`~fulmen.cli.optimizers.instantiate_class`. ``"AUTOMATIC"``: the module uses this optimizer.

        Raises:
            TypeError: it is no class of optimizers.
        """
        self._add_choice(optimizer_class, (Optimizer,), nested_key, skip="params")
        self._optimizers[nested_key] = (optimizer_class, link_to)

    def add_lr_scheduler_args(
        self,
        lr_scheduler_class: LRSchedulerType | tuple[LRSchedulerType, ...] = LRSchedulerTypeTuple,
        nested_key: str = "lr_scheduler",
        link_to: str = "AUTOMATIC",
    ) -> None:
        """Add the arguments of a learning-rate scheduler, without its optimizer, as a group.

        Args:
            lr_scheduler_class: as ``optimizer_class`` of :meth:`add_optimizer_args`.
            nested_key: the name of the group.
            link_to: as for :meth:`add_optimizer_args`.

        Raises:
            TypeError: it is no class of schedulers.
        """
        self._add_choice(lr_scheduler_class, LRSchedulerTypeTuple, nested_key, skip="optimizer")
        self._lr_schedulers[nested_key] = (lr_scheduler_class, link_to)

    def _add_choice(self, classes: Any, of: tuple[type, ...], nested_key: str, skip: str) -> None:
        for cls in classes if isinstance(classes, tuple) else (classes,):
            if not (inspect.isclass(cls) and issubclass(cls, of)):
                raise TypeError(
                    f"`--{nested_key}` got {shown(cls)}, which is not a subclass of {of[0].__name__}. Give such a"
                    " class, or a tuple of them."
                )
        if isinstance(classes, tuple):
            self.add_subclass_arguments(classes, nested_key, fail_untyped=False, instantiate=False, skip={skip})
            (self.groups or {})[nested_key].title = (
                "The optimizer" if of[0] is Optimizer else "The learning-rate scheduler"
            )
        else:
            self.add_class_arguments(
                classes, nested_key, fail_untyped=False, instantiate=False, skip={skip}, sub_configs=True
            )

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse command-line arguments; short names of Fulmen's classes need no import."""
        self._written = list(sys.argv[1:] if args is None else args)
        mistake = mistakes.before_parsing(self, self._written)
        if mistake is not None:
            self.error(mistake)
        try:
            args = names.in_arguments(args, self._takes_class)
        except TypeError as error:
            self.error(str(error), error)
        return super().parse_args(args, *more, **kwargs)

    def _takes_class(self, option: str) -> bool:
        return f"{option}.help" in self._option_string_actions

    def parse_object(self, obj: Any, *more: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a configuration that is an object; short names of Fulmen's classes need no import."""
        try:
            obj = names.in_values(obj)
        except TypeError as error:
            self.error(str(error), error)
        return super().parse_object(obj, *more, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        names.parser_mode()  # which another process does not know yet
        self.__dict__.update(state)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the program with exit code 2 and ``message`` on stderr; or raise it, if ``exit_on_error`` is False.

        What jsonargparse found is told in the words of :mod:`fulmen.cli.mistakes`, with the file and the line.
        """
        if self.exit_on_error:
            subcommands = self._subcommands_action.choices if self._subcommands_action is not None else ()
            chosen = next((f" {word}" for word in self._written if word in subcommands), "")
            program = f"{self.prog}{chosen}".replace(" [options]", "")
            explained = mistakes.explain(message, self, self._written)
            raised = mistakes.error_of_module(ex)
            if raised is not None:
                traceback.print_exception(raised, chain=False)
                explained = "a module that the configuration names cannot be imported: its error stands above"
            self.exit(2, f"{program}: error: {explained}\n")
        super().error(message, ex)
