from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.testing import NotApplicable, Violation, conformance
from tests.conftest import CONTRACT_PLUGINS, Answer

Cli = Callable[..., Answer]
UNSOUND = """
from clvr_bench import Encoder, hookimpl

@hookimpl
def register_encoders(register):
    register("infinite", Infinite, summary="Gives infinities.", source="none", version=1)

class Infinite(Encoder):
    def encode(self, images):
        return images.mean(dim=(2, 3)) / 0
"""


@pytest.fixture
def unsound(tmp_path: Path) -> Path:
    folder = tmp_path / f"of_{tmp_path.name}"  # a plugin's folder is a package, so its name is taken once a process
    folder.mkdir()
    (folder / "infinite.py").write_text(UNSOUND)
    (folder / "other.py").write_text(UNSOUND.replace("infinite", "other"))
    return folder / "infinite.py"


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_sound_plugin_holds_in_every_kind_that_has_its_name(cli: Cli) -> None:
    answer = cli("check", "none")
    assert answer.code == 0
    assert "augmentation 'none' (version 1, plugin none)" in answer.out
    assert "holds  it draws from its own streams" in answer.out
    assert "-      views are drawn each for itself (Nothing in it is random)" in answer.out
    assert "6 hold, 0 fail, 1 do not apply" in answer.out


def test_a_kind_can_be_chosen(cli: Cli) -> None:
    answer = cli("check", "simclr", "--kind", "augmentation")
    assert "augmentation 'simclr'" in answer.out
    assert "pretext task" not in answer.out


def test_a_file_is_checked_alone_and_what_fails_says_what_to_change(cli: Cli, unsound: Path) -> None:
    answer = cli("check", unsound)
    assert answer.code == 1
    assert "encoder 'infinite'" in answer.out
    assert "'other'" not in answer.out
    shown = one_line(answer.out)
    assert "fails features are (B, D) and finite found: Some are not finite. mend: encode(images) must" in shown


def test_a_folder_is_checked_whole(cli: Cli, unsound: Path) -> None:
    answer = cli("check", unsound.parent)
    assert "encoder 'infinite'" in answer.out
    assert "encoder 'other'" in answer.out


def test_a_name_from_a_plugins_folder_is_found(cli: Cli, unsound: Path) -> None:
    assert cli("--plugins-dir", unsound.parent, "check", "other").code == 1


def test_options_reach_the_plugin(cli: Cli) -> None:
    small = cli("check", "shapes", "--set", "shapes.train_size=200", "--set", "shapes.test_size=60")
    assert small.code == 0, small.out
    assert cli("check", "crop_flip", "--set", "crop_flip.flip=2").code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simlcr"], "check: unknown name 'simlcr'. Did you mean 'simclr'?"),
        (["missing.py"], "missing.py: no such folder or file. Name a folder"),
        (["simclr", "--kind", "encoder"], "check: unknown name 'simclr'."),
        (
            ["none", "--set", "simclr.temperature=1"],
            "--set simclr.temperature=1: 'simclr' is not what is checked: none.",
        ),
        (["simclr", "--set", "simclr.temprature=1"], "unknown option 'temprature'. Did you mean 'temperature'?"),
        (["simclr", "--set", "simclr.temperature=hot"], "temperature must be float, got 'hot'."),
    ],
)
def test_a_wrong_question_gets_one_line(cli: Cli, arguments: list[str], message: str) -> None:
    answer = cli("check", *arguments)
    assert answer.code == 2
    assert message in one_line(answer.err)
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name", "the plugin 'infinite' did not load: ModuleNotFoundError"),
        ("x = 1", "implements no hook"),
        ("from clvr_bench import hookimpl\n@hookimpl\ndef register_encoders(register):\n    pass", "nothing to check"),
    ],
)
def test_a_broken_file_says_why(cli: Cli, unsound: Path, code: str, message: str) -> None:
    unsound.write_text(code)
    answer = cli("check", unsound)
    assert answer.code == 2
    assert message in one_line(answer.err)


def test_authors_put_the_checks_into_their_own_tests(unsound: Path) -> None:
    checks = conformance("encoder", "infinite", plugins=[unsound])
    outcomes = {}
    for check in checks:
        try:
            check()
            outcomes[str(check)] = "holds"
        except NotApplicable:
            outcomes[str(check)] = "skipped"
        except Violation as violation:
            outcomes[str(check)] = str(violation)
    assert outcomes["features-are-(B,-D)-and-finite"].startswith("features are (B, D) and finite: Some are not finite.")
    assert outcomes["it-takes-other-numbers-of-channels"] == "skipped"
    assert outcomes["encoding-in-eval-mode-moves-no-state"] == "holds"


def test_a_failing_check_leads_to_the_line_that_raised(unsound: Path) -> None:
    unsound.write_text(unsound.read_text().replace("return", "raise ValueError('here')\n        return"))
    check = next(check for check in conformance("encoder", "infinite", plugins=[unsound]) if "finite" in str(check))
    with pytest.raises(Violation, match="ValueError: here") as caught:
        check()
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].filename) == str(unsound)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "simclr", "unknown kind of plugin 'method'"),
        ("pretext task", "simlcr", "unknown pretext task 'simlcr'"),
    ],
)
def test_a_wrong_question_of_an_author_is_named(kind: str, name: str, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        conformance(kind, name)


def test_check_options_let_a_task_be_tried_on_a_few_pictures(cli: Cli) -> None:
    answer = cli("--plugins-dir", CONTRACT_PLUGINS, "check", "queued")
    assert answer.code == 0, answer.out
