from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clvr_bench.combinations import Combination, Override, Planner
from clvr_bench.errors import ClvrBenchError
from clvr_bench.plugins import Plugins
from clvr_bench.suites import built_in_suites, load_suite, parse_suite

MINIMAL: dict[str, Any] = {
    "name": "test",
    "encoders": ["tiny"],
    "datasets": ["shapes"],
    "budget": {"epochs": 1, "batch_size": 8},
    "pretext_tasks": ["simclr"],
}


def combine(plugins: Plugins, *overrides: str, **changes: Any) -> list[Combination]:
    suite = parse_suite({**MINIMAL, **changes}, "suite.toml")
    return Planner(suite, plugins.registry, "suite.toml", [Override.parse(text) for text in overrides]).combinations()


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", built_in_suites())
def test_built_in_suites_are_sound_and_named_as_their_files(plugins: Plugins, name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.summary
    assert Planner(suite, plugins.registry).combinations()


def test_the_longer_suite_changes_nothing_but_the_epochs() -> None:
    shorter, longer = load_suite("figure2-cifar10-cpu"), load_suite("figure2-cifar10-cpu-long")
    assert longer.budget == shorter.budget.model_copy(update={"epochs": 30})
    assert (longer.encoders, longer.datasets, longer.evaluations) == (
        shorter.encoders, shorter.datasets, shorter.evaluations,
    )  # fmt: skip
    settings = [{**task, "options_source": ""} for task in shorter.pretext_tasks]
    assert all({**task, "options_source": ""} in settings for task in longer.pretext_tasks)


def test_the_study_of_infomins_parts_has_its_row() -> None:
    whole, parts = load_suite("figure2-cifar10-cpu"), load_suite("infomin-parts-cpu")
    (own,) = (task for task in whole.pretext_tasks if task["name"] == "infomin")
    (varied,) = parts.pretext_tasks
    augmentation = own["augmentation"]
    assert augmentation in parts.augmentations
    assert varied["jigsaw_weight"] == [0.5, 0.0]
    expected = {key: value for key, value in own.items() if key not in ("augmentation", "options_source")}
    assert expected == {key: value for key, value in varied.items() if key not in ("jigsaw_weight", "options_source")}
    assert (parts.budget, parts.encoders, parts.datasets) == (whole.budget, whole.encoders, whole.datasets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [0]}, "unknown key 'seed'. Did you mean 'seeds'?"),
        (
            {"budget": {"epochs": 1, "batchsize": 8}},
            r"unknown key in \[budget\] 'batchsize'. Did you mean 'batch_size'?",
        ),
        (
            {"budget": {"epochs": 0, "batch_size": 8}},
            "budget.epochs: input should be greater than or equal to 1, got 0",
        ),
        ({"budget": {"epochs": "ten", "batch_size": 8}}, "budget.epochs: input should be a valid integer, got 'ten'"),
        ({"budget": {"batch_size": 8}}, "the key 'budget.epochs' is missing"),
        ({"seeds": []}, "seeds: list should have at least 1 item"),
        ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0, got -1"),
        ({"name": "../escape"}, "name: string should match pattern"),
        ({"encoders": []}, "encoders: list should have at least 1 item"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"^suite.toml: {message}"):
        parse_suite({**MINIMAL, **change}, "suite.toml")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"suite.toml: not a TOML file \(.*line 1"):
        load_suite(written(tmp_path, "name = = 1"))


def test_an_unknown_suite_lists_the_built_in_ones() -> None:
    with pytest.raises(ClvrBenchError, match=r"unknown suite 'quikstart'. Did you mean 'quickstart'?"):
        load_suite("quikstart")


def test_a_missing_suite_file_is_named() -> None:
    with pytest.raises(ClvrBenchError, match=r"nowhere.toml: no such suite file"):
        load_suite("nowhere.toml")


def test_every_axis_is_multiplied_out(plugins: Plugins) -> None:
    found = combine(
        plugins,
        seeds=[0, 1],
        encoders=[{"name": "tiny", "width": [4, 8]}],
        augmentations=["none", ["crop_flip", "none"]],
        pretext_tasks=[{"name": "simclr", "temperature": [0.1, 0.2, 0.5]}],
    )
    assert len(found) == 2 * 2 * 2 * 3
    assert len({str(combination) for combination in found}) == len(found)


def test_a_list_for_an_option_that_takes_one_is_a_value(plugins: Plugins) -> None:
    (one,) = combine(plugins, augmentations=[{"name": "simclr", "area": [0.3, 1.0]}])
    assert one.augmentation[0].options["area"] == (0.3, 1.0)
    assert len(combine(plugins, augmentations=[{"name": "simclr", "area": [[0.3, 1.0], [0.1, 1.0]]}])) == 2


