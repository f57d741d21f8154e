from __future__ import annotations

import copy
import json
import os
import pickle
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest

from clvr_bench import options as module
from clvr_bench.errors import ClvrBenchError
from clvr_bench.options import InputFile, options_of, parse_value, resolve_options, shown


def factory(
    encoder: object,
    *,
    temperature: float = 0.1,
    layers: int = 2,
    symmetric: bool = True,
    mode: Literal["auto", "small"] = "auto",
    area: tuple[float, float] = (0.08, 1.0),
    strength: float | None = None,
) -> None: ...


OPTIONS = options_of(factory)


def test_options_are_the_keyword_only_arguments() -> None:
    assert list(OPTIONS) == ["temperature", "layers", "symmetric", "mode", "area", "strength"]


def test_options_read_as_users_write_them() -> None:
    assert str(OPTIONS["temperature"]) == "temperature: float = 0.1"
    assert str(OPTIONS["mode"]) == "mode: 'auto' | 'small' = \"auto\""
    assert str(OPTIONS["strength"]) == "strength: float | None, unset"
    assert str(OPTIONS["area"]) == "area: tuple[float, float] = [0.08, 1.0]"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", 1, 1.0),
        ("temperature", 0.5, 0.5),
        ("layers", 3, 3),
        ("symmetric", False, False),
        ("mode", "small", "small"),
        ("area", [0.3, 1], (0.3, 1.0)),
        ("strength", 0.5, 0.5),
    ],
)
def test_values_of_the_right_type_are_taken(name: str, value: object, expected: object) -> None:
    taken = resolve_options(OPTIONS, {name: value}, "suite")[name]
    assert taken == expected
    assert type(taken) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("layers", 2.5),
        ("layers", "2"),
        ("symmetric", 1),
        ("mode", "large"),
        ("area", [0.3]),
        ("area", 0.3),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(ClvrBenchError, match=rf"suite: {name} must be .*, got"):
        resolve_options(OPTIONS, {name: value}, "suite")


def test_an_unknown_option_gets_a_near_match() -> None:
    with pytest.raises(ClvrBenchError, match=r"unknown option 'temprature'. Did you mean 'temperature'?"):
        resolve_options(OPTIONS, {"temprature": 1.0}, "suite")


def test_a_required_option_must_be_given() -> None:
    def needy(*, path: str) -> None: ...

    with pytest.raises(ClvrBenchError, match=r"option 'path' \(str\) is required"):
        resolve_options(options_of(needy), {}, "suite")


def test_a_partial_has_the_options_of_its_function() -> None:
    assert list(options_of(partial(factory, None))) == list(OPTIONS)


@pytest.mark.parametrize(
    ("text", "value"), [("0.2", 0.2), ("3", 3), ("true", True), ("[0.3, 1.0]", [0.3, 1.0]), ("small", "small")]
)
def test_command_line_values_are_toml_or_plain_text(text: str, value: Any) -> None:
    assert parse_value(text) == value


def with_files(*, file: InputFile, also: InputFile | None = None, more: tuple[InputFile, ...] = ()) -> None: ...


FILES = options_of(with_files)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet.pth").write_bytes(b"weights")
    return tmp_path / "resnet.pth"


HASH = f"sha256:{sha256(b'weights').hexdigest()}"


def taken(value: object, name: str = "file") -> Any:
    return resolve_options(FILES, {"file": HASH, name: value}, "suite")[name]


def test_files_read_as_users_write_them() -> None:
    assert str(FILES["file"]) == "file: file, required"
    assert str(FILES["also"]) == "also: file | None, unset"
    assert str(FILES["more"]) == "more: tuple[file, ...] = []"


def test_a_files_text_is_the_hash_of_its_content_and_its_path_is_known(weights: Path) -> None:
    file = taken("resnet.pth")
    assert isinstance(file, InputFile)
    assert (file, file.path, file.name) == (HASH, weights, "resnet.pth")
    assert json.dumps(file) == json.dumps(HASH)
    assert {file: 1}[HASH] == 1


