"""One way to bring a strategy of allocation, an advantage estimator or an environment.

A setting names a file of one folder of the package, or FILE.py. No table lists the files. The file
may define `Options`, a dataclass whose fields are the plug-in's own settings.
"""

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from megatron_trace.config.error import SettingError, did_you_mean
from megatron_trace.config.options import read_options
from megatron_trace.config.setting import NamedSetting, all_settings

T = TypeVar("T")


@dataclasses.dataclass
class NoOptions:
    """The options of a plug-in that has none."""


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
    """

    word: str
    setting: str
    section: str
    package: str
    defines: str
    definitions: Callable[[ModuleType], list[T]]

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
            SettingError: see `find`; or `Options` is no dataclass.
        """
        # A class inherits the empty `Options` of its base, so what the file defines comes first.
        in_class = getattr(self.find(name), "Options", NoOptions)
        options = getattr(self._module(name), "Options", in_class)
        if not dataclasses.is_dataclass(options):
            raise self._error(name, "its Options must be a dataclass")
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
                remedy = f"no such {self.word}; {did_you_mean(other, names)}"
                raise SettingError(f"{self.section}.{other}", values, remedy)
            if other != chosen:
                read_options(self.options_class(other), values, f"{self.section}.{other}")
        return read_options(
            self.options_class(name), given.get(chosen, {}), f"{self.section}.{chosen}"
        )

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
        try:
            return _load(path, f"plugin_{self.word}_{path.stem}", path.stat().st_mtime_ns)
        except Exception as error:
            raise self._error(name, f"cannot be imported: {_place_of(error, path)}") from error

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


# A file is looked up several times, by the checks and by its users. Loaded each time, its classes
# would differ, and a step would run the file once for each of its lookups.
@functools.cache
def _load(path: Path, module_name: str, modified_ns: int) -> ModuleType:
    """The module of a file; a file that has been modified since is loaded again."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and OmegaConf resolve annotations in the class's module, and look for it in
    # sys.modules.
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def _place_of(error: Exception, path: Path) -> str:
    """The error in one line, with the last line of the file that was being run."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    # A file that does not parse was never run: it is in no frame.
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    where = f"line {lines[-1]}: " if lines else ""
    return " ".join(f"{where}{type(error).__name__}: {error}".split())
