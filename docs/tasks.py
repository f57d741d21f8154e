"""Writes ``docs/tasks/``: a page a pretext task, from its plugin, the committed records and the published tables.

Run it with ``make tables``; a test fails while a page is not what it writes. A new task needs a kind in ``KINDS``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from clvr_bench import PretextTask, Recipe, leaderboard, published
from clvr_bench.options import REQUIRED, Option
from clvr_bench.plugins import load_plugins
from clvr_bench.registry import Entry, Kind

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "tasks"
SUITES = (
    "figure2-cifar10",
    "figure2-cifar10-cpu",
    "figure2-cifar10-cpu-long",
    "cifar10-jpeg-cpu",
    "contract-shapes",
    "contract-shapes-long",
    "figure2-shapes",
)  # those that have records
STUDIES = {"simclr-pairs-shapes": "../../results/README.md#pairs-of-augmentations"}  # too many rows for a page
UNTRAINED = "random_init"
MOST_PUBLISHED = 12  # rows of a page; the table in the package has them all
LARGEST_DENOMINATOR = 400  # of options printed as fractions: papers give sizes in pixels
SEES = {
    "none": "no labels",
    "fine": "all labels",
    "coarse": "coarse labels",
    "partial": "a part of the labels",
    "unknown": "unknown",
}
JUDGED_BY = {"linear_top1": "linear probe", "knn_top1 (k=200, max over epochs)": "k-NN, its best epoch"}
KINDS = {
    "Contrastive: Views of a picture attract, those of others repel": (
        "amdim", "cmc", "cpc_v1", "cpc_v2", "deep_infomax", "infomin", "instdisc", "local_aggregation", "moco_v1",
        "moco_v2", "moco_v3", "nce", "nnclr", "pirl", "simclr", "simclr_v2",
    ),
    "Distilling: A view predicts what a network says of another one, and nothing repels": ("byol", "dino", "simsiam"),
    "Decorrelating: Views agree, and each dimension of an embedding says something else": ("barlow_twins", "vicreg"),
    "Clustering: Pictures, or views, predict the groups that features fall into": (
        "deepcluster", "deepcluster_v2", "swav",
    ),
    "Predicting: Where a patch was, how a picture was turned, or what else is known without labels": (
        "colorization", "exemplar", "jigsaw", "relative_position", "rotation",
    ),
    "Generative: Pixels are made, those of whole pictures or of hidden parts": ("bigbigan", "context_encoder", "mae"),
    "With labels: Listed, not ranked": ("semi_supervised", "supcon", "supervised", "weakly_supervised"),
    "Nothing trained: Yardsticks and ready-made weights": ("random_init", "raw_pixels", "weights"),
}  # fmt: skip
"""Headings of the list of all tasks and what they mean, with the names below; tasks to come may stand here already."""


def pages() -> dict[str, str]:
    """Return every page by its file's name, the list of all among them."""
    entries = load_plugins().registry.entries(Kind.PRETEXT_TASK)
    folders = filter(Path.is_dir, (ROOT / "results" / suite for suite in SUITES))
    measured = pd.concat(map(leaderboard, folders), ignore_index=True)
    studies = {suite: leaderboard(ROOT / "results" / suite) for suite in STUDIES}
    names = {entry.factory: entry.name for entry in entries}
    tasks = {f"{entry.name}.md": _page(entry, names, measured, studies) for entry in entries}
    return {"README.md": _list(entries), **tasks}


def kind_of(name: str) -> str:
    """Return the heading that a task stands under in the list of all.

    Raises:
        LookupError: It has none yet.
    """
    for kind, names in KINDS.items():
        if name in names:
            return kind
    kinds = ", ".join(kind.partition(":")[0] for kind in KINDS)
    raise LookupError(
        f"docs/tasks.py: pretext task '{name}' has no kind. Add '{name}' to KINDS, under one of: {kinds}."
    )


def _list(entries: Iterable[Entry]) -> str:
    parts = ["# Pretext tasks", "Written by `make tables` from plugins, committed records and published tables."]
    kinds = {entry.name: kind_of(entry.name) for entry in entries}
    for kind in KINDS:
        rows = [
            [f"[`{e.name}`]({e.name}.md)", SEES[_reported_labels(e)], e.summary, _paper(e)]
            for e in sorted(entries, key=_year)
            if kinds[e.name] == kind
        ]
        if rows:
            heading, _, meaning = kind.partition(": ")
            parts += [f"## {heading}", f"{meaning}.", _table(["name", "sees", "what it does", "source"], rows)]
    return _joined(parts)


