from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from torchvision import datasets

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import Archive
from tests.plugins.datasets.originals import md5_of, pack, served

NAMES = ("first.bin", "second.bin")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an archive of two files, as a publisher would serve it."""
    folder = tmp_path / "site"
    (folder / "pictures").mkdir(parents=True)
    for name in NAMES:
        (folder / "pictures" / name).write_bytes(name.encode() * 1000)
    pack(folder / "pictures.tar.gz", folder, [f"pictures/{name}" for name in NAMES], "w:gz")
    return folder


@pytest.fixture
def archive(site: Path) -> Iterator[Archive]:
    with served(site) as address:
        files = {name: md5_of(site / "pictures" / name) for name in NAMES}
        packed = site / "pictures.tar.gz"
        yield Archive("pets", f"{address}/{packed.name}", packed.name, md5_of(packed), "pictures", files)


def refused(archive: Archive, root: Path | None) -> str:
    with pytest.raises(ClvrBenchError) as caught:
        archive.checked(root)
    return one_line(caught.value)


def one_line(error: ClvrBenchError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_what_is_downloaded_passes_the_check(archive: Archive, site: Path, tmp_path: Path) -> None:
    root = tmp_path / "data" / "new"
    archive.download(root)
    assert archive.checked(root) == root
    assert (root / "pictures" / "second.bin").read_bytes() == (site / "pictures" / "second.bin").read_bytes()


def test_what_is_there_is_not_fetched_again(archive: Archive, tmp_path: Path) -> None:
    archive.download(tmp_path)
    (tmp_path / archive.filename).unlink()
    dataclasses.replace(archive, url=unreachable()).download(tmp_path)


def test_an_archive_that_is_there_is_extracted_without_a_network(archive: Archive, site: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (site / archive.filename).rename(root / archive.filename)
    dataclasses.replace(archive, url=unreachable()).download(root)
    assert archive.checked(root) == root


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_by_name_and_mended_by_download(archive: Archive, tmp_path: Path, name: str) -> None:
    archive.download(tmp_path)
    path = tmp_path / "pictures" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert refused(archive, tmp_path) == (
        f"dataset pets: {path} is damaged or was changed: its MD5 is {md5_of(path)}, the published file's "
        f"{archive.files[name]}. Add --download to fetch pictures.tar.gz and extract it, or extract it into {tmp_path} "
        "yourself."
    )
    archive.download(tmp_path)
    archive.checked(tmp_path)


def test_missing_files_are_named_and_counted(archive: Archive, tmp_path: Path) -> None:
    first = tmp_path / "pictures" / "first.bin"
    assert f"dataset pets: {first} is missing, and 1 more. Add --download" in refused(archive, tmp_path)
    archive.download(tmp_path)
    first.unlink()
    assert f"dataset pets: {first} is missing. Add --download" in refused(archive, tmp_path)


def test_without_a_root_it_asks_for_one(archive: Archive) -> None:
    assert refused(archive, None) == (
        "dataset pets: it needs the folder that holds 'pictures'. Name it with --data-root DIR; with --download the "
        "files are fetched into it."
    )


def test_the_files_own_folder_is_refused_with_the_one_to_name(archive: Archive, tmp_path: Path) -> None:
    archive.download(tmp_path)
    assert refused(archive, tmp_path / "pictures").endswith(f"Name the folder that holds it: --data-root {tmp_path}")
    with pytest.raises(ClvrBenchError, match="Name the folder that holds it"):
        archive.download(tmp_path / "pictures")
    assert not (tmp_path / "pictures" / "pictures").exists()


def test_a_file_that_cannot_be_read_is_named(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.download(tmp_path)

    def fails(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("clvr_bench.toolbox.archives.calculate_md5", fails)
    assert f"{tmp_path / 'pictures' / 'first.bin'} cannot be read ([Errno 13] Permission denied" in refused(
        archive, tmp_path
    )


def unreachable() -> str:
    """Return an address of this machine where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/pictures.tar.gz"


@pytest.mark.parametrize("damage", ["no such file", "offline", "other content", "root is a file"])
def test_a_download_that_fails_says_so_in_one_line(archive: Archive, site: Path, tmp_path: Path, damage: str) -> None:
    root, reason = (
        tmp_path / "data",
        {"no such file": "HTTP Error 404: ", "offline": "Connection refused"}.get(damage, ""),
    )
    if damage == "no such file":
        (site / archive.filename).unlink()
    if damage == "offline":
        archive = dataclasses.replace(archive, url=unreachable())
    if damage == "other content":
        (site / archive.filename).write_bytes(b"an error page")
    if damage == "root is a file":
        root.write_text("")
    with pytest.raises(ClvrBenchError) as caught:
        archive.download(root)
    message = one_line(caught.value)
    assert message.startswith(f"dataset pets: --download could not fetch {archive.url} into {root} (")
    assert reason in message
    assert message.endswith(f"or put {archive.filename} there by other means: --download then checks and extracts it.")


def test_a_cut_off_archive_is_fetched_anew(archive: Archive, site: Path, tmp_path: Path) -> None:
    (tmp_path / archive.filename).write_bytes((site / archive.filename).read_bytes()[:50])
    archive.download(tmp_path)
    archive.checked(tmp_path)


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), RuntimeError("Dataset not\nfound")])
def test_what_goes_wrong_in_reading_is_one_line(archive: Archive, tmp_path: Path, error: Exception) -> None:
    expected = f"dataset pets: the files in {tmp_path / 'pictures'} cannot be read ({' '.join(str(error).split())})."
    with pytest.raises(ClvrBenchError, match=f"^{re.escape(expected)}$"), archive.reading(tmp_path):
        raise error


@pytest.mark.parametrize(
    ("reader", "count"), [(datasets.CIFAR10, 7), (datasets.CIFAR100, 3), (datasets.STL10, 5)], ids=lambda v: str(v)
)
def test_addresses_and_checksums_are_torchvisions(reader: type, count: int) -> None:
    archive = Archive.of_torchvision("any", reader)
    assert (archive.url, archive.md5) == (reader.url, reader.tgz_md5)
    assert len(archive.files) == count
    for name, md5 in [*reader.train_list, *reader.test_list]:
        assert archive.files[name] == md5
