"""A folder that nobody else can read, or put anything into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from celery_memory_exporter.agent.worker.state_folder import StateFolder, filesystem

MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sda1 /srv ext4 rw 0 0
server:/x /srv/state nfs4 rw 0 0
tmpfs /srv/state/here tmpfs rw 0 0
/dev/sdb1 /srv/state/here btrfs rw 0 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(str(tmp_path))


def own(tmp_path: Path) -> Path:
    """The folder in there."""
    return tmp_path / f"celery-memory-exporter-{os.geteuid()}"


def test_only_its_user_may_look_into_it(tmp_path: Path, folder: StateFolder) -> None:
    os.close(folder.create("a", 10))
    folder.write("b", b"text")
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (own(tmp_path), *own(tmp_path).iterdir())
    ]
    assert modes == [0o700, 0o600, 0o600]


def test_it_is_in_the_temporary_directory_where_nothing_else_is_set(tmp_path: Path) -> None:
    StateFolder(None)
    assert own(tmp_path).is_dir()


def test_a_folder_that_is_there_is_used_again(tmp_path: Path, folder: StateFolder) -> None:
    folder.write("b", b"text")
    again = StateFolder(str(tmp_path))
    assert (again.names(), again.read("b", 100)) == (["b"], b"text")


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    own(tmp_path).mkdir()
    own(tmp_path).chmod(mode)
    with pytest.raises(PermissionError):
        StateFolder(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    own(tmp_path).mkdir(mode=0o700)
    os.chown(own(tmp_path), 65534, 65534)
    with pytest.raises(PermissionError):
        StateFolder(str(tmp_path))


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    own(tmp_path).symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        StateFolder(str(tmp_path))


def test_it_is_looked_at_each_time(tmp_path: Path, folder: StateFolder) -> None:
    own(tmp_path).chmod(0o755)
    for use in (folder.names, lambda: folder.write("a", b""), lambda: folder.create("b", 1)):
        with pytest.raises(PermissionError):
            use()


def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written(
    tmp_path: Path, folder: StateFolder
) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    for name in ("a", "a.new"):
        (own(tmp_path) / name).symlink_to(target)
    for use in (
        lambda: folder.read("a", 10),
        lambda: folder.open("a"),
        lambda: folder.create("a", 10),
        lambda: folder.write("a", b"other"),
    ):
        with pytest.raises(OSError, match=r"Too many levels|File exists"):
            use()
    assert target.read_bytes() == b"precious"


def test_what_is_no_file_is_not_opened(tmp_path: Path, folder: StateFolder) -> None:
    os.mkfifo(own(tmp_path) / "a")
    with pytest.raises(PermissionError):
        folder.open("a")


def test_a_file_is_replaced_in_one_piece(tmp_path: Path, folder: StateFolder) -> None:
    folder.write("a", b"first")
    with (own(tmp_path) / "a").open("rb") as before:
        folder.write("a", b"second")
        assert before.read() == b"first"
    assert folder.read("a", 100) == b"second"
    assert folder.names() == ["a"]


def test_a_file_for_which_the_disk_has_no_room_is_not_there(
    tmp_path: Path, folder: StateFolder
) -> None:
    with pytest.raises(OSError, match=r"space|large"):
        folder.create("a", 2**60)
    assert folder.names() == []


def test_a_new_file_has_its_size_on_the_disk(tmp_path: Path, folder: StateFolder) -> None:
    os.close(folder.create("a", 1024 * 1024))
    status = (own(tmp_path) / "a").stat()
    assert status.st_size == 1024 * 1024
    assert status.st_blocks * 512 >= 1024 * 1024, "a hole would kill who writes to it"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x", "overlay"),
        ("/tmp", "tmpfs"),
        ("/tmpfiles/x", "overlay"),
        ("/tmp/x", "tmpfs"),
        ("/srv/x", "ext4"),
        ("/srv/state/x", "nfs4"),
        ("/srv/state/here/x", "btrfs"),
    ],
)
def test_what_a_path_lies_on(path: str, kind: str) -> None:
    assert filesystem(path, MOUNTS) == kind
    assert filesystem(path, "") == ""


def test_what_is_not_there_can_be_removed(folder: StateFolder) -> None:
    folder.write("a", b"")
    folder.remove("a")
    folder.remove("a")
    assert folder.names() == []