def _reported_labels(entry: Entry) -> str:
    defaults = {name: option.default for name, option in entry.options.items()}
    return _contract(entry).reported_labels(**defaults)


def _paper(entry: Entry) -> str:
    """Return its source as a link of author and year; a dash where there is none."""
    match = re.match(r"(.+?),? (https?://[^\s,]+)", entry.source)
    return f"[{match[1]}]({match[2]})" if match else "-"


def _year(entry: Entry) -> int:
    match = re.search(r"\b(19|20)\d\d\b", entry.source)
    return int(match[0]) if match else 0


def _page(entry: Entry, names: Mapping[Any, str], measured: pd.DataFrame, studies: Mapping[str, pd.DataFrame]) -> str:
    contract = _contract(entry)
    idea, _ = _docstring(contract)
    parts = [f"# `{entry.name}`", entry.summary, idea, f"Source: {entry.source}", "## Options"]
    rows = [[f"`{o.name}`", f"`{_default(o)}`", _argument(contract, o.name, names)] for o in entry.options.values()]
    parts.append(_table(["option", "default", "what it is"], rows) if rows else "None of its own.")
    if contract.trains:
        parts.append(
            f"It sees {SEES[contract.labels]}, and {_views(contract)}. Its recipe: {_recipe(contract.recipe)}."
        )
    parts += ["## Measured", *_measured(entry.name, measured)]
    parts += [_study(suite, frame, entry.name) for suite, frame in studies.items() if contract.trains]
    parts += ["## Published", *_published(entry.name)]
    return _joined(parts)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _contract(entry: Entry) -> type[PretextTask]:
    contract: Any = entry.factory
    assert issubclass(contract, PretextTask)
    return contract


