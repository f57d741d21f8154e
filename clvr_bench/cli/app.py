"""The commands and their options; what they do is imported when they do it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.errors import ClvrBenchError

app = typer.Typer(
    name="clvr-bench",
    help="Benchmark self-supervised pretext tasks: pretrain, one linear evaluation, top-1 tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Listed(StrEnum):
    """What ``list`` can list."""

    PRETEXT_TASKS = "pretext-tasks"
    ENCODERS = "encoders"
    AUGMENTATIONS = "augmentations"
    DATASETS = "datasets"
    EVALUATIONS = "evaluations"
    SUITES = "suites"


class Previewed(StrEnum):
    """What ``preview`` can draw."""

    AUGMENTATIONS = "augmentations"
    PRETEXT_TASKS = "pretext-tasks"


class PluginKind(StrEnum):
    """What a plugin can be."""

    PRETEXT_TASK = "pretext-task"
    ENCODER = "encoder"
    AUGMENTATION = "augmentation"
    DATASET = "dataset"
    EVALUATION = "evaluation"


class TableFormat(StrEnum):
    """How a leaderboard is written."""

    TABLE = "table"
    CSV = "csv"
    MARKDOWN = "markdown"
    JSON = "json"
    LATEX = "latex"
    HTML = "html"


class ComparisonFormat(StrEnum):
    """How a comparison of two rows is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class FigureSize(StrEnum):
    """How wide a figure is."""

    ONE_COLUMN = "one-column"
    TWO_COLUMN = "two-column"


