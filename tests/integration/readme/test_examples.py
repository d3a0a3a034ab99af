"""What README and guides show is run as it stands there, against a real system."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from disagfusion.local import LocalRuntime

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:7420"
"""Where the guides expect a service; the tests put the running one's address in its place."""

pytestmark = pytest.mark.timeout(300)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = "\n".join(blocks(page, "console")).splitlines()
    found = [
        line.removeprefix("$ ").removeprefix(".venv/bin/") for line in lines if line[:2] == "$ "
    ]
    return [line for line in found if " serve" not in line]


@pytest.fixture(scope="module")
def address(forked: None) -> Iterator[str]:
    with LocalRuntime() as runtime:
        yield runtime.address


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        arguments,
        cwd=directory,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_lines_of_the_readme_draw_a_picture(forked: None, tmp_path: Path) -> None:
    (example,) = blocks("README.md", "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 5
    run([sys.executable, "-c", example], tmp_path)
    with Image.open(tmp_path / "seven.png") as picture:
        assert picture.size == (64, 64)
        red, green, blue = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert red > green
        assert red > blue


@pytest.mark.parametrize("number", range(len(blocks("docs/sdk.md", "python"))))
def test_the_examples_of_the_sdk_guide_run(number: int, address: str, tmp_path: Path) -> None:
    example = blocks("docs/sdk.md", "python")[number].replace(ADDRESS, address)
    done = run([sys.executable, "-W", "error", "-c", example], tmp_path)
    if "height=63" in example:
        assert done.stdout.startswith("height ")


@pytest.mark.parametrize(
    "command", sorted({*commands("docs/getting-started.md"), *commands("docs/cli.md")})
)
def test_the_commands_of_the_guides_run(command: str, address: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command.replace(ADDRESS, address))
    run([str(BIN / program), *arguments], tmp_path)
    if "-o" in arguments:
        with Image.open(tmp_path / arguments[arguments.index("-o") + 1]) as picture:
            assert picture.size == (64, 64)


@pytest.mark.parametrize("command", commands("docs/simulation.md"))
def test_the_commands_that_need_no_service_run(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert run([str(BIN / program), *arguments], ROOT).stdout


def test_the_guides_have_examples() -> None:
    assert len(blocks("docs/sdk.md", "python")) >= 5
    assert len(commands("docs/getting-started.md")) >= 3