def _docstring(contract: type) -> tuple[str, dict[str, str]]:
    """Part a class's docstring into its text and what it says of its arguments."""
    text, _, rest = (inspect.getdoc(contract) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", rest, flags=re.MULTILINE)
    return _markdown(text), {name: " ".join(line.split()) for name, line in found}


def _argument(contract: type[PretextTask], name: str, names: Mapping[Any, str]) -> str:
    """Return what the docstring says of an argument; of the task that it is derived from where its own is silent."""
    for owner in contract.__mro__:
        if name in (found := _docstring(owner)[1]):
            inherited = f" (As in [`{names[owner]}`]({names[owner]}.md).)" if owner in names.keys() - {contract} else ""
            return _markdown(found[name]) + inherited
    return ""


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _default(option: Option) -> str:
    """Return a default as users write it; as a fraction where the paper's numbers make one, such as 64/85."""
    if option.default is REQUIRED:
        return "required"
    if not isinstance(option.default, float):
        return str(option.default)
    short, exact = f"{option.default:.4g}", Fraction(option.default).limit_denominator(LARGEST_DENOMINATOR)
    return str(exact) if float(short) != option.default == float(exact) else short


def _views(contract: type[PretextTask]) -> str:
    default = contract.default_augmentation
    chain = default if isinstance(default, str) else "+".join(default)
    if contract.views == "multi":
        return f"as many views of a picture as the augmentation makes, by default `{chain}`"
    count = "1 view" if contract.views == 1 else f"{contract.views} views"
    return f"{count} of a picture, by default of the augmentation `{chain}`"


def _recipe(recipe: Recipe) -> str:
    pictures = "a picture" if recipe.reference_batch == 1 else f"{recipe.reference_batch} pictures"
    warmup = f", {recipe.warmup:.0%} of it warm-up" if recipe.warmup else ""
    rate, decay = f"rate {recipe.learning_rate:g} for {pictures} a step", f"weight decay {recipe.weight_decay:g}"
    return f"{recipe.optimizer}, {rate}, {decay}, {recipe.schedule} schedule{warmup}"


def _measured(name: str, measured: pd.DataFrame) -> Iterator[str]:
    """Yield a task's rows with those of the same encoders untrained below them, then under which options they are."""
    own = measured[measured["pretext_task"] == name]
    if not len(own):
        yield "Not in a committed suite."
        return
    place = ["suite", "dataset", "encoder"]
    others = measured[(measured["pretext_task"] == UNTRAINED) & (name != UNTRAINED)]
    untrained = others.merge(own[place].drop_duplicates(), on=place)
    rows = [
        [f"`{row.pretext_task}`", row.suite, row.dataset, row.encoder or "-", _number(row.epochs), str(row.seeds),
         _interval(row), f"{row.knn_top1_mean:.1f}"]
        for row in pd.concat([own, untrained]).itertuples()
    ]  # fmt: skip
    yield _table(["pretext task", "suite", "dataset", "encoder", "epochs", "seeds", "top-1 %", "k-NN %"], rows)
    yield _legend(own, compared=len(untrained) > 0)
    yield _settings(own)


def _legend(own: pd.DataFrame, *, compared: bool) -> str:
    built = ", though not built as this task asks" if own["options"].str.contains(r"\bencoder\.").any() else ""
    said = [f"`{UNTRAINED}` is the same encoder untrained{built}."] if compared else []
    if own["top1_ci95"].notna().any():
        said.append("± is the half-width of the 95% t interval over seeds, which may reach past 100.")
    return " ".join(said)


def _settings(own: pd.DataFrame) -> str:
    """Return a line for each setting of a task's rows: suites, options, augmentation, and where options come from."""
    lines: dict[str, list[str]] = {}
    for row in own.itertuples():
        options = [item for item in row.options.split("; ") if item and not item.startswith("dataset.")]
        parts = [", ".join(f"`{item}`" for item in options) or "defaults"]
        parts += [f"augmentation `{row.augmentation}`"] if row.augmentation else []
        parts += [f"options from: {row.options_source}"] if options else []
        lines.setdefault("; ".join(parts), []).append(row.suite)
    if set(lines) == {"defaults"}:
        return ""
    text = "".join(f"- {', '.join(dict.fromkeys(suites))}: {line}.\n" for line, suites in lines.items())
    parts = {"`recipe.": "`recipe.*` is how it is optimized", "`encoder.": "`encoder.*` what it asks of its encoder"}
    told = ", ".join(meaning for prefix, meaning in parts.items() if prefix in text)
    return f"Options that are not the defaults{f' ({told})' if told else ''}:\n\n{text}"


def _study(suite: str, frame: pd.DataFrame, name: str) -> str:
    rows = (frame["pretext_task"] == name).sum()
    if not rows:
        return ""
    return f"{rows} more rows, under none, one and two augmentations, are in [`{suite}`]({STUDIES[suite]})."


def _published(name: str) -> Iterator[str]:
    """Yield the tables of what was printed about a task; what was not seen in print stays out."""
    tables = [*_printed(name, "imagenet_linear", "ImageNet, linear"), *_printed(name, "cifar10", "CIFAR-10")]
    if tables:
        yield "As printed: protocols, encoders and sizes differ, so rank these neither among one another nor with ours."
    yield from tables or ["No figure in the published tables."]


def _printed(name: str, table: str, title: str) -> Iterator[str]:
    frame = published(table)
    own = frame[frame["pretext_task"] == name].sort_values("top1", ascending=False, kind="stable")
    seen = own[own["verified"]]
    unseen = len(own) - len(seen)
    notes = [f"the best {MOST_PUBLISHED} of {len(seen)}"] if len(seen) > MOST_PUBLISHED else []
    notes += [f"{unseen} {'more ' if len(seen) else ''}not seen in print"] if unseen else []
    source = f'`clvr_bench.published("{table}")`'
    if len(own):
        yield f"**{title}** ({', '.join([source, *notes])}){':' if len(seen) else '.'}"
    if len(seen):
        rows = [_published_row(row) for row in seen.head(MOST_PUBLISHED).to_dict("records")]
        head = [column for column in rows[0] if any(row[column] != "-" for row in rows)]
        yield _table(head, [[row[column] for column in head] for row in rows])


def _published_row(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "encoder": row.get("encoder") or row["backbone"],
        "variant": row["variant"] or "-",
        "epochs": _number(row["epochs"]),
        "batch": _number(row.get("batch_size")),
        "judged by": JUDGED_BY.get(row["metric"], row["metric"]) if "metric" in row else "-",
        "top-1 %": str(row["top1"]),
        "source": row["source"],
    }


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
