from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tools.cluster.errors import ClusterError
from tools.cluster.options import Options, add_arguments, asked, differences, from_environment


def parsed(arguments: list[str], environment: dict[str, str] | None = None) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return Options(**asked(parser.parse_args(arguments), environment or {}))


def test_two_real_nodes_and_kwok_unless_something_else_is_asked_for() -> None:
    options = parsed([])
    assert options == Options()
    assert options.node_names == ["node1", "node2"]
    assert options.kwok


def test_arguments_come_before_variables() -> None:
    environment = {"CLUSTER_NODES": "3", "CLUSTER_KWOK": "0"}
    assert parsed(["--nodes", "1"], environment) == Options(nodes=1, kwok=False)
    assert parsed(["--kwok"], environment) == Options(nodes=3, kwok=True)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CLUSTER_NODES", "many", "CLUSTER_NODES must be a whole number, not 'many'"),
        ("CLUSTER_KWOK", "perhaps", "CLUSTER_KWOK must be 0 or 1, not 'perhaps'"),
    ],
)
def test_a_variable_of_another_kind_is_refused(name: str, value: str, expected: str) -> None:
    with pytest.raises(ClusterError, match=expected):
        from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nodes", -1),
        ("nodes", 21),
        ("api_qps", -1),
        ("max_requests_inflight", -1),
        ("node_grace_seconds", 0),
        ("state_gigabytes", 0),
    ],
)
def test_a_number_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(ClusterError, match=f"{name} must be .* not {value}"):
        Options(**{name: value})  # type: ignore[arg-type]


def test_somebody_elses_programs_are_for_a_control_plane_alone() -> None:
    environment = {"KUBEBUILDER_ASSETS": "/assets"}
    assert parsed([], environment).nodes == 0
    assert parsed(["--nodes", "1"], environment).nodes == 1


def test_only_what_is_asked_for_can_differ_from_what_runs() -> None:
    running = Options(nodes=3, api_qps=500)
    assert differences(running, {}) == []
    assert differences(running, {"nodes": 3}) == []
    assert differences(running, {"nodes": 2, "kwok": True}) == ["nodes is 3 and not 2"]


def test_rate_limits_are_raised_where_they_are_kept() -> None:
    options = Options(max_requests_inflight=2000, api_qps=500)
    assert options.flags("apiserver") == [
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    ]
    for program in ("controller_manager", "scheduler"):
        assert options.flags(program) == ["--kube-api-qps=500", "--kube-api-burst=1000"]


def test_nothing_is_said_where_nothing_is_asked_for() -> None:
    assert [Options().flags(p) for p in ("apiserver", "controller_manager", "scheduler")] == [
        []
    ] * 3


def test_more_flags_and_gates_reach_their_program() -> None:
    options = Options(feature_gates="A=true", scheduler_flags="--v=4 --name='a b'")
    assert options.flags("scheduler") == ["--feature-gates=A=true", "--v=4", "--name=a b"]
    assert options.flags("apiserver") == ["--feature-gates=A=true"]


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    options = Options(nodes=3, api_qps=7, apiserver_flags="--v=2")
    options.save(tmp_path / "options.json")
    assert Options.load(tmp_path / "options.json") == options


def test_without_a_cluster_a_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no cluster runs here"):
        Options.load(tmp_path / "options.json")
