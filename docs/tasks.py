"""Writes ``docs/tasks/``: a page a pretext task, from its plugin, the committed records and the published tables.

Run it with ``make tables``; a test fails while a page is not what it writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from clvr_bench import PretextTask, Recipe, leaderboard, published
from clvr_bench.options import REQUIRED, Option
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Entry, Kind

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "tasks"
SUITES = ("cifar10-jpeg-cpu", "contract-shapes", "contract-shapes-long")
MOST_PUBLISHED = 12  # rows of a page; the table in the package has them all
SEES = {"none": "no labels", "fine": "all labels", "coarse": "coarse labels", "partial": "a part of the labels"}


def pages() -> dict[str, str]:
    """Return every page by its file's name, the list of all among them."""
    entries = load_plugins().registry.entries(Kind.PRETEXT_TASK)
    measured = pd.concat([leaderboard(ROOT / "results" / suite) for suite in SUITES], ignore_index=True)
    return {"README.md": _list(entries), **{f"{entry.name}.md": _page(entry, measured) for entry in entries}}


def _list(entries: Iterable[Entry]) -> str:
    head = "# Pretext tasks\n\nWritten by `make tables` from plugins, committed records and published tables.\n\n"
    rows = [[f"[`{e.name}`]({e.name}.md)", SEES[_contract(e).labels], e.summary] for e in entries]
    return head + _table(["name", "sees", "what it does"], rows)


def _page(entry: Entry, measured: pd.DataFrame) -> str:
    contract = _contract(entry)
    idea, _ = _docstring(contract)
    parts = [f"# `{entry.name}`", entry.summary, idea, f"Source: {entry.source}", "## Options"]
    rows = [[f"`{o.name}`", f"`{_default(o)}`", _argument(contract, o.name)] for o in entry.options.values()]
    parts.append(_table(["option", "default", "what it is"], rows) if rows else "None of its own.")
    if contract.trains:
        chain = contract.default_augmentation
        views = f"{contract.views} view{'' if contract.views == 1 else 's'}"
        parts.append(
            f"It sees {SEES[contract.labels]}, and {views} of a picture; by default of the augmentation "
            f"`{chain if isinstance(chain, str) else '+'.join(chain)}`. Its recipe: {_recipe(contract.recipe)}."
        )
    parts += ["## Measured", _measured(entry.name, measured), "## Published", _published(entry.name)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _contract(entry: Entry) -> type[PretextTask]:
    contract: Any = entry.factory
    assert issubclass(contract, PretextTask)
    return contract


def _docstring(contract: type) -> tuple[str, dict[str, str]]:
    """Part a class's docstring into its text and what it says of its arguments."""
    text, _, rest = (inspect.getdoc(contract) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", rest, flags=re.MULTILINE)
    return _markdown(text), {name: " ".join(line.split()) for name, line in found}


def _argument(contract: type[PretextTask], name: str) -> str:
    """Return what the docstring says of an argument; of the class that it is derived from where its own is silent."""
    return next((_markdown(found[name]) for c in contract.__mro__ if name in (found := _docstring(c)[1])), "")


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "required"
    return f"{option.default:.4g}" if isinstance(option.default, float) else str(option.default)


def _recipe(recipe: Recipe) -> str:
    rate = f"rate {recipe.learning_rate:g} for {recipe.reference_batch} pictures a step"
    schedule = f"{recipe.schedule} schedule, {recipe.warmup:.0%} of it warm-up"
    return f"{recipe.optimizer}, {rate}, weight decay {recipe.weight_decay:g}, {schedule}"


def _measured(name: str, measured: pd.DataFrame) -> str:
    own = measured[measured["pretext_task"] == name]
    rows = [
        [row.suite, row.dataset, row.encoder or "-", _number(row.epochs), str(row.seeds), _interval(row),
         f"{row.knn_top1_mean:.1f}", row.options or "-", row.augmentation or "-"]
        for row in own.itertuples()
    ]  # fmt: skip
    head = ["suite", "data set", "encoder", "epochs", "seeds", "top-1 %", "k-NN %", "options", "augmentation"]
    return _table(head, rows) if rows else "Not in a committed suite."


def _published(name: str) -> str:
    parts = []
    for table, title in (("imagenet_linear", "ImageNet, linear"), ("cifar10", "CIFAR-10")):
        frame = published(table)
        own = frame[frame["pretext_task"] == name].sort_values("top1", ascending=False, kind="stable")
        if len(own):
            shown = own.head(MOST_PUBLISHED)
            more = f", the best {MOST_PUBLISHED} of {len(own)}" if len(own) > len(shown) else ""
            rows = list(_published_rows(shown))
            parts.append(f'**{title}** (`clvr_bench.published("{table}")`{more}):\n\n{_table(rows[0], rows[1:])}')
    return "\n".join(parts) or "No figure in the published tables."


def _published_rows(frame: pd.DataFrame) -> Iterator[list[str]]:
    encoder = "encoder" if "encoder" in frame else "backbone"
    metric = "metric" in frame
    yield [encoder, "variant", "epochs", *(["metric"] if metric else []), "top-1 %", "read in"]
    for row in frame.to_dict("records"):
        doubt = "" if row["verified"] else " (not seen in print)"
        kind = [str(row["metric"])] if metric else []
        yield [
            row[encoder],
            row["variant"] or "-",
            _number(row["epochs"]),
            *kind,
            str(row["top1"]),
            row["source"] + doubt,
        ]


def _interval(row: Any) -> str:
    return f"{row.top1_mean:.1f}" + ("" if pd.isna(row.top1_ci95) else f" ± {row.top1_ci95:.1f}")


def _number(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for file, text in written.items():
        (FOLDER / file).write_text(text)