def test_default_is_the_tasks_own_augmentation_or_the_suites_word_for_it(plugins: Plugins) -> None:
    own, told = combine(plugins, pretext_tasks=["rotation", {"name": "simclr", "augmentation": ["crop_flip", "none"]}])
    assert [choice.entry.name for choice in own.augmentation] == ["crop_flip"]
    assert [choice.entry.name for choice in told.augmentation] == ["crop_flip", "none"]


def test_a_task_without_encoder_or_views_is_one_combination(plugins: Plugins) -> None:
    (one,) = combine(
        plugins, pretext_tasks=["raw_pixels"], encoders=["tiny", "resnet18"], augmentations=["none", "simclr"]
    )
    assert (one.encoder, one.augmentation) == (None, ())


def test_a_task_may_name_the_encoders_that_it_runs_with(plugins: Plugins) -> None:
    wide = {"name": "tiny", "width": 16}
    tasks = ["simclr", {"name": "rotation", "encoders": [wide]}, {"name": "supervised", "encoders": ["tiny", wide]}]
    found = [(c.task.entry.name, str(c.encoder)) for c in combine(plugins, pretext_tasks=tasks)]
    wide_one = "tiny(width=16)"
    assert found == [("simclr", "tiny"), ("supervised", "tiny"), ("rotation", wide_one), ("supervised", wide_one)]


def test_a_recipe_is_changed_field_by_field(plugins: Plugins) -> None:
    (one,) = combine(plugins, pretext_tasks=[{"name": "simclr", "recipe": {"learning_rate": 1}}])
    assert (one.task.recipe.learning_rate, one.task.recipe.optimizer) == (1.0, "lars")
    assert one.options_shown == {"recipe.learning_rate": 1.0}


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ("simclr", "paper"),
        ({"name": "simclr", "temperature": 0.5}, "not stated"),
        ({"name": "simclr", "temperature": 0.5, "options_source": "tuned on val"}, "tuned on val"),
    ],
)
def test_the_origin_of_options_is_kept(plugins: Plugins, task: Any, source: str) -> None:
    (one,) = combine(plugins, pretext_tasks=[task])
    assert one.task.options_source == source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretext_tasks": ["simlcr"]}, "suite.toml: unknown pretext task 'simlcr'. Did you mean 'simclr'?"),
        ({"encoders": ["tinny"]}, "suite.toml: unknown encoder 'tinny'. Did you mean 'tiny'?"),
        ({"datasets": ["shape"]}, "suite.toml: unknown dataset 'shape'. Did you mean 'shapes'?"),
        ({"evaluations": ["liner"]}, "suite.toml: unknown evaluation 'liner'. Did you mean 'linear'?"),
        ({"augmentations": ["simclrr"]}, "suite.toml: unknown augmentation 'simclrr'. Did you mean 'simclr'?"),
        (
            {"pretext_tasks": [{"name": "simclr", "temprature": 1}]},
            "suite.toml: pretext task 'simclr': unknown option 'temprature'. Did you mean 'temperature'?",
        ),
        (
            {"pretext_tasks": [{"name": "simclr", "temperature": "hot"}]},
            "suite.toml: pretext task 'simclr': temperature must be float, got 'hot'",
        ),
        (
            {"pretext_tasks": [{"name": "simclr", "recipe": {"learning_rte": 1}}]},
            "suite.toml: pretext task 'simclr', recipe: unknown option 'learning_rte'. Did you mean 'learning_rate'?",
        ),
        (
            {"pretext_tasks": [{"name": "simclr", "encoders": "tiny"}]},
            "suite.toml: pretext task 'simclr': encoders must be a list of names or tables, got 'tiny'",
        ),
        ({"pretext_tasks": [{"temperature": 1}]}, "suite.toml: a table in pretext_tasks needs a name"),
        (
            {"pretext_tasks": ["grey"], "encoders": [{"name": "tiny", "in_channels": 2}]},
            "the task needs in_channels=1, the suite says 2",
        ),
    ],
)
def test_wrong_names_and_options_are_named_with_their_file(
    plugins: Plugins, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClvrBenchError) as caught:
        combine(plugins, **changes)
    assert message in str(caught.value)


def test_an_override_wins_over_the_suite(plugins: Plugins) -> None:
    (one,) = combine(plugins, "simclr.temperature=0.2", pretext_tasks=[{"name": "simclr", "temperature": 0.5}])
    assert one.task.options["temperature"] == 0.2


