from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from clvr_bench import DataFacts
from clvr_bench.errors import ClvrBenchError
from clvr_bench.plugins import Plugins, load_plugins
from clvr_bench.registry import Kind
from clvr_bench.scaffold import TEMPLATES, Draft, refuse_folder, refuse_importable, refuse_taken, write
from clvr_bench.suites import load_suite
from clvr_bench.testing import Check, conformance
from tests.plugins.evaluations.conftest import FakeFrozen

ROOT = Path(__file__).parent.parent.parent
KINDS = [kind.value for kind in Kind]
QUICK = [kind for kind in KINDS if kind != "pretext task"]


def written(kind: str, folder: Path, name: str = "fresh") -> Path:
    write(Draft(kind, name), folder, package=False)
    return folder / f"{name}.py"


def checks(folder: Path, kind: str) -> list[Check]:
    return conformance(kind, "fresh", plugins=[written(kind, folder)])


@pytest.mark.parametrize("kind", QUICK)
def test_a_new_plugin_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    states = {check.finding().state for check in checks(tmp_path, kind)}
    assert states <= {"holds", "not applicable"}
    assert "holds" in states


def test_a_new_pretext_task_learns_and_keeps_the_contract(tmp_path: Path) -> None:
    slow = "the representation keeps its rank"  # a training of its own; put to the installed example's task
    inapplicable = {"separable is true where it is claimed", "preview shows pictures of its samples, and moves nothing"}
    for check in checks(tmp_path, "pretext task"):
        if check.rule.title != slow:
            finding = check.finding()
            assert finding.state != "fails", finding
            assert finding.state == "holds" or finding.title in inapplicable


@pytest.mark.parametrize("name", ["a", "fresh", "deep_and_rather_long_name"])
def test_what_is_written_is_clean_code_without_placeholders(name: str, tmp_path: Path) -> None:
    for kind in KINDS:
        for package in (False, True):
            for path in write(Draft(kind, name), tmp_path / kind, package=package):
                text = path.read_text()
                assert "plugin_" not in text, path
                assert "PluginName" not in text, path
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings, str(tmp_path)], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_suite_to_try_the_plugin_with_is_sound(kind: str, tmp_path: Path) -> None:
    from clvr_bench.combinations import Planner

    path = written(kind, tmp_path)
    suite = load_suite(str(path.with_suffix(".toml")))
    assert suite.name == "fresh"
    combinations = Planner(suite, load_plugins([path]).registry).combinations()
    assert any("fresh" in str(combination) for combination in combinations) or "fresh" in suite.evaluations


