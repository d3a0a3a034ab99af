from pathlib import Path

import pytest

from disagfusion.local.logs import LogFile, last_lines


def test_a_log_stays_bounded_and_loses_only_the_oldest(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", limit_bytes=100)
    for number in range(50):
        log.write(b"line %04d\n" % number)
    log.close()
    kept = (tmp_path / "a.log.1").read_text() + (tmp_path / "a.log").read_text()
    assert kept.endswith("line 0049\n")
    assert len(kept) <= 220
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.log", "a.log.1"]


def test_echo_puts_the_name_before_each_whole_line(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = LogFile(tmp_path / "dit-0.log", echo=True)
    log.write(b"one\ntw")
    log.write(b"o\n")
    log.close()
    assert capfdbinary.readouterr().err == b"dit-0 | one\ndit-0 | two\n"


def test_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert last_lines(path, 3) == []
    path.write_bytes(b"x" * 100_000 + b"\none\n\n\xff\ntwo\n")
    assert last_lines(path, 2) == ["\ufffd", "two"]
