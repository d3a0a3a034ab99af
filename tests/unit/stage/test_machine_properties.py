"""Whatever happens, in whatever order: no slot or byte is given twice, every answer comes once."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stagerig import Rig

from disagfusion.stage.actions import (
    Action,
    CancelOnEngine,
    EndSession,
    EngineInfo,
    GiveSpace,
    OutputKey,
    Product,
    RunOnEngine,
    SendOutput,
    StageEnded,
    StartEngine,
)
from disagfusion.stage.held import HeldOutput
from disagfusion.transport.api import MessageHeader, RefusedError
from disagfusion.v1 import stage_pb2

SESSIONS = {"one/1": "one", "one/2": "one", "two/1": "two"}
JOBS = st.sampled_from("abc")
ATTEMPTS = st.integers(1, 3)


class World(RuleBasedStateMachine):
    """Gateways, senders, receivers and an engine that do as they like."""

    @initialize(first=st.booleans())
    def begin(self, first: bool) -> None:
        self.first = first
        self.rig = Rig(first=first, held_bytes=1024, input_seconds=10.0, held_seconds=30.0)
        self.machine = self.rig.machine
        self.engine = "absent"
        self.runs: list[RunOnEngine] = []
        self.asked: int | None = None
        # What the engine was given for its run, asked for or not.
        self.spaces: list[tuple[int, int]] = []
        self.sessions: set[str] = set()
        self.filling: dict[str, tuple[MessageHeader, int]] = {}
        self.sends: list[int] = []
        self.pins: list[HeldOutput] = []
        self.accepted: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.do(self.machine.tick(self.rig.now))

    def do(self, todo: list[Action]) -> None:
        self.rig.do(todo)
        for action in todo:
            match action:
                case StartEngine():
                    assert self.engine == "absent"
                    self.engine = "loading"
                case RunOnEngine():
                    assert self.engine == "loaded"
                    assert len(self.runs) < 2
                    assert action.offset not in [at for _, at in self.filling.values()]
                    assert action.run_id > max((run.run_id for run in self.runs), default=0)
                    self.runs.append(action)
                case CancelOnEngine(run_id):
                    assert run_id in [run.run_id for run in self.runs]
                case GiveSpace(run_id, offset, _, nbytes) if offset >= 0:
                    assert self.run is not None
                    assert run_id == self.run.run_id
                    assert self.asked is None or nbytes >= self.asked
                    self.check_space(offset, nbytes)
                    self.spaces.append((offset, nbytes))
                case EndSession(session):
                    self.sessions.discard(session)
                case SendOutput():
                    self.sends.append(action.send_id)
                case StageEnded():
                    grant = action.assignment.grant_id
                    self.ended[grant] = self.ended.get(grant, 0) + 1

    @property
    def run(self) -> RunOnEngine | None:
        """What the engine computes."""
        return self.runs[0] if self.runs else None

    def end_run(self) -> int:
        self.asked, self.spaces = None, []
        return self.runs.pop(0).run_id

    @property
    def space(self) -> int | None:
        """Where the engine may write what it has asked for."""
        wanted = self.asked
        if wanted is None:
            return None
        return next((offset for offset, nbytes in self.spaces if nbytes >= wanted), None)

    def check_space(self, offset: int, nbytes: int) -> None:
        for held in [*self.machine.held, *self.pins]:
            end = held.block + held.product.nbytes
            assert offset + nbytes <= held.block or end <= offset

    def offered(self) -> list[str]:
        return [grant for session in self.sessions for grant in self.rig.grants(session)]

    @rule(session=st.sampled_from(sorted(SESSIONS)), shares=st.booleans())
    def a_gateway_comes(self, session: str, shares: bool) -> None:
        name = SESSIONS[session]
        if session not in self.sessions and name not in self.machine.gateways.replaced:
            self.sessions.add(session)
            self.do(self.machine.connected(session, name, self.rig.now, shares=shares))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def a_gateway_goes(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        self.sessions.discard(session)
        self.do(self.machine.disconnected(session, self.rig.now))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), waiting=st.booleans())
    def a_gateway_has_use_for_grants(self, data: st.DataObject, waiting: bool) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        self.do(self.machine.demand(session, waiting, self.rig.now))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def a_gateway_gives_grants_back(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        recalled = [g for one in self.rig.told("recall", session) for g in one.grant_ids]
        self.do(self.machine.return_grants(session, recalled, self.rig.now))

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(data=st.data(), rarely=st.integers(0, 3))
    def a_gateway_takes_over(self, data: st.DataObject, rarely: int) -> None:
        session, other = data.draw(st.permutations(sorted(self.sessions)))[:2]
        if rarely == 0:
            self.do(self.machine.take_over(session, [SESSIONS[other]], self.rig.now))
            assert SESSIONS[other] not in {output.owner for output in self.machine.held}

    @precondition(lambda self: self.sessions and self.offered())
    @rule(data=st.data(), job=JOBS, attempt=ATTEMPTS)
    def assign(self, data: st.DataObject, job: str, attempt: int) -> None:
        grant = data.draw(st.sampled_from(self.offered()))
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        refused = len(self.rig.told("failed"))
        ends = sum(self.ended.values())
        message = self.rig.assignment(job, grant, attempt)
        self.do(self.machine.assign(session, message, self.rig.now))
        told = self.rig.told("failed")[refused:]
        if sum(self.ended.values()) > ends or not any(
            failed.kind == stage_pb2.FAILURE_KIND_REFUSED for failed in told
        ):
            assert grant not in self.accepted
            self.accepted[grant] = attempt

    @precondition(lambda self: self.offered())
    @rule(data=st.data(), job=JOBS, attempt=ATTEMPTS, nbytes=st.integers(0, 5000))
    def a_message_wants_in(self, data: st.DataObject, job: str, attempt: int, nbytes: int) -> None:
        grant = data.draw(st.sampled_from([*self.offered(), "nonsense"]))
        header = self.rig.header(job, grant, attempt, nbytes)
        try:
            offset = self.machine.admit(header, self.rig.now)
        except RefusedError:
            return
        assert not self.first
        assert grant not in self.filling
        assert offset not in [at for _, at in self.filling.values()]
        assert self.first or offset not in [run.offset for run in self.runs]
        self.filling[grant] = (header, offset)

    @precondition(lambda self: self.filling)
    @rule(data=st.data(), arrives=st.booleans())
    def a_message_ends(self, data: st.DataObject, arrives: bool) -> None:
        grant = data.draw(st.sampled_from(sorted(self.filling)))
        header, _ = self.filling.pop(grant)
        if arrives:
            self.do(self.machine.delivered(header, 0.1, self.rig.now))
        else:
            self.do(self.machine.dropped(header, self.rig.now))

    @precondition(lambda self: self.engine == "loading")
    @rule(works=st.booleans(), version=st.sampled_from(["v1", "v2"]))
    def the_engine_loads(self, works: bool, version: str) -> None:
        if works:
            self.engine = "loaded"
            self.do(self.machine.engine_loaded(EngineInfo(version=version), self.rig.now))
        else:
            self.engine = "ending"
            self.do(self.machine.engine_load_failed("damaged", self.rig.now))

    @precondition(lambda self: self.engine != "absent")
    @rule()
    def the_engine_dies(self) -> None:
        self.engine, self.runs, self.asked, self.spaces = "absent", [], None, []
        self.do(self.machine.engine_lost("died", self.rig.now))

    @precondition(lambda self: self.run is not None and self.asked is None)
    @rule(nbytes=st.integers(0, 1100), crossed=st.booleans())
    def the_engine_needs_space(self, nbytes: int, crossed: bool) -> None:
        assert self.run is not None
        self.asked = nbytes
        # Where it has enough already it asks only if that is still on its way.
        if self.space is None or crossed:
            self.do(self.machine.engine_needs_space(self.run.run_id, nbytes, self.rig.now))

    @precondition(lambda self: self.run is not None and self.space is not None)
    @rule()
    def the_engine_finishes(self) -> None:
        nbytes = self.asked or 0
        assert self.space is not None
        self.check_space(self.space, nbytes)
        run_id = self.end_run()
        self.do(self.machine.engine_finished(run_id, Product(nbytes), self.rig.now))

    @precondition(lambda self: len(self.runs) == 2)
    @rule()
    def the_engine_gives_up_what_it_has_not_begun(self) -> None:
        run_id = self.runs.pop().run_id
        kind = stage_pb2.FAILURE_KIND_CANCELLED
        self.do(self.machine.engine_failed(run_id, kind, "cancelled", self.rig.now))

    @precondition(lambda self: self.run is not None)
    @rule(ends=st.booleans())
    def the_engine_fails(self, ends: bool) -> None:
        run_id = self.end_run()
        self.engine = "ending" if ends else self.engine
        kind = stage_pb2.FAILURE_KIND_INTERNAL
        now = self.rig.now
        self.do(self.machine.engine_failed(run_id, kind, "", now, ends_engine=ends))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), job=JOBS, attempt=ATTEMPTS)
    def send(self, data: st.DataObject, job: str, attempt: int) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        key = self.rig.key(job, attempt).to_message()
        request = stage_pb2.SendOutput(output=key, attempt=attempt, grant_id="x")
        self.do(self.machine.send_output(session, request, self.rig.now))

    @precondition(lambda self: self.sends)
    @rule(works=st.booleans())
    def a_send_ends(self, works: bool) -> None:
        number = self.sends.pop(0)
        if works:
            self.do(self.machine.sent(number, 0.1, "tcp", self.rig.now))
        else:
            self.do(self.machine.send_failed(number, "lost", self.rig.now))

    @rule(job=JOBS, attempt=ATTEMPTS)
    def pin(self, job: str, attempt: int) -> None:
        held = self.machine.pin(self.rig.key(job, attempt), self.rig.now)
        if held is not None:
            self.pins.append(held)

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        self.do(self.machine.unpin(self.pins.pop(), self.rig.now))

    @rule(job=JOBS, attempt=ATTEMPTS)
    def cancel(self, job: str, attempt: int) -> None:
        self.do(self.machine.cancel(job, attempt, self.rig.now))

    @rule(job=JOBS, attempt=ATTEMPTS, stage=st.integers(0, 3))
    def release(self, job: str, attempt: int, stage: int) -> None:
        self.do(self.machine.release(job, stage, attempt, self.rig.now))

    @rule(seconds=st.floats(0.01, 20))
    def time_passes(self, seconds: float) -> None:
        self.rig.now += seconds
        self.do(self.machine.tick(self.rig.now))
        wakeup = self.machine.next_wakeup()
        assert wakeup is None or wakeup > self.rig.now, "what is due has been done"

    @rule(rarely=st.integers(0, 19))
    def end_of_service(self, rarely: int) -> None:
        if rarely == 0:
            self.do(self.machine.drain(self.rig.now))
        elif rarely == 1:
            self.do(self.machine.quarantine("", self.rig.now))

    @invariant()
    def slots_add_up(self) -> None:
        if hasattr(self, "machine"):
            assert self.machine.slots.free + len(self.machine.slots) == 2
            assert sum(self.machine.slots.counts().values()) == 2

    @invariant()
    def grants_are_told(self) -> None:
        if hasattr(self, "machine"):
            for session in self.machine.gateways.sessions:
                offered = {slot.grant_id for slot in self.machine.slots.offered(session)}
                assert offered <= set(self.rig.grants(session))

    @invariant()
    def answers_come_once(self) -> None:
        if hasattr(self, "machine"):
            assert all(count == 1 for count in self.ended.values())
            assert set(self.ended) <= set(self.accepted) | self.offered_ever()

    def offered_ever(self) -> set[str]:
        return {grant for session in SESSIONS for grant in self.rig.grants(session)}

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        while self.filling:
            header, _ = self.filling.pop(next(iter(self.filling)))
            self.do(self.machine.dropped(header, self.rig.now))
        if self.engine != "absent":
            self.the_engine_dies()
        for session in sorted(self.sessions):
            self.sessions.discard(session)
            self.do(self.machine.disconnected(session, self.rig.now))
        while self.sends:
            self.a_send_ends(works=True)
        while self.pins:
            self.unpin()
        for job in "abc":
            self.cancel(job, 3)
            self.release(job, 3, 0)
        self.rig.now += 20
        self.do(self.machine.tick(self.rig.now))
        assert self.machine.held.used == 0
        assert not self.machine.held.busy
        assert len(self.machine.slots) == 0
        assert set(self.accepted) == set(self.ended)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_keys_survive_the_wire() -> None:
    key = OutputKey("job", 2, 3)
    again: Any = OutputKey.of(key.to_message())
    assert again == key
