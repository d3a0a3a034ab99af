"""Other autoscalers on the same Deployments: found, and not fought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from disagfusion.scheduling.decision import Place
from disagfusion_operator.k8s.port import BALANCER, OPERATOR, Object
from disagfusion_operator.scaling.flex import together
from disagfusion_operator.scaling.report import Happening

STRIKES = 3
"""So many changes by others within the window are another autoscaler, and not a person."""
WINDOW_SECONDS = 600.0


def scalers(autoscalers: Iterable[Object]) -> dict[str, str]:
    """Return the Deployments that autoscalers act on, with who it is.

    Args:
        autoscalers: HorizontalPodAutoscalers and ScaledObjects of one namespace.
    """
    found: dict[str, str] = {}
    for one in autoscalers:
        spec = one.get("spec", {})
        target = spec.get("scaleTargetRef") or {}
        # A ScaledObject need not name the kind.
        if target.get("kind", "Deployment") == "Deployment" and target.get("name"):
            found.setdefault(target["name"], f"{one.get('kind', '')} {one['metadata']['name']}")
    return found


def owners(deployment: Object) -> list[str]:
    """Return the field managers of a Deployment's replicas, other than the operator's own."""
    return [
        entry.get("manager", "")
        for entry in deployment["metadata"].get("managedFields") or ()
        if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        and entry.get("manager") not in (BALANCER, OPERATOR)
    ]


@dataclass(slots=True)
class Strikes:
    """How often others have changed the replicas of one Deployment of late.

    Attributes:
        times: Unix seconds.
        by: Who did it last.
    """

    times: list[float] = field(default_factory=list)
    by: str = ""

    def strike(self, by: str, now: float) -> None:
        """Take note of a change by somebody else."""
        self.times = [at for at in self.times if now - at < WINDOW_SECONDS] + [now]
        self.by = by

    def conflicting(self, now: float) -> bool:
        """Whether somebody keeps changing them; it is over when nobody did for the window."""
        return sum(now - at < WINDOW_SECONDS for at in self.times) >= STRIKES


class Watch:
    """Looks for others that scale the Deployments of one pipeline."""

    def __init__(self) -> None:
        self._strikes: dict[str, Strikes] = {}

    def look(
        self,
        deployments: Mapping[Place, Object],
        autoscalers: Iterable[Object],
        foreign: Mapping[Place, int],
        now: float,
    ) -> tuple[dict[Place, str], list[Happening]]:
        """Return the places that somebody else scales, and what is new.

        A single change by hand is put right; who changes the same Deployment again and again, or
        is an autoscaler that targets it, is left alone.

        Args:
            deployments: By place.
            autoscalers: Of the namespace.
            foreign: Places whose replicas others have changed since the last look.
            now: Unix seconds.
        """
        news = []
        for place, replicas in foreign.items():
            by = ", ".join(owners(deployments[place])) or "somebody"
            name = deployments[place]["metadata"]["name"]
            self._strikes.setdefault(name, Strikes()).strike(by, now)
            message = f"{_called(together(deployments)[name])}: {by} asked for {replicas}"
            news.append(Happening("ReplicasChanged", message, "Scale", warning=True))
        acting = scalers(autoscalers)
        found: dict[Place, str] = {}
        for name, places in together(deployments).items():
            strikes = self._strikes.get(name)
            if (who := acting.get(name)) is None:
                if strikes is None or not strikes.conflicting(now):
                    continue
                who = strikes.by
            found.update(dict.fromkeys(places, who))
        return found, news


def _called(places: Sequence[Place]) -> str:
    return f"{' and '.join(place.stage for place in places)} on {places[0].pool}"
