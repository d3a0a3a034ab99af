"""What a job will cost on each stage and pool, learned from the jobs that ran.

    worker ── Sample ──► PerformanceTracker ── SampleSnapshot ──► fit (a process of its own)
                              │    ▲                                 │
      dispatch, planner ◄─────┘    └───────── PerformanceModel ◄─────┘

`PerformanceModel` predicts. `PerformanceTracker` keeps samples and corrects the model by the most
recent of them. `fit` makes the next model. `grid` chooses shapes to measure. Only `fit` and `grid`
need numpy and scikit-learn, and only once they are called.
"""

from disagfusion.scheduling.performance.borrow import FactorSource, Loan
from disagfusion.scheduling.performance.documents import FittedPair, ModelDocument
from disagfusion.scheduling.performance.drift import Drift
from disagfusion.scheduling.performance.exchange import FitAnswer, FitRequest, SnapshotDocument
from disagfusion.scheduling.performance.fitting import FitResult, PairResult, Reason, fit
from disagfusion.scheduling.performance.lines import Prediction, Provenance
from disagfusion.scheduling.performance.model import PairSummary, PerformanceModel
from disagfusion.scheduling.performance.samples import (
    Sample,
    SampleSnapshot,
    SampleStore,
    Verdict,
    merge,
)
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.performance.tracker import PerformanceTracker

__all__ = [
    "Drift",
    "FactorSource",
    "FitAnswer",
    "FitRequest",
    "FitResult",
    "FittedPair",
    "Loan",
    "ModelDocument",
    "PairResult",
    "PairSummary",
    "PerformanceModel",
    "PerformanceSettings",
    "PerformanceTracker",
    "Prediction",
    "Provenance",
    "Reason",
    "Sample",
    "SampleSnapshot",
    "SampleStore",
    "SnapshotDocument",
    "Verdict",
    "fit",
    "merge",
]
