"""Finds, imports and registers plugins: installed entry points and the files of plugins directories, on one road.

A plugin that is broken is reported by name and reason, and is fatal only to who asks for it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from clvr_bench.errors import ClvrBenchError, PluginError
from clvr_bench.hooks import PROJECT, Hooks
from clvr_bench.registry import Entry, Family, Kind, Registrar, Registry

ON_REQUEST = f"{PROJECT}.on_request"
"""The group of entry points that are loaded only where somebody asks for them."""
DIRS_VARIABLE = "CLVR_BENCH_PLUGINS_DIR"
HOOK_NAMES = tuple(name for name in vars(Hooks) if not name.startswith("_"))


@dataclass
class Plugin:
    """One plugin and how its loading went.

    Attributes:
        name: The entry point's name, or the file's stem.
        distribution: The installed package it belongs to, or the plugins directory.
        version: That package's version; the code's hash for a file.
        state: Loaded, waiting for ``--plugin``, blocked by ``--no-plugin``, or broken.
        reason: Why it is broken, in one line.
        registered: What it registered.
    """

    name: str
    distribution: str
    version: str
    state: Literal["loaded", "waiting", "blocked", "broken"] = "loaded"
    reason: str = ""
    registered: list[Entry | Family] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidate:
    plugin: Plugin
    load: Callable[[], Any]
    code: str = ""
    waits: bool = False


@dataclass(frozen=True)
class Plugins:
    """Everything that loading gave.

    Attributes:
        found: Every plugin, in the order loaded.
        registry: What they registered.
        hook: Calls the observers' hooks: ``plugins.hook.run_started(...)``.
    """

    found: list[Plugin]
    registry: Registry
    hook: pluggy.HookRelay

    @property
    def broken(self) -> list[Plugin]:
        """Those that did not load."""
        return [plugin for plugin in self.found if plugin.state == "broken"]


def load_plugins(
    directories: Iterable[Path] = (), *, blocked: Collection[str] = (), requested: Collection[str] = ()
) -> Plugins:
    """Load all installed plugins, then those of the directories named here and in ``CLVR_BENCH_PLUGINS_DIR``.

    Args:
        directories: Folders whose Python files and packages are plugins, where names that begin with ``_`` are helpers;
            or single files.
        blocked: Names of plugins to leave out.
        requested: Names of those to load that wait to be asked for.

    Raises:
        ClvrBenchError: A directory is not there, a name is no plugin's, one is both blocked and requested, or a
            requested plugin is broken.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    registry = Registry()
    candidates = [*_installed(), *_from_files(_plugin_files(directories))]
    for flag, names in (("--no-plugin", blocked), ("--plugin", requested)):
        for name in sorted(set(names) - {candidate.plugin.name for candidate in candidates}):
            raise ClvrBenchError(f"{flag} {name}: no such plugin. See them with: clvr-bench plugins")
    for name in sorted(set(blocked) & set(requested)):
        raise ClvrBenchError(f"--plugin {name} and --no-plugin {name}: give one of both.")
    for candidate in candidates:
        plugin = candidate.plugin
        if plugin.name in blocked:
            plugin.state = "blocked"
        elif candidate.waits and plugin.name not in requested:
            plugin.state = "waiting"
        else:
            _load(candidate, manager, registry)
        if plugin.state == "broken" and plugin.name in requested:
            raise ClvrBenchError(f"--plugin {plugin.name}: {plugin.reason}")
    return Plugins([candidate.plugin for candidate in candidates], registry, manager.hook)


def _load(candidate: _Candidate, manager: pluggy.PluginManager, registry: Registry) -> None:
    """Import, check and register one plugin; whatever it raises is its own."""
    plugin = candidate.plugin
    module = None
    try:
        module = candidate.load()
        _check_hooks(plugin.name, module, manager)
        manager.register(module, name=plugin.name)
        for kind in Kind:
            registrar = Registrar(kind, plugin.name, candidate.code)
            others = [other for other in manager.get_plugins() if other is not module]
            manager.subset_hook_caller(kind.hook, others)(register=registrar)
            registry.add(registrar)
            plugin.registered += [*registrar.entries, *registrar.families]
    except Exception as error:
        if module is not None and manager.is_registered(module):
            manager.unregister(module)
        plugin.state, plugin.reason = "broken", _reason(error)
        registry.load_errors.append(f"'{plugin.name}' ({plugin.reason})")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ClvrBenchError) else f"{type(error).__name__}: {text}"


