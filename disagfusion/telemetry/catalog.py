"""Every metric that DisagFusion exports: name, kind, labels and meaning.

Names have the prefix `disagfusion_` and base units; a counter ends in `_total`. No label ever
carries a request id. `docs/metrics.md` is generated from this module.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """A Prometheus metric type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is exported under one name.

    Attributes:
        name: As scraped, with the suffix `_total` of counters.
        kind: The Prometheus type.
        help: One line for people.
        labels: Label names in order.
        buckets: Upper bounds of a histogram's buckets, in the metric's unit.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


PIPELINE = ("pipeline",)
STAGE = ("pipeline", "stage")
WORKER = ("pipeline", "stage", "pool")

# A stage takes from a millisecond (a cached prompt) to minutes (a video).
_COMPUTE_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0),
)
_COMMIT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_DISPATCH_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.01, 0.1, 1.0)

# Gateway.
JOBS_ACCEPTED = Metric(
    "disagfusion_jobs_accepted_total",
    Kind.COUNTER,
    "Jobs that were accepted; a repeated submission of one counts once.",
    PIPELINE,
)
JOBS = Metric(
    "disagfusion_jobs_total",
    Kind.COUNTER,
    "Jobs that ended, by outcome: succeeded, failed, cancelled or expired.",
    (*PIPELINE, "outcome"),
)
JOBS_REFUSED = Metric(
    "disagfusion_jobs_refused_total",
    Kind.COUNTER,
    "Submissions that were not accepted, by the reason of the error.",
    (*PIPELINE, "reason"),
)
JOB_SECONDS = Metric(
    "disagfusion_job_seconds",
    Kind.HISTOGRAM,
    "Seconds from the acceptance of a job to its end, by outcome.",
    (*PIPELINE, "outcome"),
    _COMPUTE_BUCKETS,
)
JOB_RETRIES = Metric(
    "disagfusion_job_retries_total",
    Kind.COUNTER,
    "Stages that had to be done again or elsewhere, by reason.",
    (*STAGE, "reason"),
)
GATEWAY_QUEUE = Metric(
    "disagfusion_gateway_queue_jobs",
    Kind.GAUGE,
    "Accepted jobs that no stage has been given yet.",
    PIPELINE,
)
STAGE_JOBS = Metric(
    "disagfusion_stage_jobs",
    Kind.GAUGE,
    "Unfinished jobs by the stage they are in and its status: waiting, transferring or running.",
    (*STAGE, "status"),
)
WORKERS = Metric(
    "disagfusion_workers",
    Kind.GAUGE,
    "Stage services that the gateway is connected to, by state.",
    (*WORKER, "state"),
)
BACKLOG_WORK = Metric(
    "disagfusion_backlog_work_seconds",
    Kind.GAUGE,
    "Predicted seconds of work that all unfinished jobs have left, later stages included; without "
    "a pool where the stage has no workers.",
    WORKER,
)
STALE_RESULTS = Metric(
    "disagfusion_stale_results_total",
    Kind.COUNTER,
    "Messages of workers that were refused because they belong to a superseded attempt.",
    STAGE,
)
STORE_COMMIT_SECONDS = Metric(
    "disagfusion_store_commit_seconds",
    Kind.HISTOGRAM,
    "Seconds that one transaction of the job store took, until it was durable.",
    PIPELINE,
    _COMMIT_BUCKETS,
)
DISPATCH_SECONDS = Metric(
    "disagfusion_dispatch_seconds",
    Kind.HISTOGRAM,
    "Seconds that one decision of the dispatcher took.",
    PIPELINE,
    _DISPATCH_BUCKETS,
)
RESULT_BYTES = Metric(
    "disagfusion_result_bytes",
    Kind.GAUGE,
    "Bytes of encoded results in the result store.",
    PIPELINE,
)

