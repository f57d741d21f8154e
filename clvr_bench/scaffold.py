"""Writes new plugins from ``templates/``: a file to try from a folder, or a package to install. Loads no plugin."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clvr_bench.errors import ClvrBenchError

if TYPE_CHECKING:
    from clvr_bench.plugins import Plugin, Plugins

TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = {"augmentation": ("default",)}  # words that suites give a meaning of their own


@dataclass(frozen=True)
class Draft:
    """A plugin to be written.

    Attributes:
        kind: As messages write it, such as ``"pretext task"``.
        name: The name it registers; its file's, its suite's and its package's name too.

    Raises:
        ClvrBenchError: The name cannot be one of a plugin and of a Python module.
    """

    kind: str
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClvrBenchError(
                f"new: {self.name!r} cannot be a plugin's name. Use lower case letters, digits and underscores, "
                f"a letter first, such as {_mended(self.name)!r}."
            )
        if keyword.iskeyword(self.name) or self.name in _RESERVED.get(self.kind, ()):
            owner = "Python" if keyword.iskeyword(self.name) else "suites"
            raise ClvrBenchError(f"new: '{self.name}' is a word of {owner}. Choose another, such as 'my_{self.name}'.")

    @property
    def module(self) -> str:
        """The kind as a module's name, such as ``"pretext_task"``; templates are called so."""
        return self.kind.replace(" ", "_")

    @property
    def plural(self) -> str:
        """The kind as ``clvr-bench list`` takes it, such as ``"pretext-tasks"``."""
        return self.kind.replace(" ", "-") + "s"

    @property
    def distribution(self) -> str:
        """What pip calls the package, and its folder's name."""
        return f"clvr-bench-{self.name.strip('_').replace('_', '-')}"

    @property
    def class_name(self) -> str:
        """The name in camel case; ``My`` before it where the template or Python has that word already."""
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        taken = _names_in(_template(f"{self.module}.py")) | set(dir(builtins))
        return f"My{camel}" if camel in taken else camel

    def files(self, *, package: bool) -> dict[Path, str]:
        """Return what is to be written: texts by relative path."""
        plugin, suite = f"{self.module}.py", f"{self.module}.toml"
        if not package:
            return {Path(f"{self.name}.py"): self._render(plugin), Path(f"{self.name}.toml"): self._render(suite)}
        top, source = Path(self.distribution), Path(self.distribution, "src", self.name)
        return {
            top / "pyproject.toml": self._render("package/pyproject.toml"),
            top / "README.md": self._render("package/README.md"),
            top / ".gitignore": self._render("package/gitignore"),
            top / f"{self.name}.toml": self._render(suite),
            source / "__init__.py": self._render("package/package.py"),
            source / plugin: self._render(plugin),
            top / "tests" / f"test_{self.name}.py": self._render("package/conformance.py"),
        }

    def _render(self, template: str) -> str:
        words = {
            "plugin_name": self.name,
            "PluginName": self.class_name,
            "plugin_kind": self.kind,
            "plugin_module": self.module,
            "plugin_list": self.plural,
            "plugin_distribution": self.distribution,
        }
        return re.sub("|".join(words), lambda found: words[found[0]], _template(template))


def write(draft: Draft, folder: Path, *, package: bool) -> list[Path]:
    """Write a plugin's files.

    Args:
        draft: The plugin.
        folder: Where; made if it is not there.
        package: Whether as an installable package, in a folder of its own.

    Returns:
        The files.

    Raises:
        ClvrBenchError: One of them, or the package's folder, is there already; nothing is written then. Or the folder
            cannot be written to.
    """
    files = {folder / path: text for path, text in draft.files(package=package).items()}
    for path in [folder / draft.distribution] if package else files:
        if path.exists():
            raise ClvrBenchError(
                f"new: {path} is there already, and nothing was written. Choose another name, or another folder with "
                "--output DIR."
            )
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClvrBenchError(f"new: cannot write {path}: {reason}. Choose another folder with --output DIR.") from None
    return list(files)


def refuse_taken(draft: Draft, plugins: Plugins) -> None:
    """Refuse a name that a plugin has already.

    Raises:
        ClvrBenchError: The name is registered for this kind, or a plugin is called so; the message says whose it is.
    """
    for plugin in plugins.found:
        if _registers(plugin, draft):
            raise ClvrBenchError(
                f"new: {draft.kind} '{draft.name}' is registered by plugin '{plugin.name}' ({_origin(plugin)}). "
                "Choose another name."
            )
    for plugin in plugins.found:
        if plugin.name == draft.name:
            raise ClvrBenchError(
                f"new: there is a plugin '{plugin.name}' already ({_origin(plugin)}), and no two may have one name. "
                f"Choose another, such as '{draft.name}_{draft.module}'."
            )


def refuse_importable(draft: Draft) -> None:
    """Refuse a package's name that an installed module has.

    Raises:
        ClvrBenchError: Python finds a module of that name.
    """
    found = find_spec(draft.name)
    if found:
        where = found.origin or ", ".join(found.submodule_search_locations or ["Python"])
        raise ClvrBenchError(
            f"new: a package cannot be called '{draft.name}', for 'import {draft.name}' finds {where}. "
            f"Choose another name, such as '{draft.name}_{draft.module}'."
        )


def refuse_folder(folder: Path) -> None:
    """Refuse a folder whose plugin files would not load, for they are imported as modules of a package named like it.

    Raises:
        ClvrBenchError: Its name has a dot, or is that of an installed module.
    """
    name = folder.resolve().name
    found = find_spec(name) if name and "." not in name else None
    elsewhere = found and found.origin and Path(found.origin).resolve().parent != folder.resolve()
    if elsewhere or not name or "." in name:
        reason = f"'import {name}' finds {found.origin}" if found else "its name has a dot or is empty"
        raise ClvrBenchError(
            f"new: plugins in the folder {folder.resolve()} cannot be imported, for {reason}. "
            "Choose another folder with --output DIR."
        )


def _registers(plugin: Plugin, draft: Draft) -> bool:
    """Whether a plugin registered the name for the kind, by itself or as one of a family."""
    return any(
        draft.name in (item.names() if hasattr(item, "names") else [item.name])
        for item in plugin.registered
        if item.kind == draft.kind
    )


def _origin(plugin: Plugin) -> str:
    return f"{plugin.distribution} {plugin.version}".strip()


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _names_in(source: str) -> set[str]:
    """Return every name that a module imports or uses."""
    nodes = list(ast.walk(ast.parse(source)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return used | {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}


def _mended(name: str) -> str:
    """Make the nearest allowed name: ``ViewPair-2`` becomes ``view_pair_2``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_").lstrip("0123456789_") or "view_pair"
