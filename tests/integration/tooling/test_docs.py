"""The documentation: generated pages are current, links lead somewhere, settings are described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import generate_docs

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.parametrize("name", generate_docs.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (generate_docs.DOCS / name).read_text() == generate_docs.PAGES[name]()


def test_every_setting_is_described() -> None:
    for line in generate_docs.configuration_page().splitlines():
        if line.startswith("| `DISAGFUSION_"):
            assert line.split(" | ")[-1].strip(" |"), f"no description: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("mailto:", "#")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve()
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.name != "index.md":
            assert f"({page.name})" in index, f"{page.name} is not in the index"


def test_every_decision_is_in_the_list() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text()
    for page in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        assert f"({page.name})" in listed, f"{page.name} is not in docs/adr/README.md"