def test_overrides_reach_recipes_encoders_datasets_and_augmentations(plugins: Plugins) -> None:
    (one,) = combine(
        plugins, "simclr.recipe.warmup=0", "tiny.width=4", "shapes.seed=3", "augmentation.simclr.area=[0.3, 1.0]"
    )
    assert one.task.recipe.warmup == 0.0
    assert one.encoder is not None
    assert one.encoder.options["width"] == 4
    assert one.dataset.options["seed"] == 3
    assert list(one.augmentation[0].options["area"]) == [0.3, 1.0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simclr.temprature=1", "unknown option 'temprature'"),
        ("simclr.temperature=hot", "temperature must be float, got 'hot'"),
        ("simlcr.temperature=1", "--set simlcr.temperature=1: unknown name 'simlcr'. Did you mean 'simclr'?"),
        ("simclr.recipe.rate=1", "unknown option 'rate'"),
        ("temperature=1", "expected [KIND.]NAME.OPTION=VALUE"),
        ("simclr.temperature", "expected [KIND.]NAME.OPTION=VALUE"),
    ],
)
def test_a_wrong_override_is_refused(plugins: Plugins, override: str, message: str) -> None:
    with pytest.raises(ClvrBenchError) as caught:
        combine(plugins, override)
    assert message in str(caught.value)


@pytest.mark.parametrize("field", ["learning_rate=0", "weight_decay=-1", "warmup=1.0", "reference_batch=0"])
def test_an_impossible_recipe_is_refused(plugins: Plugins, field: str) -> None:
    with pytest.raises(ClvrBenchError, match="recipe: learning_rate and reference_batch must be positive"):
        combine(plugins, f"simclr.recipe.{field}")


def test_betas_are_set_in_a_recipe_and_on_the_command_line(plugins: Plugins) -> None:
    (suite,) = combine(plugins, pretext_tasks=[{"name": "simclr", "recipe": {"betas": [0, 0.95]}}])
    (flag,) = combine(plugins, "simclr.recipe.betas=[0.0, 0.95]")
    assert suite.task.recipe.betas == flag.task.recipe.betas == (0.0, 0.95)
    assert suite.options_shown == {"recipe.betas": (0.0, 0.95)}


@pytest.mark.parametrize("betas", ["[0.9, 1.0]", "[-0.1, 0.9]"])
def test_impossible_betas_are_refused(plugins: Plugins, betas: str) -> None:
    with pytest.raises(ClvrBenchError, match="recipe: betas must be from 0 to below 1, got"):
        combine(plugins, f"simclr.recipe.betas={betas}")


def test_a_trust_coefficient_that_is_not_positive_is_refused(plugins: Plugins) -> None:
    with pytest.raises(ClvrBenchError, match=r"recipe: trust_coefficient must be positive, got 0\.0\."):
        combine(plugins, "simclr.recipe.trust_coefficient=0.0")


@pytest.mark.parametrize(("field", "value"), [("betas", (0.9, 0.95)), ("trust_coefficient", 0.02)])
def test_a_recipe_that_leaves_a_field_unset_keeps_the_identity_of_older_records(
    plugins: Plugins, field: str, value: object
) -> None:
    (plain,), (told,) = combine(plugins), combine(plugins, f"simclr.recipe.{field}={json.dumps(value)}")
    assert field not in plain.identity("f", "fp32")["recipe"]
    assert told.identity("f", "fp32")["recipe"][field] == value


def test_what_changes_a_score_changes_the_identity(plugins: Plugins) -> None:
    base = {"pretext_tasks": ["simclr"]}
    changes: list[dict[str, Any]] = [
        {"seeds": [1]},
        {"budget": {"epochs": 2, "batch_size": 8}},
        {"pretext_tasks": [{"name": "simclr", "temperature": 0.5}]},
        {"pretext_tasks": [{"name": "simclr", "recipe": {"warmup": 0.0}}]},
        {"pretext_tasks": [{"name": "simclr", "recipe": {"betas": [0.9, 0.95]}}]},
        {"augmentations": ["none"]},
        {"encoders": [{"name": "tiny", "width": 4}]},
    ]
    identities = [str(combine(plugins, **{**base, **change})[0].identity("f", "fp32")) for change in [{}, *changes]]
    assert len(set(identities)) == len(identities)


def test_where_options_come_from_does_not_change_the_identity(plugins: Plugins) -> None:
    told, plain = (
        combine(plugins, pretext_tasks=[{"name": "simclr", **extra}])[0].identity("f", "fp32")
        for extra in ({"options_source": "somewhere"}, {})
    )
    assert told == plain
