"""What all workers are told at once, and what later ones are told."""

from __future__ import annotations

from unittest.mock import Mock

from disagfusion_gateway.sessions import Session, Sessions

from disagfusion.jobs.model import Stage
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2 as wire


def enter(sessions: Sessions, name: str, stage: pb.Stage.ValueType) -> Session:
    session = Session(wire.Worker(name=name, stages=[stage]), Mock())
    sessions.add(session)
    return session


def sent(session: Session) -> list[wire.WorkRequest]:
    return [session.outgoing.get_nowait() for _ in range(session.outgoing.qsize())]


def test_the_workers_of_a_stage_hear_that_jobs_wait() -> None:
    sessions = Sessions(Mock())
    encoder = enter(sessions, "e", pb.STAGE_ENCODER)
    dit = enter(sessions, "d", pb.STAGE_DIT)
    sessions.demand(Stage.DIT, True)
    assert [message.demand.waiting for message in sent(dit)] == [True]
    assert sent(encoder) == []


def test_workers_hand_over_what_they_have_of_dead_gateways_now_and_later() -> None:
    sessions = Sessions(Mock())
    worker = enter(sessions, "d", pb.STAGE_DIT)
    sessions.take_over(["b", "a"])
    assert [list(message.take_over.gateways) for message in sent(worker)] == [["a", "b"]]
    assert sessions.former == ("a", "b"), "for greetings"
    sessions.take_over(f"gateway-{number:03}" for number in range(100))
    assert len(sessions.former) == 64
    assert sessions.former[-1] == "gateway-099"