def test_all_templates_are_packaged() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["clvr_bench"]
    packaged = {path for pattern in data for path in (ROOT / "clvr_bench").glob(pattern)}
    found = {path for path in TEMPLATES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert found <= packaged


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("pretext task", "view_pair", "ViewPair"),
        ("pretext task", "view2__pair_", "View2Pair"),
        ("encoder", "encoder", "MyEncoder"),
        ("dataset", "path", "MyPath"),
        ("pretext task", "f", "MyF"),
        ("evaluation", "none", "MyNone"),
        ("augmentation", "exception", "MyException"),
    ],
)
def test_a_class_name_hides_no_other(kind: str, name: str, expected: str, tmp_path: Path) -> None:
    assert Draft(kind, name).class_name == expected
    tree = ast.parse(written(kind, tmp_path, name).read_text())
    assert expected in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViewPair", "'ViewPair' cannot be a plugin's name. Use lower case letters, .*, such as 'view_pair'"),
        ("view-pair", "such as 'view_pair'"),
        ("2views", "such as 'views'"),
        ("_view", "such as 'view'"),
        ("view.pair", "such as 'view_pair'"),
        ("../view", "such as 'view'"),
        ("été", "such as 't'"),
        ("", "such as 'view_pair'"),
        ("class", "'class' is a word of Python. Choose another, such as 'my_class'"),
    ],
)
def test_a_name_that_no_module_can_have_is_refused(name: str, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        Draft("pretext task", name)


def test_a_name_that_suites_use_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="'default' is a word of suites"):
        Draft("augmentation", "default")
    assert Draft("encoder", "default").class_name == "Default"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("pretext task", "simclr", r"pretext task 'simclr' is registered by plugin 'simclr' \(clvr-bench 0"),
        ("augmentation", "simclr", "augmentation 'simclr' is registered by plugin 'simclr_augmentation'"),
        ("encoder", "resnet50", "encoder 'resnet50' is registered by plugin 'timm'"),
        ("encoder", "tiny", "encoder 'tiny' is registered by plugin 'tiny' .*contract_plugins"),
        ("encoder", "simclr", "there is a plugin 'simclr' already .* such as 'simclr_encoder'"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_its_owner(plugins: Plugins, kind: str, name: str, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        refuse_taken(Draft(kind, name), plugins)


def test_a_name_that_is_free_or_of_another_kind_is_not_refused(plugins: Plugins) -> None:
    refuse_taken(Draft("encoder", "fresh"), plugins)
    refuse_taken(Draft("encoder", "queued"), plugins)  # a pretext task, of a plugin with another name


@pytest.mark.parametrize("name", ["json", "torch", "clvr_bench", "sys"])
def test_a_package_may_not_hide_an_installed_module(name: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"'import {name}' finds .* such as '{name}_encoder'"):
        refuse_importable(Draft("encoder", name))


def test_a_package_may_have_a_name_of_its_own() -> None:
    refuse_importable(Draft("encoder", "fresh_and_free"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("my.plugins", "its name has a dot"), ("torch", "'import torch' finds .*torch"), ("json", "'import json' finds")],
)
def test_a_folder_whose_files_would_not_load_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=f"cannot be imported, for {reason}"):
        refuse_folder(tmp_path / name)


def test_a_folder_may_have_any_other_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for folder in (package, tmp_path / "my-plugins", tmp_path / "my plugins"):
        refuse_folder(folder)


@pytest.mark.parametrize("package", [False, True])
def test_nothing_is_overwritten(package: bool, tmp_path: Path) -> None:
    draft = Draft("encoder", "fresh")
    files = write(draft, tmp_path, package=package)
    for path in files:
        path.write_text("edited")
    with pytest.raises(ClvrBenchError, match="is there already, and nothing was written"):
        write(draft, tmp_path, package=package)
    assert {path.read_text() for path in files} == {"edited"}


def test_where_one_file_is_there_the_other_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "fresh.toml").write_text("edited")
    with pytest.raises(ClvrBenchError, match=r"fresh.toml is there already"):
        write(Draft("encoder", "fresh"), tmp_path, package=False)
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.toml"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClvrBenchError, match=r"cannot write .*file/fresh.py: .*Choose another folder"):
        write(Draft("encoder", "fresh"), tmp_path / "file", package=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_an_entry_point_to_its_plugin(kind: str, tmp_path: Path) -> None:
    draft = Draft(kind, "fresh_one")
    write(draft, tmp_path, package=True)
    folder = tmp_path / "clvr-bench-fresh-one"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name
    (module,) = project["entry-points"]["clvr_bench"].values()
    source = folder / "src" / Path(*module.split(".")).with_suffix(".py")
    assert source.read_text() == written(kind, tmp_path / "file", "fresh_one").read_text()
    assert (source.parent / "__init__.py").is_file()
    assert f'conformance("{kind}", "fresh_one")' in (folder / "tests" / "test_fresh_one.py").read_text()
    assert "clvr-bench check fresh_one" in (folder / "README.md").read_text()


def test_a_new_augmentation_covers_a_square_of_each_picture(tmp_path: Path) -> None:
    entry = load_plugins([written("augmentation", tmp_path)]).registry.get(Kind.AUGMENTATION, "fresh")
    cover = sys.modules[entry.factory.__module__].cover
    center = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    covered = cover(torch.zeros(2, 3, 8, 8), center, 0.5)[:, 0] == 0.5
    inner, corner = torch.zeros(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    inner[2:6, 2:6], corner[:2, 6:] = True, True
    assert torch.equal(covered, torch.stack([inner, corner]))


def test_a_new_evaluation_finds_the_nearest_class_mean(tmp_path: Path) -> None:
    entry = load_plugins([written("evaluation", tmp_path)]).registry.get(Kind.EVALUATION, "fresh")
    train = torch.tensor([[1.0, 0.0], [0.0, 100.0], [0.2, 1.0]]), torch.tensor([0, 0, 1])  # means at 45 and 79 degrees
    test = torch.tensor([[1.0, 1.1], [0.05, 1.0], [3.0, 0.1]]), torch.tensor([0, 1, 1])
    scores = entry.factory()(FakeFrozen({"train": train, "test": test}, num_classes=3))
    assert scores.predictions[:, 0].tolist() == [0, 1, 0]
    assert scores.metrics["top1"] == pytest.approx(200 / 3)


def test_a_new_dataset_draws_stripes_in_the_direction_of_the_class(tmp_path: Path) -> None:
    entry = load_plugins([written("dataset", tmp_path)]).registry.get(Kind.DATASET, "fresh")
    split = entry.factory(None, train_size=30).train
    for pixels, label in zip(split.images(torch.arange(30)).pixels.float(), split.labels.tolist(), strict=True):
        constant = [(pixels.diff(dim=2) == 0).all(), (pixels.diff(dim=1) == 0).all()]
        shifted = (pixels[:, 1:, :-1] == pixels[:, :-1, 1:]).all()
        assert [*constant, shifted].index(True) == label


def test_a_new_pretext_task_finds_matches_as_a_naive_count_does(tmp_path: Path) -> None:
    entry = load_plugins([written("pretext task", tmp_path)]).registry.get(Kind.PRETEXT_TASK, "fresh")
    module = sys.modules[entry.factory.__module__]
    first, second = (torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    scores = torch.cosine_similarity(first[:, None], second[None], dim=2) / 0.3
    odds = [row[i].exp() / row.exp().sum() for table in (scores, scores.T) for i, row in enumerate(table)]
    naive = -torch.stack(odds).log().mean()
    found = module.match_scores(first, second, 0.3)
    torch.testing.assert_close(found, scores)
    torch.testing.assert_close(module.matching_loss(found), naive)
    assert module.match_accuracy(10 * torch.eye(4)).item() == 100


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pretext task", {"temperature": 0.0}, "fresh: temperature must be positive, got 0.0"),
        ("augmentation", {"area": (0.5, 0.2)}, "augmentation fresh: area must be"),
        ("augmentation", {"covered": 1.0}, "augmentation fresh: covered must be in"),
        ("encoder", {"width": 0}, "encoder fresh: width must be at least 1, got 0"),
        ("dataset", {"train_size": 5}, "dataset fresh: train_size must be at least 6, got 5"),
    ],
)
def test_a_new_plugin_refuses_impossible_options(
    kind: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    entry = load_plugins([written(kind, tmp_path)]).registry.get(Kind(kind), "fresh")
    arguments = {"pretext task": (None, None), "augmentation": (DataFacts("image", 8, 8),), "dataset": (None,)}
    with pytest.raises(ClvrBenchError, match=message):
        entry.factory(*arguments.get(kind, ()), **options)