class Device(StrEnum):
    """Where to run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


MemoryLimit = Annotated[
    str | None,
    typer.Option(
        help="Decoded pictures up to this size are kept in memory, larger sets are decoded as they are needed; such as "
        "8G or 500M. Default: half of the memory.",
        metavar="SIZE",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Where decoded pictures are kept. Also: CLVR_BENCH_CACHE. Default: ~/.cache/clvr-bench.", metavar="DIR"
    ),
]
WorkerCount = Annotated[
    int | None,
    typer.Option(help="Processes that decode pictures; 0 for none. Default: one a core.", min=0, metavar="N"),
]
Download = Annotated[bool, typer.Option("--download", help="Let data sets fetch their files into --data-root.")]
FORMAT_HELP = "How it is written. Default: as the file's name ends, else for the screen."
Results = Annotated[Path, typer.Option("--results", help="Folder of all suites' results.", metavar="DIR")]


@app.callback()
def _global(
    context: typer.Context,
    plugins_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of plugin files (*.py), or one file; repeatable. Also: CLVR_BENCH_PLUGINS_DIR.", metavar="DIR"
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="Load an installed plugin that waits to be asked for, such as tensorboard; repeatable.", metavar="NAME"
        ),
    ] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(help="Leave a plugin out; repeatable.", metavar="NAME")] = None,
) -> None:
    context.obj = PluginFlags(plugins_dir or (), no_plugin or (), plugin or ())


@app.command()
def run(
    context: typer.Context,
    suite: Annotated[str | None, typer.Argument(help="A built-in suite or a TOML file.", metavar="SUITE")] = None,
    pretext_task: Annotated[
        list[str] | None, typer.Option(help="Only this pretext task; repeatable.", metavar="T")
    ] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="This encoder instead; repeatable.", metavar="E")] = None,
    augmentation: Annotated[
        list[str] | None, typer.Option(help="This augmentation instead; a+b is a chain; repeatable.", metavar="A")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="This data set instead; repeatable.", metavar="D")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the data set's files are.", metavar="DIR")] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2.", metavar="S")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.", metavar="N")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples an optimizer step.", metavar="B")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="An option, such as simclr.temperature=0.2; repeatable.", metavar="TASK.OPTION=VALUE"
        ),
    ] = None,
    results: Results = Path("results"),
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.AUTO,
    time_limit: Annotated[
        str | None, typer.Option(help="Stop at a checkpoint after this long, such as 9m, 90s or 2h.", metavar="T")
    ] = None,
    memory_limit: MemoryLimit = None,
    cache: Cache = None,
    workers: WorkerCount = None,
    download: Download = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the operations of augmentations; pays for small pictures.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show combinations, time, memory and disk; train nothing.")
    ] = False,
) -> None:
    """Pretrain and evaluate every combination of a suite, or of the flags, that is not done yet."""
    from clvr_bench.cli.reading import ReadingFlags
    from clvr_bench.cli.running import RunRequest, run_request

    request = RunRequest(
        suite=suite,
        pretext_tasks=pretext_task or [],
        encoders=encoder or [],
        augmentations=augmentation or [],
        datasets=dataset or [],
        reading=ReadingFlags(data_root, download, memory_limit, cache, workers),
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        overrides=set_ or [],
        results=results,
        device=device.value,
        time_limit=time_limit,
        dry_run=dry_run,
        compiled=compile_,
        plugins=context.obj,
    )
    raise typer.Exit(run_request(request))


@app.command()
def evaluate(
    context: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Folders of finished runs, or parts of their names.", metavar="[RUN]..."),
    ] = None,
    take_all: Annotated[bool, typer.Option("--all", help="Every run that matches; all without a name.")] = False,
    evaluation: Annotated[
        list[str] | None, typer.Option(help="This evaluation; repeatable. Default: linear, knn, health.", metavar="E")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data to evaluate on, if not the run's own.", metavar="D")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the data set's files are.", metavar="DIR")] = None,
    memory_limit: MemoryLimit = None,
    cache: Cache = None,
    workers: WorkerCount = None,
    download: Download = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option, such as finetune.fraction=0.1; repeatable.", metavar="N.OPTION=VALUE"),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Evaluate these ready-made weights instead of a run.", metavar="FILE")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The network that the weights are of.", metavar="E")] = None,
    weights_format: Annotated[
        str | None, typer.Option(help="Who wrote the weights, such as timm or moco; auto finds out.", metavar="F")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept weights of only a part of the network.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Labels that the weights were trained with, such as none or fine.", metavar="L")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Where the weights are from, for tables.", metavar="N")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite that ready-made weights belong to.", metavar="S")] = None,
    results: Results = Path("results"),
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.AUTO,
) -> None:
    """Evaluate finished runs again, on their own data or on others, or weights that exist already; train nothing."""
    from clvr_bench.cli.evaluating import EvaluateRequest, evaluate_request
    from clvr_bench.cli.reading import ReadingFlags

    request = EvaluateRequest(
        runs=runs or [],
        take_all=take_all,
        weights=weights,
        encoder=encoder,
        weights_format=weights_format,
        partial=partial,
        labels=labels,
        name=name,
        suite=suite,
        evaluations=evaluation or [],
        dataset=dataset,
        reading=ReadingFlags(data_root, download, memory_limit, cache, workers),
        overrides=set_ or [],
        results=results,
        device=device.value,
        plugins=context.obj,
    )
    raise typer.Exit(evaluate_request(request))


@app.command()
def features(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's folder, or a part of its name.", metavar="RUN")],
    output: Annotated[Path, typer.Option(help="A .npz file.", metavar="FILE")],
    dataset: Annotated[str | None, typer.Option(help="Data to encode, if not the run's own.", metavar="D")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the data set's files are.", metavar="DIR")] = None,
    memory_limit: MemoryLimit = None,
    cache: Cache = None,
    workers: WorkerCount = None,
    download: Download = False,
    split: Annotated[str, typer.Option(help="Which splits, with commas between.", metavar="S")] = "train,val,test",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option, such as folder.image_size=64; repeatable.", metavar="NAME.OPTION=VALUE"),
    ] = None,
    results: Results = Path("results"),
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.AUTO,
) -> None:
    """Write the features that evaluations of a run see, and their labels, as a NumPy archive."""
    from clvr_bench.cli.features import FeaturesRequest, write_features
    from clvr_bench.cli.reading import ReadingFlags

    request = FeaturesRequest(
        run=run,
        output=output,
        dataset=dataset,
        reading=ReadingFlags(data_root, download, memory_limit, cache, workers),
        splits=split,
        overrides=set_ or [],
        results=results,
        device=device.value,
        plugins=context.obj,
    )
    write_features(request)


@app.command()
def runs(
    results: Results = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this suite.", metavar="S")] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="First remove what nothing needs: files cut off by a kill, old checkpoints.")
    ] = False,
) -> None:
    """Show what is stored: every run, how far it is, its size on disk, and files that are damaged."""
    from clvr_bench.cli.inventory import show_runs

    show_runs(results, suite, remove=prune)


@app.command()
def leaderboard(
    results: Results = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this suite.", metavar="S")] = None,
    format: Annotated[TableFormat | None, typer.Option(help=FORMAT_HELP)] = None,  # noqa: A002 - the option's name
    output: Annotated[Path | None, typer.Option(help="Write it to a file.", metavar="FILE")] = None,
) -> None:
    """Show the top-1 table of finished runs, derived from their records."""
    from clvr_bench.cli.tables import show_leaderboard

    show_leaderboard(results, suite, format.value if format else None, output)


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="A pretext task, a run's folder, or a part of its name; a run stands for its row.")
    ],
    second: Annotated[str, typer.Argument(help="The other row, likewise.")],
    results: Results = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this suite.", metavar="S")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The rows of this data set, such as 'shapes -> digits'.", metavar="D")
    ] = None,
    format: Annotated[ComparisonFormat | None, typer.Option(help=FORMAT_HELP)] = None,  # noqa: A002 - the option's name
    output: Annotated[Path | None, typer.Option(help="Write it to a file.", metavar="FILE")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write which test pictures one got right more often (.csv).", metavar="FILE")
    ] = None,
) -> None:
    """Compare two rows of the leaderboard, test picture by test picture: how far apart, how surely, and where."""
    from clvr_bench.cli.comparing import SUFFIXES, show_matchup, write_pictures
    from clvr_bench.cli.finding import warn_of_damage
    from clvr_bench.cli.tables import check_format, chosen_format
    from clvr_bench.comparing import compare_rows

    written_as = chosen_format(format.value if format else None, output, SUFFIXES)
    check_format(pictures, [".csv"], "--pictures")
    matchup = compare_rows(results, first, second, suite, dataset=dataset, on_damaged=warn_of_damage)
    show_matchup(matchup, written_as, output)
    if pictures is not None:
        write_pictures(matchup, pictures)


@app.command()
def pairs(
    results: Results = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this suite.", metavar="S")] = None,
    pretext_task: Annotated[str | None, typer.Option(help="Only this pretext task.", metavar="T")] = None,
    encoder: Annotated[str | None, typer.Option(help="Only this encoder.", metavar="E")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.", metavar="D")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Draw it (.png, .svg, .pdf) or write it as a table (.csv).", metavar="FILE")
    ] = None,
) -> None:
    """Show top-1 by first and second augmentation, from a suite whose augmentations are chains of one and of two."""
    from clvr_bench.cli.finding import warn_of_damage
    from clvr_bench.cli.pairs import show_pairs
    from clvr_bench.cli.tables import check_format
    from clvr_bench.pairwise import pair_study

    check_format(output)
    study = pair_study(
        results, suite, pretext_task=pretext_task, encoder=encoder, dataset=dataset, on_damaged=warn_of_damage
    )
    show_pairs(study, output)


@app.command()
def figure2(
    results: Annotated[
        Path | None,
        typer.Option(
            help="Compare with the runs of this folder; without it, the published figure alone.", metavar="DIR"
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite of that folder.", metavar="S")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.", metavar="D")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Only rows of so many epochs. Default: as many as most have.", metavar="N")
    ] = None,
    size: Annotated[FigureSize, typer.Option(help="How wide, for a page of two columns.")] = FigureSize.TWO_COLUMN,
    output: Annotated[
        Path | None,
        typer.Option(help="Draw it (.png, .svg, .pdf) or write it as a table (.csv, .html, .tex).", metavar="FILE"),
    ] = None,
) -> None:
    """Show Figure 2 of arXiv 2210.03163: as published, and beside it the same methods as measured."""
    from clvr_bench.cli.figure2 import show_figure2

    show_figure2(results, suite, dataset, epochs, size.value, output)


@app.command()
def report(
    output: Annotated[Path, typer.Option(help="A .html file.", metavar="FILE")] = Path("report.html"),
    results: Results = Path("results"),
    suite: Annotated[str | None, typer.Option(help="Only this suite.", metavar="S")] = None,
    picture: Annotated[
        list[Path] | None,
        typer.Option(help="A .png or .svg to show on it, such as one that preview drew; repeatable.", metavar="FILE"),
    ] = None,
) -> None:
    """Write all results as one page that opens in a browser without a network: tables, charts, every run."""
    from clvr_bench.cli.report import write_report

    write_report(results, suite, picture or [], output)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder, or a part of its name.", metavar="RUN")],
    results: Results = Path("results"),
) -> None:
    """Show one run: what was asked, what came of it, every epoch."""
    from clvr_bench.cli.tables import show_run

    show_run(run, results)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders of several machines.", metavar="DIR...")],
    results: Annotated[Path, typer.Option("--results", help="Merge into this folder.", metavar="DIR")] = Path(
        "results"
    ),
) -> None:
    """Merge the results of several machines; duplicates and conflicts are named."""
    from clvr_bench.cli.tables import merge_results

    raise typer.Exit(merge_results(sources, results))


@app.command()
def verify(results: Results = Path("results")) -> None:
    """Derive all tables again and score all saved predictions again; needs no weights."""
    from clvr_bench.cli.tables import verify_results

    raise typer.Exit(verify_results(results))


@app.command()
def plugins(context: typer.Context) -> None:
    """List the plugins: where they come from, what they register, and what is wrong with them."""
    from clvr_bench.cli.listing import list_plugins

    raise typer.Exit(list_plugins(context.obj))


@app.command()
def check(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(help="A registered name, a plugin's file, or a folder of them.", metavar="NAME|FILE")
    ],
    kind: Annotated[PluginKind | None, typer.Option(help="Only what is registered as this.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="An option, such as moco_v2.queue_size=64; repeatable.", metavar="NAME.OPTION=VALUE"
        ),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where a data set's files are.", metavar="DIR")] = None,
) -> None:
    """Check whether a plugin keeps the contract: what holds, what does not, and what to change."""
    from clvr_bench.cli.checking import check_plugins

    raise typer.Exit(check_plugins(subject, kind.value if kind else None, set_ or [], data_root, context.obj))


@app.command(name="list")
def list_(context: typer.Context, kind: Annotated[Listed, typer.Argument(help="What to list.")]) -> None:
    """List what is registered, with summary, source, and options with their defaults."""
    from clvr_bench.cli.listing import list_kind, list_suites

    if kind is Listed.SUITES:
        list_suites()
    else:
        list_kind(kind.value, context.obj)


@app.command()
def preview(
    context: typer.Context,
    kind: Annotated[Previewed, typer.Argument(help="What to draw.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Registered names; a+b is a chain of augmentations. None: all.", metavar="[NAME]..."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="The data set whose pictures are shown.", metavar="D")] = "shapes",
    data_root: Annotated[Path | None, typer.Option(help="Where the data set's files are.", metavar="DIR")] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Pictures of the training split, such as 3,17. Else two of two classes.", metavar="N,N"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Height and width of views in pixels, if not the data set's.", min=8, max=1024)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other views.", min=0)] = 0,
    encoder: Annotated[str | None, typer.Option(help="Build pretext tasks on this encoder.", metavar="E")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option, such as crop.area=[0.2,1.0]; repeatable.", metavar="NAME.OPTION=VALUE"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A .png, .svg or .pdf; preview-KIND.png if not named.", metavar="FILE")
    ] = None,
) -> None:
    """Draw what augmentations and pretext tasks do to pictures: each draw, each setting, pixel by pixel."""
    from clvr_bench.cli.previewing import PreviewRequest, preview_request

    request = PreviewRequest(
        kind=kind.value,
        names=names or [],
        dataset=dataset,
        data_root=data_root,
        images=images,
        size=size,
        seed=seed,
        encoder=encoder,
        overrides=set_ or [],
        output=output,
        plugins=context.obj,
    )
    preview_request(request)


@app.command()
def new(
    context: typer.Context,
    kind: Annotated[PluginKind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="What it is called, such as view_pair.", metavar="NAME")],
    package: Annotated[
        bool, typer.Option("--package", help="An installable package instead, with a test and an entry point.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Write it into this folder.", metavar="DIR")] = Path(),
) -> None:
    """Write a plugin that runs as it is, for you to change: NAME.py, and NAME.toml to try it with."""
    from clvr_bench.cli.creating import create_plugin

    create_plugin(kind.value, name, output, package=package, plugins=context.obj)


def parse_duration(text: str) -> float:
    """Read a duration such as ``90s``, ``9m`` or ``2h``, in seconds.

    Raises:
        ClvrBenchError: It is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ClvrBenchError(f"--time-limit {text}: expected a duration such as 90s, 9m or 2h.")
    return seconds
