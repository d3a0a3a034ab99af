"""How many replicas there are, and who decides it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion_operator.api.base import (
    SET,
    Free,
    Matches,
    ObjectName,
    Part,
    Quantity,
    Rule,
    SecretKey,
    Url,
)

_Window = Annotated[int, Field(ge=0, le=3600)]
_ClockTime = Annotated[
    str,
    Field(max_length=5),
    Matches(r"^([01]\d|2[0-3]):[0-5]\d$", "expected a time of day, such as 08:00"),
]
_Matcher = Annotated[
    str,
    Field(max_length=512),
    Matches(
        r'^[a-zA-Z_][a-zA-Z0-9_]*(=|!=|=~|!~)"([^"\\]|\\.)*"$',
        'expected a label matcher, such as cluster="prod"',
    ),
]
_Bound = Annotated[int, Field(ge=0, le=10_000)]


_SHARE = Rule(
    "quantity(string(self.tolerance)).isLessThan(quantity('1'))",
    "tolerance is a share, less than 1",
    ".tolerance",
)


class RatePolicy(Part):
    """The most that may change within a period, as of a HorizontalPodAutoscaler.

    Attributes:
        type: Whether `value` is a number of pods or a percentage of them.
        value: How many.
        period_seconds: Within how long.
    """

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=1)]
    period_seconds: Annotated[int, Field(ge=1, le=1800)]


class Direction(Part):
    """Rules for one direction, as of a HorizontalPodAutoscaler.

    Attributes:
        stabilization_window_seconds: For so long the most careful recommendation holds.
        policies: Rates; the autoscaler's defaults where empty.
        select_policy: Which of several rates applies; Disabled: no change this way.
        tolerance: Share by which usage may differ from its target without any change.
    """

    RULES: ClassVar = (_SHARE,)

    stabilization_window_seconds: _Window | None = None
    policies: Annotated[tuple[RatePolicy, ...], Field(max_length=8)] = ()
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: Quantity = "0.1"


class Behavior(Part):
    """Rules for both directions.

    Attributes:
        scale_up: For more replicas.
        scale_down: For fewer.
    """

    scale_up: Direction = Field(default_factory=Direction)
    scale_down: Direction = Field(default_factory=Direction)


class ConfigMapKey(Part):
    """One value of a ConfigMap in the pipeline's namespace.

    Attributes:
        name: Of the ConfigMap.
        key: Of the value.
    """

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253)] = "profile.yaml"


class ProfileSource(Part):
    """What stages cost on which pool: exactly one source.

    Attributes:
        inline: The profile itself; its fields are in the reference of profiles.
        config_map: A ConfigMap that holds it.
    """

    RULES: ClassVar = (
        Rule(
            "has(self.inline) != has(self.configMap)",
            "expected exactly one of inline and configMap",
        ),
    )

    inline: Free | None = None
    config_map: ConfigMapKey | None = None


class Prometheus(Part):
    """A Prometheus, or what speaks its HTTP API.

    Attributes:
        url: Its address; the operator's own setting where not given.
        bearer_token_secret: Sent with every question.
        matchers: Further label matchers, such as `cluster="prod"`.
        window_seconds: Over which rates are taken: at least four scrape intervals.
    """

    url: Url | None = None
    bearer_token_secret: SecretKey | None = None
    matchers: Annotated[tuple[_Matcher, ...], Field(max_length=8)] = ()
    window_seconds: Annotated[int, Field(ge=4, le=3600)] = 60


class ScheduledBounds(Part):
    """Bounds that hold at certain hours of certain days.

    Attributes:
        days: On which they begin; every day where empty.
        begin: Time of day, such as 08:00.
        end: Time of day; of the next one where it is before `begin`.
        time_zone: As the tz database calls it.
        min_replicas: By stage, in the place of the stage's own.
        max_replicas: By stage, in the place of the stage's own.
        budget: In the place of the pipeline's.
    """

    RULES: ClassVar = (
        Rule("self.begin != self.end", "begin and end must differ", ".end"),
        Rule(
            "(!has(self.minReplicas) || self.minReplicas.all(stage, stage in ['encoder', 'dit',"
            " 'decoder'])) && (!has(self.maxReplicas) || self.maxReplicas.all(stage, stage in"
            " ['encoder', 'dit', 'decoder']))",
            "expected stages as keys of minReplicas and maxReplicas, encoder, dit or decoder",
        ),
    )

    days: Annotated[
        tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...],
        Field(max_length=7),
        SET,
    ] = ()
    begin: _ClockTime
    end: _ClockTime
    time_zone: Annotated[str, Field(min_length=1, max_length=63)] = "UTC"
    min_replicas: Annotated[dict[str, _Bound], Field(max_length=3)] = Field(default_factory=dict)
    max_replicas: Annotated[dict[str, _Bound], Field(max_length=3)] = Field(default_factory=dict)
    budget: Annotated[int, Field(ge=1)] | None = None


class ScaleToZero(Part):
    """All stages leave together where there is no work, and return together.

    Attributes:
        after_seconds: Without work.
    """

    after_seconds: Annotated[int, Field(ge=1, le=86_400)] = 900


class Scaling(Part):
    """How many replicas there are.

    Attributes:
        mode: Auto: the operator keeps the ratio. Recommend: it says what it would do. Off: nothing
            but the stages' minReplicas; whoever scales a Deployment is let alone.
        paused: Nothing changes for the moment, whatever the load.
        budget: Accelerators in use at most; all that the pools have where not given.
        objective: Throughput uses the whole budget; Cost, what the load needs of it.
        headroom: With Cost: share on top of the load.
        behavior: With Cost: how fast stages grow and shrink.
        tolerance: Share by which the outlook must improve before anything changes.
        period_seconds: Between two decisions.
        profile: What stages cost; learned from the jobs where not given.
        prometheus: Where load is read.
        schedule: Bounds at certain hours.
        scale_to_zero: Whether and when all stages leave.
        priority: Where pipelines share a pool, the higher one is served first.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.scaleToZero) || self.mode == 'Auto'",
            "scaleToZero needs mode Auto: nobody else would wake the pipeline",
            ".scaleToZero",
        ),
        _SHARE,
        Rule(
            "has(self.scaleToZero) || !has(self.schedule) || self.schedule.all(one,"
            " (!has(one.minReplicas) || one.minReplicas.all(stage, one.minReplicas[stage] > 0)) &&"
            " (!has(one.maxReplicas) || one.maxReplicas.all(stage, one.maxReplicas[stage] > 0)))",
            "bounds in the schedule may be 0 only with scaleToZero",
            ".schedule",
        ),
        Rule(
            # An unknown one is an error of the expression, whose text the API server passes on. It
            # forgives no errors in what does not change, as it does what is false.
            "!has(self.schedule) || oldSelf.hasValue() && has(oldSelf.value().schedule) &&"
            " oldSelf.value().schedule == self.schedule || self.schedule.all(one,"
            " one.timeZone.matches(r'^[A-Za-z][A-Za-z0-9_+/-]*$') && one.timeZone != 'Local' &&"
            " timestamp('2000-01-01T00:00:00Z').getHours(one.timeZone) >= 0)",
            "expected time zones as the tz database calls them, such as Europe/Berlin",
            ".schedule",
        ),
    )

    mode: Literal["Auto", "Recommend", "Off"] = "Auto"
    paused: bool = False
    budget: Annotated[int, Field(ge=1)] | None = None
    objective: Literal["Throughput", "Cost"] = "Throughput"
    headroom: Quantity = "0.2"
    behavior: Behavior = Field(default_factory=Behavior)
    tolerance: Quantity = "0.02"
    period_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    profile: ProfileSource | None = None
    prometheus: Prometheus = Field(default_factory=Prometheus)
    schedule: Annotated[tuple[ScheduledBounds, ...], Field(max_length=16)] = ()
    scale_to_zero: ScaleToZero | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
