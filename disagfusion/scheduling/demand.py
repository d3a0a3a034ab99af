"""The demand: which jobs a plan is for, and how many of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from disagfusion.scheduling.document import Document, NonNegative, Positive
from disagfusion.scheduling.shapes import WeightedShape


class Demand(Document):
    """What is asked of a plan.

    Attributes:
        shapes: The mix of jobs; one job of the default shape where nothing is said.
        rate: Jobs per second to be met at least cost; without it the plan's throughput is as high
            as it can be.
        headroom: Share of the rate on top of it.
    """

    shapes: Annotated[tuple[WeightedShape, ...], Field(min_length=1)] = (WeightedShape(),)
    rate: Positive | None = None
    headroom: NonNegative = 0.1
