"""The container's memory limit, as the kernel's two versions of control groups tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from disagfusion.errors import FailedPreconditionError
from disagfusion.stage.limits import check_arena, memory_limit

NONE_V1 = str(0x7FFFFFFFFFFFF000)


def system(root: Path, membership: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": membership, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content and content + "\n")
    return root


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        pytest.param("0::/", {"sys/fs/cgroup/memory.max": "1048576"}, 1 << 20, id="v2-container"),
        pytest.param("0::/", {"sys/fs/cgroup/memory.max": "max"}, None, id="v2-no-limit"),
        pytest.param(
            "0::/kube/pod/c",
            {"sys/fs/cgroup/kube/pod/memory.max": "500", "sys/fs/cgroup/kube/memory.max": "900"},
            500,
            id="v2-limit-of-the-pod",
        ),
        pytest.param(
            "3:cpu:/x\n5:memory:/pod",
            {"sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "700"},
            700,
            id="v1",
        ),
        pytest.param(
            "5:memory:/not/seen/in/here",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": "800"},
            800,
            id="v1-container-without-a-namespace",
        ),
        pytest.param(
            "5:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": NONE_V1}, None,
            id="v1-no-limit",
        ),
        pytest.param("", {}, None, id="no-control-groups"),
    ],
)  # fmt: skip
def test_the_limit_is_found(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
) -> None:
    assert memory_limit(system(tmp_path, membership, files)) == limit


def test_a_system_without_proc_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


def test_an_arena_that_does_not_fit_is_refused_naming_both(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/", {"sys/fs/cgroup/memory.max": str(512 << 20)})
    check_arena((512 << 20) - 1, root)
    with pytest.raises(FailedPreconditionError) as error:
        check_arena(1 << 30, root)
    assert error.value.reason == "MEMORY_LIMIT"
    assert "1073741824 bytes (1.00 GiB)" in error.value.message
    assert "limit of 536870912 bytes (0.50 GiB)" in error.value.message
    assert "DISAGFUSION_ARENA_BYTES" in error.value.message