def test_the_same_content_elsewhere_is_the_same_value_and_other_content_another(weights: Path) -> None:
    Path("copy.pth").write_bytes(weights.read_bytes())
    assert taken("copy.pth") == taken("resnet.pth")
    weights.write_bytes(b"other weights")
    assert taken("resnet.pth") != taken("copy.pth")


def test_a_records_value_is_taken_without_its_path() -> None:
    file = taken(HASH)
    assert (file, file.path, file.name) == (HASH, None, "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.pth", "suite: file: there is no file 'nowhere.pth' in {here}. Give the path of a file."),
        ("/nowhere.pth", "suite: file: there is no file '/nowhere.pth'. Give the path of a file."),
        (".", "suite: file: '.' cannot be read (Is a directory). Give the path of a file."),
        ("sha256:12", "suite: file: 'sha256:12' is not sha256: and 64 hexadecimal digits. Give the path of a file."),
        (3, "suite: file must be file, got 3."),
    ],
)
def test_what_is_no_file_is_one_line(weights: Path, value: object, message: str) -> None:
    with pytest.raises(ClvrBenchError) as refused:
        taken(value)
    assert str(refused.value) == message.format(here=weights.parent)


def test_files_may_be_left_out_or_be_several(weights: Path) -> None:
    assert taken(None, "also") is None
    assert taken("resnet.pth", "also") == HASH
    assert [file.name for file in taken(["resnet.pth", HASH], "more")] == ["resnet.pth", ""]
    with pytest.raises(ClvrBenchError, match="also: there is no file 'x'"):
        taken("x", "also")


def test_a_list_is_files_only_for_an_option_that_takes_several() -> None:
    assert not FILES["file"].accepts(["nowhere.pth"])
    assert FILES["more"].accepts(["nowhere.pth"])
    assert FILES["file"].accepts("nowhere.pth")


def test_a_value_that_is_checked_again_keeps_its_path(weights: Path) -> None:
    weights_again = taken(taken("resnet.pth"))
    assert weights_again.path == weights
    assert taken((taken("resnet.pth"),), "more")[0].path == weights


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda file: pickle.loads(pickle.dumps(file))])
def test_a_copy_keeps_its_path(weights: Path, copied: Any) -> None:
    file = copied(taken("resnet.pth"))
    assert (file, file.path) == (HASH, weights)


def test_a_file_is_shown_by_name_and_the_start_of_its_hash(weights: Path) -> None:
    file = taken("resnet.pth")
    assert file.shown == f"resnet.pth@{HASH[7:19]}"
    assert taken(HASH).shown == f"file@{HASH[7:19]}"
    assert shown((file, 3)) == (file.shown, 3)
    assert shown([file]) == [file.shown]
    assert shown("text") == "text"


def test_a_large_file_is_hashed_once_until_it_changes(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def counted(*arguments: Any) -> Any:
        hashed.append(arguments)
        return digest(*arguments)

    digest = module.file_digest
    monkeypatch.setattr(module, "file_digest", counted)
    file = taken("resnet.pth")
    assert taken("resnet.pth").verified_path() == weights
    assert len(hashed) == 1
    os.utime(weights, ns=(1, 1))
    assert file.verified_path() == weights
    assert len(hashed) == 2


def test_a_file_that_is_gone_or_another_by_now_is_not_given_out(weights: Path) -> None:
    file = taken("resnet.pth")
    weights.write_bytes(b"other weights")
    with pytest.raises(ClvrBenchError, match=r"resnet\.pth: it was changed since the run was planned\."):
        file.verified_path()
    weights.unlink()
    with pytest.raises(ClvrBenchError, match=r"resnet\.pth: No such file or directory\."):
        file.verified_path()
    with pytest.raises(ClvrBenchError, match=r"only the hash of file@[0-9a-f]{12} is known"):
        taken(HASH).verified_path()
