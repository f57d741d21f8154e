from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.plugins import Plugin, Plugins, load_plugins
from clvr_bench.registry import Kind

HEAD = """
from clvr_bench import Encoder, PretextTask, StepOutput, hookimpl
"""
GOOD = (
    HEAD
    + """
@hookimpl
def register_pretext_tasks(register):
    register("mine", Mine, summary="Mine.", source="none", version=3)

class Mine(PretextTask):
    def __init__(self, encoder, data, *, width: int = 3):
        super().__init__()

    def forward(self, batch):
        return StepOutput(batch.views[0].mean())
"""
)


def load(folder: Path, **files: str) -> Plugins:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return load_plugins([folder])


def only(plugins: Plugins, name: str) -> Plugin:
    (plugin,) = (plugin for plugin in plugins.found if plugin.name == name)
    return plugin


def reason(plugins: Plugins, name: str) -> str:
    plugin = only(plugins, name)
    assert plugin.state == "broken"
    return plugin.reason


def test_built_ins_come_by_entry_points_and_all_load() -> None:
    plugins = load_plugins()
    assert {plugin.state for plugin in plugins.found if plugin.name != "tensorboard"} == {"loaded"}
    assert {plugin.distribution for plugin in plugins.found} == {"clvr-bench"}
    names = {entry.name for kind in Kind for entry in plugins.registry.entries(kind)}
    assert {"simclr", "rotation", "supervised", "raw_pixels", "random_init", "linear", "knn", "health"} <= names


def test_a_file_of_a_directory_registers_under_its_name(tmp_path: Path) -> None:
    plugins = load(tmp_path / "first", mine=GOOD)
    entry = plugins.registry.get(Kind.PRETEXT_TASK, "mine")
    assert (entry.plugin, list(entry.options)) == ("mine", ["width"])
    assert entry.version == f"3+{only(plugins, 'mine').version}"


def test_an_edited_file_is_another_version(tmp_path: Path) -> None:
    first = load(tmp_path / "one", edited=GOOD).registry.get(Kind.PRETEXT_TASK, "mine")
    second = load(tmp_path / "two", edited=GOOD + "\n# changed\n").registry.get(Kind.PRETEXT_TASK, "mine")
    assert first.version != second.version


def test_classes_of_a_plugin_file_can_be_pickled(tmp_path: Path) -> None:
    entry = load(tmp_path / "pickled", mine=GOOD).registry.get(Kind.PRETEXT_TASK, "mine")
    assert pickle.loads(pickle.dumps(entry.factory)) is entry.factory


def test_a_package_in_a_directory_is_one_plugin(tmp_path: Path) -> None:
    package = tmp_path / "with_package" / "family"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(GOOD.replace('"mine"', '"of_family"'))
    (package / "helper.py").write_text("VALUE = 1\n")
    plugins = load_plugins([package.parent])
    assert plugins.registry.get(Kind.PRETEXT_TASK, "of_family").plugin == "family"


def test_the_environment_names_directories_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "by_environment"
    folder.mkdir()
    (folder / "mine.py").write_text(GOOD)
    monkeypatch.setenv("CLVR_BENCH_PLUGINS_DIR", str(folder))
    assert only(load_plugins(), "mine").state == "loaded"


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"nowhere: no such folder or file\. Name a folder"):
        load_plugins([tmp_path / "nowhere"])


def test_a_missing_dependency_breaks_only_its_own_plugin(tmp_path: Path) -> None:
    plugins = load(tmp_path / "dependency", needs="import a_package_that_is_not_there", mine=GOOD)
    assert reason(plugins, "needs") == "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"
    assert only(plugins, "mine").state == "loaded"


def test_a_syntax_error_is_reported(tmp_path: Path) -> None:
    assert reason(load(tmp_path / "syntax", wrong="def register(:\n"), "wrong").startswith("SyntaxError")


def test_a_hook_that_raises_names_its_plugin(tmp_path: Path) -> None:
    text = HEAD + "\n@hookimpl\ndef register_encoders(register):\n    raise ValueError('no weights')\n"
    assert reason(load(tmp_path / "raising", raising=text), "raising") == "ValueError: no weights"


def test_a_misspelt_hook_is_named_with_the_right_one(tmp_path: Path) -> None:
    text = HEAD + "\n@hookimpl\ndef register_pretext_task(register):\n    pass\n"
    found = reason(load(tmp_path / "misspelt", typo=text), "typo")
    assert "Plugin 'typo' (typo.py:4) defines 'register_pretext_task', which is not a clvr-bench hook." in found
    assert "Did you mean 'register_pretext_tasks'?" in found


def test_an_undecorated_hook_is_named(tmp_path: Path) -> None:
    text = HEAD + "\ndef register_pretext_tasks(register):\n    pass\n"
    found = reason(load(tmp_path / "undecorated", bare=text), "bare")
    assert "defines 'register_pretext_tasks' without @hookimpl, so it is never called" in found


def test_a_hook_with_other_arguments_is_reported(tmp_path: Path) -> None:
    text = HEAD + "\n@hookimpl\ndef register_encoders(registry):\n    pass\n"
    assert "registry" in reason(load(tmp_path / "arguments", other=text), "other")


def test_a_file_without_hooks_is_reported_and_a_helper_is_not(tmp_path: Path) -> None:
    plugins = load(tmp_path / "nohooks", empty="VALUE = 1\n", _helper="VALUE = 1\n")
    assert "implements no hook" in reason(plugins, "empty")
    assert "_helper" not in [plugin.name for plugin in plugins.found]