# Fronts.
STAGE_QUEUE = Metric(
    "disagfusion_stage_queue_jobs",
    Kind.GAUGE,
    "Assignments that a stage service has and does not compute yet.",
    WORKER,
)
ACCELERATOR_SECONDS = Metric(
    "disagfusion_accelerator_seconds_total",
    Kind.COUNTER,
    "Seconds of the accelerator by what it did: busy computing, starved of input, blocked by a "
    "full held store, or loading the model.",
    (*WORKER, "state"),
)
COMPUTE_SECONDS = Metric(
    "disagfusion_compute_seconds",
    Kind.HISTOGRAM,
    "Seconds that the engine computed for one assignment.",
    WORKER,
    _COMPUTE_BUCKETS,
)
STAGE_FAILURES = Metric(
    "disagfusion_stage_failures_total",
    Kind.COUNTER,
    "Assignments that did not succeed, by kind of failure.",
    (*WORKER, "kind"),
)
TRANSFERS = Metric(
    "disagfusion_transfers_total",
    Kind.COUNTER,
    "Hand-overs of tensors between stage services, by outcome: done, refused or lost.",
    (*WORKER, "transport", "direction", "outcome"),
)
TRANSFER_BYTES = Metric(
    "disagfusion_transfer_bytes_total",
    Kind.COUNTER,
    "Tensor bytes that were handed over on the data plane, by transport and direction.",
    (*WORKER, "transport", "direction"),
)
TRANSFER_SECONDS = Metric(
    "disagfusion_transfer_seconds_total",
    Kind.COUNTER,
    "Seconds that hand-overs took, until the receiver acknowledged them.",
    (*WORKER, "transport", "direction"),
)
CHECKSUM_FAILURES = Metric(
    "disagfusion_checksum_failures_total",
    Kind.COUNTER,
    "Tensors that arrived with another content than was sent, and were refused.",
    WORKER,
)
EXPOSED_TRANSFER_SECONDS = Metric(
    "disagfusion_exposed_transfer_seconds_total",
    Kind.COUNTER,
    "Seconds in which inputs (received) or outputs (sent) were on their way and the engine stood"
    " still for want of an input, or of room for an output.",
    (*WORKER, "direction"),
)
HIDDEN_TRANSFER_SECONDS = Metric(
    "disagfusion_hidden_transfer_seconds_total",
    Kind.COUNTER,
    "Seconds in which inputs (received) or outputs (sent) were on their way and the engine did not"
    " wait for them.",
    (*WORKER, "direction"),
)
SLOTS = Metric(
    "disagfusion_slots",
    Kind.GAUGE,
    "Input slots by state: free, granted, filling, filled or computing.",
    (*WORKER, "state"),
)
HELD_BYTES = Metric(
    "disagfusion_held_bytes",
    Kind.GAUGE,
    "Bytes of finished outputs that are held until the next stage's output is safe.",
    WORKER,
)
HELD_OUTPUTS = Metric(
    "disagfusion_held_outputs",
    Kind.GAUGE,
    "Finished outputs that are held until the next stage's output is safe.",
    WORKER,
)
ENGINE_RESTARTS = Metric(
    "disagfusion_engine_restarts_total",
    Kind.COUNTER,
    "Engines that were started again after one had ended, by reason.",
    (*WORKER, "reason"),
)
PROMPT_CACHE = Metric(
    "disagfusion_prompt_cache_requests_total",
    Kind.COUNTER,
    "Look-ups in the encoder's cache of prompt embeddings, by result: hit or miss.",
    (*WORKER, "result"),
)
STARTUP_TIMESTAMP = Metric(
    "disagfusion_stage_startup_timestamp_seconds",
    Kind.GAUGE,
    "Unix time of each step of a stage service's start: the weights were fetched, the process "
    "started, listening, the model loaded for the first time (loaded), work taken for the first "
    "time (ready).",
    (*WORKER, "step"),
)

