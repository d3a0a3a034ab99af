"""For tests and benchmarks of whatever uses a transport: faults, slow links, an inbox."""

from disagfusion.transport.testing.faulty import Fault, FaultyTransport
from disagfusion.transport.testing.inbox import MemoryInbox, RecordingObserver, make_message
from disagfusion.transport.testing.shaped import LinkShape, ShapedLink, ShapedTransport

__all__ = [
    "Fault",
    "FaultyTransport",
    "LinkShape",
    "MemoryInbox",
    "RecordingObserver",
    "ShapedLink",
    "ShapedTransport",
    "make_message",
]
