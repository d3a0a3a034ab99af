"""For tests of whatever uses a transport: a faulty one, and an inbox that keeps what it gets."""

from disagfusion.transport.testing.faulty import Fault, FaultyTransport
from disagfusion.transport.testing.inbox import MemoryInbox, RecordingObserver, make_message

__all__ = ["Fault", "FaultyTransport", "MemoryInbox", "RecordingObserver", "make_message"]
