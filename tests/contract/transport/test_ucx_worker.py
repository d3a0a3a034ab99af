"""UCX's workers themselves, two in one process, moved by hand."""

from __future__ import annotations

import pytest

from disagfusion.transport.backends.ucx_native import library
from disagfusion.transport.backends.ucx_transfer import Receiving, Sending
from disagfusion.transport.backends.ucx_worker import UcxWorker

OPTIONS = {
    "shared memory": {"TLS": "posix,self", "POSIX_ERROR_HANDLING": "y", "RNDV_THRESH": "inf"},
    "network": {"TLS": "^shm"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("wanted", [False, True], ids=["nobody waits for", "is waited for"])
def test_a_message_whose_sender_goes_half_way(options: dict[str, str], wanted: bool) -> None:
    """Both workers end at once: left to ucxx, the receiver's would wait for the rest for ever."""
    context = library().UCXContext(options)
    sender, receiver = UcxWorker(context), UcxWorker(context)
    sender.connect(receiver.address)
    receiver.connect(sender.address)
    payload = memoryview(bytearray(20_000_000))
    done: list[tuple[int, ...]] = []
    sender.begin(Sending([payload], lambda view: 0, done.append, done.append), 1)
    if wanted:
        place = memoryview(bytearray(20_000_000))
        receiver.begin(Receiving([place], lambda view: 0, done.append, done.append), 1)
    for _ in range(5):
        sender.advance()
    receiver.advance()
    assert sender.busy
    for worker in (sender, receiver):
        while not worker.close():
            pass
    assert str(receiver.error) == "the worker is closed"
