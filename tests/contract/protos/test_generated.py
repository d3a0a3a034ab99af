"""The wire contracts: linted, generated as checked in, and as the design has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.rpc import status_pb2

from disagfusion.v1 import generation_pb2, stage_pb2
from tools import generate_protos

ROOT = Path(__file__).parents[3]
BUF = ROOT / ".tools" / "bin" / "buf"


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert BUF.exists(), "run the tests with `make test`, which builds buf"
    return subprocess.run(
        [BUF, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_generated_code_is_as_checked_in() -> None:
    assert generate_protos.differences() == []


def test_a_change_of_generated_code_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_protos.generate(tmp_path)
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    monkeypatch.setattr(generate_protos, "ROOT", tmp_path)
    assert generate_protos.differences() == []
    stub = tmp_path / "disagfusion" / "v1" / "stage_pb2.pyi"
    stub.write_text(stub.read_text() + "# edited\n")
    (tmp_path / "disagfusion" / "v1" / "left_over_pb2.py").write_text("")
    assert generate_protos.differences() == ["left_over_pb2.py", "stage_pb2.pyi"]


def test_buf_finds_nothing_in_the_contracts() -> None:
    done = buf("lint", str(ROOT / "protos"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_proto_of_googleapis_is_as_installed() -> None:
    installed = Path(status_pb2.__file__).with_name("status.proto")
    assert (ROOT / "protos" / "google" / "rpc" / "status.proto").read_text() == (
        installed.read_text()
    )


def test_buf_is_not_blind(tmp_path: Path) -> None:
    (tmp_path / "buf.yaml").write_text((ROOT / "protos" / "buf.yaml").read_text())
    folder = tmp_path / "disagfusion" / "v1"
    folder.mkdir(parents=True)
    (folder / "bad.proto").write_text(
        'syntax = "proto3";\npackage disagfusion.v1;\nmessage bad_name { string Field = 1; }\n'
    )
    done = buf("lint", str(tmp_path))
    assert done.returncode != 0
    assert "bad_name" in done.stdout


def test_the_public_service_has_the_methods_of_the_design() -> None:
    service = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"]
    streams = {method.name: method.server_streaming for method in service.methods}
    assert streams == {
        "SubmitJob": False,
        "GetJob": False,
        "WatchJob": True,
        "CancelJob": False,
        "ListJobs": False,
        "FetchOutput": True,
        "GetPipeline": False,
    }


def test_the_stage_service_has_the_methods_of_the_design() -> None:
    service = stage_pb2.DESCRIPTOR.services_by_name["StageService"]
    methods: dict[str, MethodDescriptor] = dict(service.methods_by_name)
    assert set(methods) == {"Describe", "Work", "FetchMedia", "Drain", "ChangeStage"}
    assert methods["Work"].client_streaming
    assert methods["Work"].server_streaming


def test_no_message_of_the_work_stream_has_room_for_a_tensor() -> None:
    # Bytes on the Work stream are addresses and the images of a request; a new field of bytes
    # must be looked at by a person.
    found: set[str] = set()

    def walk(message: object, seen: set[str]) -> None:
        for field in message.fields:  # type: ignore[attr-defined]
            if field.type == FieldDescriptor.TYPE_BYTES:
                found.add(field.full_name)
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                walk(inner, seen)

    walk(stage_pb2.WorkRequest.DESCRIPTOR, set())
    walk(stage_pb2.WorkResponse.DESCRIPTOR, set())
    ours = {name for name in found if name.startswith("disagfusion.")}
    assert ours == {"disagfusion.v1.PeerAddress.data", "disagfusion.v1.InputImage.content"}
