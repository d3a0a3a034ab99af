"""The PromQL of each signal.

All follow one scheme. Series are first reduced to one for each `instance`, so that a target that is
scraped twice counts once; then they are summed over the instances. A series whose last sample is
older than the staleness limit is left out: a replaced pod's numbers would otherwise count for five
minutes beside its successor's. What is left out or was never there gives no answer, not zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from disagfusion.errors import InvalidArgumentError
from disagfusion.telemetry import catalog

PART = "part"
"""Label that tells the parts of an answer from each other."""

VALUE, LAST, AT = "value", "last", "at"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about.

    Attributes:
        pipeline: Value of the label of that name.
        window: Seconds over which rates are taken: at least four scrape intervals, so that a
            scrape that fails leaves a rate.
        stale: A sample older than these seconds is no longer acted upon.
        matchers: Further label matchers, such as `namespace="prod"`, for a Prometheus that
            several systems share.
    """

    pipeline: str
    window: float = 60.0
    stale: float = 60.0
    matchers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no query can be made of."""
        for field in ("window", "stale"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0.001):
                raise InvalidArgumentError(field, f"{value}", expected="seconds, more than 0")

    def select(self, metric: str, *matchers: str) -> str:
        """Return a selector of the pipeline's series of a metric."""
        # PromQL's strings are escaped as JSON's are, but for the slash.
        pipeline = f"pipeline={json.dumps(self.pipeline, ensure_ascii=False)}"
        return f"{metric}{{{', '.join((pipeline, *self.matchers, *matchers))}}}"

    @property
    def range(self) -> str:
        """The window as PromQL writes it."""
        return f"[{round(self.window * 1e3)}ms]"


@dataclass(frozen=True, slots=True)
class Query:
    """One signal.

    Attributes:
        name: Of the signal.
        meaning: One sentence.
        by: Labels of the answer.
        metric: What tells when it was measured.
        matchers: Of the series.
        rated: Whether the value is a rate over the window.
        total: How instances are taken together: "sum", or "max" where each tells all.
    """

    name: str
    meaning: str
    by: tuple[str, ...]
    metric: str
    matchers: tuple[str, ...] = ()
    rated: bool = False
    total: str = "sum"

    def promql(self, scope: Scope, *, fresh: bool = True) -> str:
        """Return the query.

        Args:
            scope: What is asked about.
            fresh: Whether series that are too old are left out.
        """
        return self._total(self.metric, self.by, scope, fresh)

    def time(self, scope: Scope) -> str:
        """Return the query for when the newest sample behind each value was taken."""
        selector = scope.select(_series(self.metric), *self.matchers)
        return f"max by ({', '.join(self.by)}) (timestamp({selector}))"

    def request(self, scope: Scope) -> str:
        """Return one query for the value, the value with old series, and their time."""
        parts = {
            VALUE: self.promql(scope),
            LAST: self.promql(scope, fresh=False),
            AT: self.time(scope),
        }
        return " or ".join(
            f'label_replace({query}, "{PART}", "{part}", "", "")' for part, query in parts.items()
        )

    def _total(self, metric: str, by: Sequence[str], scope: Scope, fresh: bool) -> str:
        each = self._each(metric, scope, fresh)
        grouped = ", ".join(by)
        return f"{self.total} by ({grouped}) (max by ({_with_instance(by)}) ({each}))"

    def _each(self, metric: str, scope: Scope, fresh: bool) -> str:
        selector = scope.select(_series(metric), *self.matchers)
        value = f"rate({scope.select(metric, *self.matchers)}{scope.range})"
        value = value if self.rated else selector
        if not fresh:
            return value
        return f"({value} and (timestamp({selector}) > time() - {scope.stale:g}))"


class ShareQuery(Query):
    """Each value's part of the sum over one of its labels, which is `by`'s last."""

    def promql(self, scope: Scope, *, fresh: bool = True) -> str:
        """See `Query`; without anything to share there is no answer."""
        part = self._total(self.metric, self.by, scope, fresh)
        others = ", ".join(self.by[:-1])
        return f"{part} / on ({others}) group_left () (sum by ({others}) ({part}) > 0)"


class MeanQuery(Query):
    """The mean of a histogram; where nothing was observed there is no answer."""

    def promql(self, scope: Scope, *, fresh: bool = True) -> str:
        """See `Query`."""
        observed = self._total(f"{self.metric}_sum", self.by, scope, fresh)
        count = self._total(f"{self.metric}_count", self.by, scope, fresh)
        return f"{observed} / ({count} > 0)"


class ReportingQuery(Query):
    """How many instances have told what they did; one that changed its stage counts once."""

    def promql(self, scope: Scope, *, fresh: bool = True) -> str:
        """See `Query`."""
        each = self._each(self.metric, scope, fresh)
        per = f"sum by ({_with_instance(self.by)}) ({each})"
        return f"count by ({', '.join(self.by)}) ({per} > 0)"


def _with_instance(by: Sequence[str]) -> str:
    return ", ".join((*by, "instance"))


def _series(metric: str) -> str:
    """Return the name of series that a metric has, which a histogram has not under its own."""
    return f"{metric}_count" if metric == catalog.COMPUTE_SECONDS.name else metric


REPLICAS = Query(
    "replicas",
    "Workers by stage, pool and state, as the gateways see them.",
    ("stage", "pool", "state"),
    catalog.WORKERS.name,
    total="max",
)
QUEUED = Query(
    "queued", "Accepted jobs that no stage has been given.", (), catalog.GATEWAY_QUEUE.name
)
JOBS = Query(
    "jobs",
    "Unfinished jobs by the stage they are in, and whether they wait for it or run.",
    ("stage", "status"),
    catalog.STAGE_JOBS.name,
)
ARRIVALS = Query(
    "arrivals", "Jobs accepted per second.", (), catalog.JOBS_ACCEPTED.name, rated=True
)
SHARES = ShareQuery(
    "shares",
    "Shares of the time of the replicas that had loaded: busy, starved, blocked.",
    ("stage", "state"),
    catalog.ACCELERATOR_SECONDS.name,
    ('state=~"busy|starved|blocked"',),
    rated=True,
)
COMPLETED = Query(
    "completed",
    "Assignments that engines finished per second.",
    ("stage",),
    f"{catalog.COMPUTE_SECONDS.name}_count",
    rated=True,
)
SECONDS = MeanQuery(
    "seconds", "Mean seconds of those.", ("stage",), catalog.COMPUTE_SECONDS.name, rated=True
)
REPORTING = ReportingQuery(
    "reporting",
    "Replicas that have told what they did.",
    ("stage",),
    catalog.ACCELERATOR_SECONDS.name,
    rated=True,
)
BACKLOG = Query(
    "backlog",
    "Seconds of work that unfinished jobs have left, by stage and pool.",
    ("stage", "pool"),
    catalog.BACKLOG_WORK.name,
)

QUERIES: tuple[Query, ...] = (
    *(REPLICAS, QUEUED, JOBS, ARRIVALS, SHARES, COMPLETED, SECONDS, REPORTING, BACKLOG),
)
