"""Starts, inside of an image, a service; waits until it serves; ends it. Prints JSON.

Usage: start.py MODULE SECONDS
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

READY = Path("/tmp/ready.json")


def serving(address: str) -> bool:
    """Return whether a server says of itself that it serves."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def wait_until_serving(process: subprocess.Popen[bytes], end: float) -> bool:
    """Return whether a process serves before the end of the time."""
    while time.monotonic() < end and process.poll() is None:
        if READY.exists() and serving(json.loads(READY.read_text())["address"]):
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    """Run from the command line."""
    module, seconds = sys.argv[1], float(sys.argv[2])
    started = time.monotonic()
    environment = {**os.environ, "DISAGFUSION_READY_FILE": str(READY)}
    process = subprocess.Popen([sys.executable, "-m", module], env=environment)
    found = wait_until_serving(process, started + seconds)
    taken = time.monotonic() - started
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(60.0)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    print(json.dumps({"serving": found, "seconds": round(taken, 1), "status": status}))


if __name__ == "__main__":
    main()
