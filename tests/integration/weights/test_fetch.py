"""What is fetched, from where, and that a stage needs no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from weightskit.command import Command
from weightskit.servers import COMMIT, REPOSITORY, Server

from disagfusion.weights.directory import DIGITS

CONFIGURATIONS = {
    f"{name}/config.json" for name in ("text_encoder", "text_encoder_2", "transformer", "vae")
} | {
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/tokenizer_config.json",
}
ROOT = {"model_index.json", "disagfusion.json"}


def fetched(directory: Path) -> set[str]:
    names = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    return names - {"disagfusion-weights.json"}


@pytest.mark.parametrize(
    ("stage", "workflows", "own"),
    [
        ("dit", "", {"transformer/diffusion_pytorch_model.safetensors"}),
        ("decoder", "", {"vae/diffusion_pytorch_model.safetensors"}),
        (
            "encoder",
            "text2image",
            {
                "text_encoder/model.safetensors",
                "text_encoder_2/model.safetensors",
                "tokenizer/tokenizer.json",
                "tokenizer_2/tokenizer.json",
            },
        ),
    ],
)
def test_only_what_a_stage_needs(
    fetch: Command, hub: str, stage: str, workflows: str, own: set[str]
) -> None:
    outcome = fetch(hub, "--stage", stage, "--workflows", workflows)
    assert fetched(outcome.path) == ROOT | CONFIGURATIONS | own
    for name in own:
        assert (outcome.path / name).read_bytes() == (DIGITS / name).read_bytes()
    selected, ready = outcome.phase("selected"), outcome.phase("ready")
    assert selected["bytes"] == ready["bytes"] == ready["downloaded"]
    assert outcome.phase("resolved")["revision"] == COMMIT


def test_an_encoder_that_takes_pictures_has_the_vae(fetch: Command, hub: str) -> None:
    path = fetch(hub, "--stage", "encoder").path
    assert "vae/diffusion_pytorch_model.safetensors" in fetched(path)
    assert "transformer/diffusion_pytorch_model.safetensors" not in fetched(path)


def test_what_is_there_is_not_fetched_again(fetch: Command, hub: str, server: Server) -> None:
    first = fetch(hub, "--stage", "dit", "--revision", COMMIT)
    asked = len(server.requests)
    again = fetch(hub, "--stage", "dit", "--revision", COMMIT, "--verify")
    assert (again.path, again.phase("ready")["downloaded"]) == (first.path, 0)
    # A commit always means the same: not even the hub was asked.
    assert len(server.requests) == asked
    other = fetch(hub, "--stage", "decoder", "--revision", COMMIT)
    assert other.path == first.path
    assert not server.asked("cdn/transformer/diffusion_pytorch_model.safetensors")[1:]
    versions = json.loads((other.path / "disagfusion-weights.json").read_text())
    assert versions["version"] == COMMIT[:16]


def test_a_variant_where_there_is_one(fetch: Command, hub: str) -> None:
    path = fetch(hub, "--stage", "decoder", "--variant", "fp16").path
    assert {name for name in fetched(path) if "diffusion" in name} == {
        "vae/diffusion_pytorch_model.fp16.safetensors"
    }


def test_a_branch_may_be_used_while_the_hub_is_away(
    fetch: Command, hub: str, server: Server
) -> None:
    first = fetch(hub, "--stage", "dit")
    fetch.environment["HF_ENDPOINT"] = "http://127.0.0.1:1"
    away = fetch(hub, "--stage", "dit")
    assert away.path == first.path
    assert "cannot be reached" in away.phase("offline")["problem"]
    assert fetch(hub, "--stage", "dit", "--offline").path == first.path
    missing = fetch(hub, "--stage", "decoder", "--offline")
    assert missing.status == 3
    assert "vae/diffusion_pytorch_model.safetensors is not in" in missing.error
    assert fetch("hub:acme/other", "--offline").status == 3


def test_a_token_goes_to_the_hub_and_nowhere_else(
    fetch: Command, hub: str, server: Server, tmp_path: Path
) -> None:
    server.token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret\n")
    outcome = fetch(hub, "--stage", "dit", "--token-file", str(tmp_path / "token"))
    assert outcome.path.is_dir()
    sent = {path.startswith("/cdn/"): secret for _, path, _, secret in server.requests}
    assert sent == {True: "", False: "Bearer hf_secret"}
    fetch.environment["HF_TOKEN"] = "hf_secret"
    assert fetch(hub, "--stage", "decoder").status == 0


def test_the_servers_are_what_the_hubs_own_client_expects(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi(endpoint=server.url).model_info(REPOSITORY, revision="main", files_metadata=True)
    assert info.sha == COMMIT
    assert info.siblings
    weights = {file.rfilename: file for file in info.siblings}["vae/diffusion_pytorch_model.bin"]
    assert weights.lfs
    assert weights.lfs.size == weights.size == 63000
    for name in ("model_index.json", "vae/diffusion_pytorch_model.safetensors"):
        path = hf_hub_download(REPOSITORY, name, endpoint=server.url, cache_dir=tmp_path)
        assert Path(path).read_bytes() == (DIGITS / name).read_bytes()


def test_an_object_store(fetch: Command, server: Server, digits: Path, tmp_path: Path) -> None:
    from disagfusion.weights.objects import describe_directory

    document = describe_directory(digits, version="2024-07")
    large = "transformer/diffusion_pytorch_model.safetensors"
    for entry in document["files"]:
        if entry["path"] == large:
            entry["url"] = f"{server.cdn}/cdn/{large}?signature=s3cret"
    listed = digits.parent / "manifest.json"
    # Beside the files, as it would be in a bucket.
    target = digits / "manifest.json"
    target.write_text(json.dumps(document))
    try:
        outcome = fetch(f"{server.url}/store/manifest.json?signature=1", "--stage", "dit")
    finally:
        target.unlink()
    assert not listed.exists()
    assert large in fetched(outcome.path)
    assert outcome.phase("resolved")["version"] == "2024-07"
    assert outcome.path.name == "2024-07"
    assert server.asked(f"/cdn/{large}")
    assert "signature" not in (outcome.path / "disagfusion-weights.json").read_text()


def test_a_directory_is_used_where_it_is(fetch: Command, digits: Path, tmp_path: Path) -> None:
    link, report = tmp_path / "model", tmp_path / "report.json"
    outcome = fetch(f"dir:{digits}", "--stage", "dit", "--link", str(link), "--report", str(report))
    assert outcome.path == digits == link.resolve()
    assert not fetch.cache.exists()
    written = json.loads(report.read_text())
    assert written["downloaded"] == 0
    assert written["started"] <= written["finished"]
    copied = fetch(f"dir:{digits}", "--stage", "dit", "--copy", "--link", str(link))
    assert copied.path == link.resolve() != digits
    assert copied.phase("resolved")["version"] == outcome.phase("resolved")["version"]


def test_the_model_that_comes_with_us(fetch: Command) -> None:
    assert fetch("builtin:digits", "--stage", "decoder").path == DIGITS


def test_a_document_for_a_directory(digits: Path) -> None:
    from disagfusion.weights.objects import ObjectSource, describe_directory

    source = ObjectSource("https://bucket.example/models/digits/manifest.json?X-Amz-Signature=1")
    assert source.name == "https://bucket.example/models/digits/manifest.json"
    document = describe_directory(digits)
    assert {entry["path"] for entry in document["files"]} == {
        path.relative_to(digits).as_posix() for path in digits.rglob("*") if path.is_file()
    }
