"""The embedded runtime: one machine, processes in the place of pods.

with LocalRuntime() as runtime, Client(runtime.address) as client:
    client.generate("a handwritten seven in red").save("seven.png")
"""

from disagfusion.local.balance import Balance
from disagfusion.local.runtime import LocalRuntime, ProcessStatus

__all__ = ["Balance", "LocalRuntime", "ProcessStatus"]
