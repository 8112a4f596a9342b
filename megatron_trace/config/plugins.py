"""One way to bring a strategy of allocation, an advantage estimator or an environment.

A setting names a file of one folder of the package, or FILE.py. No table lists the files. The file
may define `Options`, a dataclass whose fields are the plug-in's own settings.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from megatron_trace.config.error import SettingError, did_you_mean, one_line
from megatron_trace.config.options import check_options_class, read_options
from megatron_trace.config.setting import NamedSetting, all_settings
from megatron_trace.config.source import FOREIGN, load_source, place_of

T = TypeVar("T")


@dataclasses.dataclass
class NoOptions:
    """The options of a plug-in that has none."""


def _no_fault(plugin: Any, options_class: type) -> str:
    return ""


@dataclasses.dataclass(frozen=True)
class PluginKind(Generic[T]):
    """All plug-ins of one kind.

    Attributes:
        word: what one is called in messages, such as "strategy".
        setting: dotted name of the setting that chooses one.
        section: dotted name of the section with the options of each plug-in, by the plug-in's name.
        package: dotted name of the package whose files are plug-ins.
        defines: what a file must define, in words.
        definitions: lists everything in a module that is such a plug-in.
        fault: why a plug-in with such a class of options cannot work; empty where it can.
    """

    word: str
    setting: str
    section: str
    package: str
    defines: str
    definitions: Callable[[ModuleType], list[T]]
    fault: Callable[[T, type], str] = _no_fault

    def names(self) -> list[str]:
        """Names of the plug-ins that come with the package, sorted. Imports none of them."""
        package = importlib.import_module(self.package)
        return sorted(module.name for module in pkgutil.iter_modules(package.__path__))

    def find(self, name: str) -> T:
        """The plug-in of that name, or of the file `name`.

        Raises:
            SettingError: there is none, its file cannot be imported, or the file does not define
                exactly one.
        """
        found = self.definitions(self._module(name))
        if len(found) != 1:
            raise self._error(name, f"must define {self.defines}; it defines {len(found)}")
        return found[0]

    def options_class(self, name: str) -> type:
        """The plug-in's `Options`: of its file, else of its class. `NoOptions` where it has none.

        Raises:
            SettingError: see `find`; or the plug-in cannot work; or `Options` is no dataclass, or
                has a wrong default.
        """
        # A class inherits the empty `Options` of its base, so what the file defines comes first.
        plugin = self.find(name)
        in_class = getattr(plugin, "Options", NoOptions)
        options = getattr(self._module(name), "Options", in_class)
        if not dataclasses.is_dataclass(options):
            raise self._error(name, "its Options must be a dataclass")
        fault = self.fault(plugin, options)
        if fault:
            raise self._error(name, fault)
        try:
            check_options_class(options)
        except Exception as error:
            raise self._error(name, f"its Options cannot work: {one_line(error)}") from error
        return options

    def options(self, name: str, given: Mapping[str, Any]) -> Any:
        """The options of the plug-in `name`: an instance of its `Options`.

        Args:
            given: the whole section, plug-in -> options. The others' options are checked too.

        Raises:
            SettingError: the section names an unknown plug-in, or an option is unknown, of the
                wrong type or out of bounds.
        """
        names = self.names()
        chosen = option_name(name)
        for other, values in given.items():
            # A config may give options of strategies that only some of its runs choose. A wrong
            # name among them would otherwise show only in the run that chooses that strategy.
            if other != chosen and other not in names:
                remedy = (
                    f"no such {self.word}; {did_you_mean(other, names)}; options of a FILE.py can "
                    f"be given only where {self.setting} is that file"
                )
                raise SettingError(f"{self.section}.{other}", values, remedy)
            if other != chosen:
                read_options(self.options_class(other), values, f"{self.section}.{other}")
        options_class, values = self.options_class(name), given.get(chosen, {})
        try:
            return read_options(options_class, values, f"{self.section}.{chosen}")
        except SettingError:
            raise
        except Exception as error:
            # The file's own `__post_init__` may refuse the values.
            raise self.failure(name, f"its Options refuse {values}", error) from error

    def all_options(self, name: str) -> list[NamedSetting]:
        """The options that the plug-in `name` takes, with their dotted names and defaults.

        Raises:
            SettingError: see `options_class`.
        """
        return list(all_settings(self.options_class(name), f"{self.section}.{option_name(name)}."))

    def settings(self, name: str, given: Mapping[str, Any]) -> list[NamedSetting]:
        """The options of the plug-in `name` with their dotted names and their values.

        Raises:
            SettingError: see `options`.
        """
        prefix = f"{self.section}.{option_name(name)}."
        return list(all_settings(self.options(name, given), prefix))

    def _module(self, name: str) -> ModuleType:
        if name.endswith(".py"):
            return self._module_of_file(name, Path(name).absolute())
        names = self.names()
        if name not in names:
            raise self._error(name, f"no such {self.word}; {did_you_mean(name, names)}")
        return importlib.import_module(f"{self.package}.{name}")

    def _module_of_file(self, name: str, path: Path) -> ModuleType:
        if not path.is_file():
            raise self._error(name, "no such file")
        # The stem names the file's options, `SECTION.STEM.OPTION`, beside those of the built-ins.
        if "." in path.stem or path.stem in self.names():
            remedy = f"rename the file: {path.stem!r} has a dot, or is a built-in {self.word}"
            raise self._error(name, remedy)
        try:
            return load_source(path, f"plugin_{self.word}_{path.stem}")
        except FOREIGN as error:
            raise self.failure(name, "cannot be imported", error) from error

    def failure(self, name: str, what: str, error: BaseException) -> SettingError:
        """The error that the file `name` raised, as one line about the setting that chose it."""
        return self._error(name, f"{what}: {place_of(error, Path(name).absolute())}")

    def _error(self, name: str, remedy: str) -> SettingError:
        return SettingError(self.setting, name, remedy)


def option_name(name: str) -> str:
    """Under which name a plug-in's options are given: its own, or the stem of its file."""
    return Path(name).stem


def classes_of(base: type[T]) -> Callable[[ModuleType], list[type[T]]]:
    """Lists the classes that a module itself defines and that derive from `base`."""

    def definitions(module: ModuleType) -> list[type[T]]:
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        # The base class and helpers are imported into the file, and are no plug-ins of it.
        own = [one for one in classes if one.__module__ == module.__name__]
        return [one for one in own if issubclass(one, base)]

    return definitions


def functions_called(name: str) -> Callable[[ModuleType], list[Callable[..., Any]]]:
    """Lists the function called `name`, where a module has it."""

    def definitions(module: ModuleType) -> list[Callable[..., Any]]:
        function = getattr(module, name, None)
        return [function] if callable(function) else []

    return definitions


def methods_missing(base: type, *names: str) -> Callable[[type, type], str]:
    """Says which of the methods, that `base` only declares, a class does not define."""

    def fault(plugin: type, options_class: type) -> str:
        missing = [name for name in names if getattr(plugin, name) is getattr(base, name)]
        return "its class must define " + ", ".join(missing) if missing else ""

    return fault


def takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether the function can be called with that number of positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    # Some functions of C libraries have no signature to look at.
    except ValueError:
        return True
    return True
