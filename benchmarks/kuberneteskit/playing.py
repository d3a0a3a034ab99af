"""What pipelines would tell Prometheus whose pods kwok plays: some load, always the same."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_BUSY = 0.5


def metrics(
    pipelines: Sequence[str],
    stages: Mapping[str, int],
    pool: str,
    seconds: Mapping[str, float],
    at: float,
) -> str:
    """Return the series of pipelines that work half of their time.

    Each replica has an `instance` of its own, as if it had been scraped by itself.

    Args:
        pipelines: Their names.
        stages: Stage → replicas.
        pool: That all are said to be in.
        seconds: Stage → seconds of a job.
        at: Seconds since they began.
    """
    lines = []
    for name in pipelines:
        whole = f'pipeline="{name}",instance="{name}"'
        rate = min(_BUSY * count / seconds[stage] for stage, count in stages.items())
        lines += [
            f"disagfusion_gateway_queue_jobs{{{whole}}} 0",
            f"disagfusion_jobs_accepted_total{{{whole}}} {rate * at:.3f}",
        ]
        for stage, count in stages.items():
            of = f'{whole},stage="{stage}"'
            lines += [
                f'disagfusion_stage_jobs{{{of},status="waiting"}} 0',
                f'disagfusion_stage_jobs{{{of},status="transferring"}} 0',
                f'disagfusion_stage_jobs{{{of},status="running"}} 1',
                f'disagfusion_backlog_work_seconds{{{of},pool="{pool}"}} 0',
            ]
            for state in ("ready", "loading", "draining", "quarantined"):
                workers = count if state == "ready" else 0
                lines.append(f'disagfusion_workers{{{of},pool="{pool}",state="{state}"}} {workers}')
            busy = rate * seconds[stage] / count
            for number in range(count):
                own = f'pipeline="{name}",stage="{stage}",instance="{name}-{stage}-{number}"'
                shares = {"busy": busy, "starved": 1.0 - busy, "blocked": 0.0}
                for state, share in shares.items():
                    spent = f'{own},state="{state}"'
                    lines.append(
                        f"disagfusion_accelerator_seconds_total{{{spent}}} {share * at:.3f}"
                    )
                lines += [
                    f"disagfusion_compute_seconds_count{{{own}}} {rate / count * at:.3f}",
                    f"disagfusion_compute_seconds_sum{{{own}}} {busy * at:.3f}",
                ]
    return "\n".join(lines) + "\n"


@contextmanager
def exporter(
    pipelines: Sequence[str], stages: Mapping[str, int], pool: str, seconds: Mapping[str, float]
) -> Iterator[str]:
    """Serve these series on loopback; return where, as a target of Prometheus."""
    begin = time.monotonic()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics(pipelines, stages, pool, seconds, time.monotonic() - begin).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