def test_a_taken_name_names_both_owners_and_serves_neither(tmp_path: Path) -> None:
    plugins = load(tmp_path / "taken", rival=GOOD.replace('"mine"', '"simclr"'))
    assert "pretext task 'simclr' is registered by both 'simclr' and 'rival'" in reason(plugins, "rival")
    with pytest.raises(ClvrBenchError, match="both 'simclr' and 'rival'"):
        plugins.registry.get(Kind.PRETEXT_TASK, "simclr")
    blocked = load_plugins([tmp_path / "taken"], blocked=["rival"])
    assert only(blocked, "rival").state == "blocked"
    assert blocked.registry.get(Kind.PRETEXT_TASK, "simclr").plugin == "simclr"


def test_a_plugin_that_waits_is_loaded_only_where_it_is_asked_for() -> None:
    waiting, asked = load_plugins(), load_plugins(requested=["tensorboard"])
    assert only(waiting, "tensorboard").state == "waiting"
    assert not waiting.hook.evaluation_finished.get_hookimpls()
    assert only(asked, "tensorboard").state == "loaded"
    assert len(asked.hook.evaluation_finished.get_hookimpls()) == 1
    with pytest.raises(ClvrBenchError, match="give one of both"):
        load_plugins(blocked=["tensorboard"], requested=["tensorboard"])


def test_requesting_an_unknown_or_broken_plugin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"--plugin nobody: no such plugin\. See them with: clvr-bench plugins"):
        load_plugins(requested=["nobody"])
    load(tmp_path / "asked", broken="1 / 0\n")
    with pytest.raises(ClvrBenchError, match="--plugin broken: ZeroDivisionError: division by zero"):
        load_plugins([tmp_path / "asked"], requested=["broken"])


def test_blocking_an_unknown_plugin_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="--no-plugin nobody: no such plugin"):
        load_plugins(blocked=["nobody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version=3", "version=0"), "version must be a whole number from 1, got 0"),
        (('summary="Mine."', 'summary=""'), "summary and source must be text"),
        (('"mine"', '"Mine!"'), "a name is lower case letters"),
        (('"mine", Mine', '"mine", Encoder'), "Encoder must subclass clvr_bench.PretextTask"),
        (('"mine", Mine', '"mine", lambda encoder, data: None'), "register the class itself"),
        (("def forward", "def forwards"), "Mine does not implement forward"),
        (("width: int = 3", "width=3"), "option 'width' has no type"),
        (("width: int = 3", "width: int = 'x'"), "the default of option 'width', 'x', is not int"),
        (("width: int = 3", "width: Encoder = None"), "which no TOML value has"),
    ],
)
def test_a_misdeclared_task_fails_when_it_is_registered(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    folder = tmp_path / f"declared{abs(hash(change))}"
    assert message in reason(load(folder, mine=GOOD.replace(*change)), "mine")


def test_an_abstract_encoder_fails_when_it_is_registered(tmp_path: Path) -> None:
    text = HEAD + (
        "\n@hookimpl\ndef register_encoders(register):\n"
        "    register('half', Half, summary='s', source='none', version=1)\n\nclass Half(Encoder):\n    pass\n"
    )
    assert "Half does not implement encode" in reason(load(tmp_path / "abstract", half=text), "half")


def test_an_unknown_name_gets_near_matches_choices_and_broken_plugins(tmp_path: Path) -> None:
    plugins = load(tmp_path / "unknown", broken="import nothing_like_this")
    with pytest.raises(ClvrBenchError) as caught:
        plugins.registry.get(Kind.PRETEXT_TASK, "simlcr", "suite.toml")
    message = str(caught.value)
    assert message.startswith(
        "suite.toml: unknown pretext task 'simlcr'. Did you mean 'simclr'? Available: amdim, barlow_twins, bigbigan,"
    )
    assert "Plugins that did not load: 'broken' (ModuleNotFoundError" in message


def test_a_family_serves_what_its_library_resolves() -> None:
    registry = load_plugins().registry
    assert registry.get(Kind.ENCODER, "resnet34").plugin == "timm"
    with pytest.raises(ClvrBenchError, match=r"Did you mean 'resnet34'\?.*any name of timm"):
        registry.get(Kind.ENCODER, "resnet34x")


@pytest.mark.parametrize("name", ["pluggy", "my.plugins"])
def test_a_folder_whose_name_no_module_can_have_is_reported(tmp_path: Path, name: str) -> None:
    found = reason(load(tmp_path / name, mine=GOOD), "mine")
    assert f"no module can be called {name}.mine here. Rename the folder" in found


def test_a_single_file_is_loaded_without_its_neighbours(tmp_path: Path) -> None:
    load(tmp_path / "neighbours", mine=GOOD, other="raise ValueError")
    plugins = load_plugins([tmp_path / "neighbours" / "mine.py"])
    assert only(plugins, "mine").state == "loaded"
    assert not plugins.broken


def test_a_file_named_twice_is_loaded_once(tmp_path: Path) -> None:
    load(tmp_path / "twice", mine=GOOD)
    plugins = load_plugins([tmp_path / "twice", tmp_path / "twice" / "mine.py"])
    assert [plugin.name for plugin in plugins.found].count("mine") == 1


def test_a_folder_whose_name_is_taken_is_reported(tmp_path: Path) -> None:
    found = reason(load(tmp_path / "json", decoder=GOOD), "decoder")
    assert "Rename the folder" in found