def _installed() -> Iterator[_Candidate]:
    """Yield the entry points of both groups, each to be imported on its own; built-ins first, then by distribution."""
    for group in (PROJECT, ON_REQUEST):
        for point in dict.fromkeys(sorted(entry_points(group=group), key=_order)):
            distribution = point.dist.name if point.dist else "unknown"
            version = point.dist.version if point.dist else ""
            plugin = Plugin(point.name, distribution, version)
            yield _Candidate(plugin, _loader(point), waits=group == ON_REQUEST)


def _order(point: EntryPoint) -> tuple[bool, EntryPoint]:
    return point.value.split(".")[0] != "clvr_plugins", point


def _loader(point: EntryPoint) -> Callable[[], Any]:
    return point.load


def _plugin_files(named: Iterable[Path]) -> list[Path]:
    """List the files and packages of the folders named here and in the environment, and single files, each once."""
    listed = [Path(part) for part in os.environ.get(DIRS_VARIABLE, "").split(os.pathsep) if part]
    found: list[Path] = []
    for path in dict.fromkeys(path.expanduser().resolve() for path in [*named, *listed]):
        if path.is_dir():
            found += sorted(entry for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
        elif path.is_file():
            found.append(path)
        else:
            allowed = "Name a folder that holds plugin files (*.py), or one such file."
            raise ClvrBenchError(f"{path}: no such folder or file. {allowed}")
    return list(dict.fromkeys(found))


def _from_files(files: Iterable[Path]) -> Iterator[_Candidate]:
    """Yield plugin files and packages, under real module names so that their classes can be pickled."""
    for path in files:
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix != ".py" or not source.is_file():
            continue
        folder, code = path.parent, _hash_code(path)
        if str(folder.parent) not in sys.path:
            sys.path.append(str(folder.parent))
        yield _Candidate(Plugin(path.stem, str(folder), code), _importer(folder, path.stem, source), code)


def _hash_code(path: Path) -> str:
    """Hash a plugin's code, so that an edited file is another version: edit and run again just works."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def _importer(folder: Path, stem: str, source: Path) -> Callable[[], ModuleType]:
    def load() -> ModuleType:
        """Import the file under its real name, and make sure that the name is its own."""
        name = f"{folder.name}.{stem}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if name.startswith(str(error.name)):  # the folder's name has a dot, or is that of an installed module
                raise PluginError(f"no module can be called {name} here. Rename the folder {folder}.") from None
            raise
        if Path(module.__file__ or "").resolve() != source.resolve():
            raise PluginError(
                f"its module name {module.__name__} belongs to {module.__file__}. Rename the folder {folder}."
            )
        return module

    return load


def _check_hooks(plugin: str, module: object, manager: pluggy.PluginManager) -> None:
    """Find what pluggy passes over in silence: misspelt, undecorated and absent hooks."""
    implemented = 0
    for name, function in inspect.getmembers(module, inspect.isroutine):
        decorated = manager.parse_hookimpl_opts(module, name) is not None
        near = get_close_matches(name, HOOK_NAMES, n=1, cutoff=0.85)
        where = f"Plugin '{plugin}' ({_location(function)}) defines '{name}'"
        if decorated and name not in HOOK_NAMES:
            hint = f" Did you mean '{near[0]}'?" if near else f" Hooks: {', '.join(HOOK_NAMES)}."
            raise PluginError(f"{where}, which is not a clvr-bench hook.{hint}")
        if not decorated and near and getattr(function, "__module__", None) == getattr(module, "__name__", ""):
            fix = "" if name in HOOK_NAMES else f" and call it '{near[0]}'"
            raise PluginError(
                f"{where} without @hookimpl, so it is never called. Decorate it with clvr_bench.hookimpl{fix}."
            )
        implemented += decorated
    if not implemented:
        raise PluginError(f"Plugin '{plugin}' implements no hook. A helper's file name begins with an underscore.")


def _location(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else "unknown"
