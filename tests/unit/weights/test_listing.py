"""Names and addresses that come from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disagfusion.errors import InvalidArgumentError
from disagfusion.weights.cache import directory_name
from disagfusion.weights.errors import CorruptError
from disagfusion.weights.hub import find_token, is_commit, is_repository
from disagfusion.weights.listing import RemoteFile, check_path, digest_of
from disagfusion.weights.objects import ObjectSource


@pytest.mark.parametrize(
    "path", ["model_index.json", "vae/config.json", "a/b/c-00001-of-00002.safetensors", "T5 (1)/x"]
)
def test_paths_that_stay_within(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".hidden", "a/.git/config", "a\\b",
     "a\n", "~root", "disagfusion/" * 60 + "x"],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(CorruptError, match="not allowed"):
        check_path(path)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("black-forest-labs/FLUX.1-schnell", True),
        ("gpt2", True),
        ("a/b/c", False),
        ("../etc", False),
        ("a/..", False),
        ("a b", False),
        ("", False),
        ("-a/b", False),
    ],
)
def test_repositories(name: str, fits: bool) -> None:
    assert is_repository(name) == fits


def test_commits() -> None:
    assert is_commit("0" * 40)
    assert not is_commit("main")
    assert not is_commit("0" * 39)


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" hf_file\n")
    assert find_token({}) == ""
    assert find_token({"HF_TOKEN": "hf_env", "HF_TOKEN_PATH": str(file)}) == "hf_env"
    assert find_token({"HF_TOKEN_PATH": str(file)}) == "hf_file"
    assert find_token({"HF_TOKEN": "hf_env"}, file) == "hf_file"
    with pytest.raises(InvalidArgumentError, match="token-file"):
        find_token({}, tmp_path / "none")


def test_the_version_follows_from_the_files() -> None:
    one, two = RemoteFile("a", 1, "1" * 64), RemoteFile("b", 1, "2" * 64)
    assert digest_of([one, two]) == digest_of([two, one]) != digest_of([one])


def test_directories_are_readable_and_never_the_same() -> None:
    assert directory_name("acme/flux").startswith("acme-flux-")
    assert directory_name("acme/flux") != directory_name("acme-flux")
    assert "/" not in directory_name("https://x.example/../../etc")


SHA = "0" * 64


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="list"),
        pytest.param({"format": 2, "files": []}, id="format"),
        pytest.param({"format": 1}, id="no-files"),
        pytest.param({"format": 1, "files": [{"path": "a", "size": -1, "sha256": SHA}]}, id="size"),
        pytest.param({"format": 1, "files": [{"path": "a", "size": 1, "sha256": "x"}]}, id="sha"),
        pytest.param(
            {"format": 1, "files": [{"path": "../a", "size": 1, "sha256": SHA}]}, id="path"
        ),
        pytest.param({"format": 1, "version": "../..", "files": []}, id="version"),
        pytest.param(
            {"format": 1, "files": [{"path": "a", "size": 1, "sha256": SHA, "url": "file:///a"}]},
            id="url",
        ),
    ],
)
def test_documents_that_make_no_sense(document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ObjectSource("https://bucket.example/m.json")
    monkeypatch.setattr(source._client, "document", lambda _: document)
    with pytest.raises(CorruptError):
        source.resolve()


@pytest.mark.parametrize("query", ["", "?X-Amz-Signature=1"])
def test_the_document_below_a_prefix(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ObjectSource(f"https://bucket.example/models/flux/{query}")
    asked: list[str] = []
    monkeypatch.setattr(
        source._client, "document", lambda url: asked.append(url) or {"format": 1, "files": []}
    )
    source.resolve()
    assert asked == [f"https://bucket.example/models/flux/manifest.json{query}"]
    assert source.name == "https://bucket.example/models/flux/manifest.json"


def test_where_files_of_a_document_are(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        {"path": "vae/a b.json", "size": 1, "sha256": SHA},
        {"path": "b", "size": 1, "sha256": SHA, "url": "other/b?sig=1"},
        {"path": "c", "size": 1, "sha256": SHA, "url": "https://cdn.example/c"},
    ]
    source = ObjectSource("https://bucket.example/models/m.json?sig=0")
    monkeypatch.setattr(source._client, "document", lambda _: {"format": 1, "files": files})
    listing = source.resolve()
    assert [file.place for file in listing.files] == [
        "https://bucket.example/models/vae/a%20b.json",
        "https://bucket.example/models/other/b?sig=1",
        "https://cdn.example/c",
    ]
    assert listing.version == listing.revision == digest_of(listing.files)