# Whoever runs the balancer.
BALANCER_DECISIONS = Metric(
    "disagfusion_balancer_decisions_total",
    Kind.COUNTER,
    "Decisions of the balancer, those that change nothing included, by reason.",
    (*PIPELINE, "reason"),
)
DESIRED_REPLICAS = Metric(
    "disagfusion_desired_replicas",
    Kind.GAUGE,
    "Replicas that the balancer wants.",
    WORKER,
)
REPLICAS = Metric(
    "disagfusion_replicas",
    Kind.GAUGE,
    "Replicas as the balancer sees them: ready, starting, waiting for room to start, draining.",
    (*WORKER, "state"),
)
MODEL_VERSION = Metric(
    "disagfusion_model_version",
    Kind.GAUGE,
    "Version of the performance model's coefficients in use; 0: predictions rest on the profile.",
    WORKER,
)
MODEL_SAMPLES = Metric(
    "disagfusion_model_samples",
    Kind.GAUGE,
    "Samples at hand for the next fit of the performance model.",
    WORKER,
)
MODEL_ERROR = Metric(
    "disagfusion_model_error_ratio",
    Kind.GAUGE,
    "Median relative error of the fit in use on samples that it had not seen; absent without one.",
    WORKER,
)
MODEL_CORRECTION = Metric(
    "disagfusion_model_correction_ratio",
    Kind.GAUGE,
    "Factor on the performance model's predictions, from the most recent jobs.",
    WORKER,
)
POOL_ACCELERATORS = Metric(
    "disagfusion_pool_accelerators",
    Kind.GAUGE,
    "Accelerators of a pool: those that the budget allows (usable), and of these the ones that "
    "replicas hold (held).",
    (*PIPELINE, "pool", "state"),
)

BALANCER_PARAMETER = Metric(
    "disagfusion_balancer_parameter",
    Kind.GAUGE,
    "Parameters of the balancer that calibration may change, as they are in use; seconds or "
    "shares, by name.",
    (*PIPELINE, "parameter"),
)
BALANCER_CALIBRATIONS = Metric(
    "disagfusion_balancer_calibrations_total",
    Kind.COUNTER,
    "Calibrations of the balancer's parameters, by result: adopted, kept (nothing was clearly "
    "better) or failed.",
    (*PIPELINE, "result"),
)
BALANCER_CALIBRATION_GAIN = Metric(
    "disagfusion_balancer_calibration_gain_ratio",
    Kind.GAUGE,
    "Share by which the parameters that were adopted last were better when the recent jobs were "
    "replayed; 0 before.",
    PIPELINE,
)
BALANCER_HELD = Metric(
    "disagfusion_balancer_held",
    Kind.GAUGE,
    "Whether a person holds the ratio: 1 or 0.",
    PIPELINE,
)

# The operator.
OPERATOR_RECONCILE_SECONDS = Metric(
    "disagfusion_operator_reconcile_seconds",
    Kind.HISTOGRAM,
    "Seconds that one look at a pipeline took, with all that was done about it.",
    (),
    _RECONCILE_BUCKETS,
)
OPERATOR_RECONCILE_ERRORS = Metric(
    "disagfusion_operator_reconcile_errors_total",
    Kind.COUNTER,
    "Looks at a pipeline that failed and are tried again.",
    (),
)
OPERATOR_API_CALLS = Metric(
    "disagfusion_operator_api_calls_total",
    Kind.COUNTER,
    "Calls of the API server, watches not included, by verb, resource and HTTP status; status 0: "
    "no answer.",
    ("verb", "resource", "status"),
)
OPERATOR_LEADS = Metric(
    "disagfusion_operator_leads",
    Kind.GAUGE,
    "Whether this operator is the one that acts: 1 or 0.",
    (),
)
OPERATOR_PIPELINES = Metric(
    "disagfusion_operator_pipelines",
    Kind.GAUGE,
    "DiffusionPipelines that there are.",
    (),
)

# Every process with a gRPC server.
GRPC_MESSAGE_BYTES = Metric(
    "disagfusion_grpc_message_bytes_total",
    Kind.COUNTER,
    "Serialized gRPC messages, by method and direction as the server sees it.",
    ("method", "direction"),
)
BUILD_INFO = Metric(
    "disagfusion_build_info",
    Kind.GAUGE,
    "Always 1; the labels tell what runs.",
    ("version", "component"),
)

CATALOG: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
