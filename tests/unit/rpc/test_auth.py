from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.rpc.auth import KeyFile, create_key, require_keys_unless_local


def test_a_key_maps_to_its_tenant_and_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first, second = create_key(path, "acme"), create_key(path, "umbra")
    rotated = create_key(path, "acme")
    keys = KeyFile(path)
    assert [keys.tenant_of(key) for key in (first, second, rotated)] == ["acme", "umbra", "acme"]
    assert keys.tenant_of(first[:-1]) is None
    assert keys.tenant_of("") is None
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys"]


def test_keys_are_different(tmp_path: Path) -> None:
    keys = {create_key(tmp_path / "keys", "a") for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 for key in keys)


def test_a_changed_file_is_read_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first = create_key(path, "a")
    keys = KeyFile(path)
    second = create_key(path, "b")
    assert keys.tenant_of(second) == "b"
    good = path.read_text()
    path.write_text(good + "rubbish\n")
    assert keys.tenant_of(first) == "a"
    path.write_text(good.splitlines()[1] + "\n# the first was revoked\n")
    assert keys.tenant_of(first) is None
    assert keys.tenant_of(second) == "b"


@pytest.mark.parametrize(
    "line",
    ["a", "a: b", "a: sha256:00", ": sha256:" + "0" * 64, "a b: sha256:" + "0" * 64, "\x00"],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(InvalidArgumentError, match="line 3"):
        KeyFile(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No such file"):
        KeyFile(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="not UTF-8"):
        KeyFile(tmp_path / "bytes")
    with pytest.raises(InvalidArgumentError, match="cannot write"):
        create_key(tmp_path / "no" / "keys", "a")


@pytest.mark.parametrize("tenant", ["", "a b", "-a", "a" * 64, "a\nb", "ä"])
def test_tenants_that_are_refused(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(InvalidArgumentError, match="tenant"):
        create_key(tmp_path / "keys", tenant)


@given(st.text(max_size=200))
def test_any_guess_is_nobodys(tmp_path_factory: pytest.TempPathFactory, guess: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fixed-keys"
    if not path.exists():
        create_key(path, "a")
    assert KeyFile(path).tenant_of(guess) is None


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "localhost:1", "[::1]:1", "127.9.9.9:1", "unix:/tmp/s"]
)
def test_local_addresses_need_no_keys(listen: str) -> None:
    require_keys_unless_local(listen, None)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "127.example.org:1"]
)
def test_others_do(listen: str, tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="API keys"):
        require_keys_unless_local(listen, None)
    create_key(tmp_path / "keys", "a")
    require_keys_unless_local(listen, KeyFile(tmp_path / "keys"))
