"""The ways to a pipeline's gateways: whose key is known, who can be asked, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from disagfusion.errors import (
    AbortedError,
    DisagfusionError,
    UnauthenticatedError,
    UnavailableError,
)
from disagfusion.rpc.tls import TlsSettings
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.reconcile.gateways import Fleet, Gateways, ask_all
from disagfusion_operator.reconcile.leaving import Leaving, leave
from disagfusion_operator.reconcile.observe import Observed, is_prepared
from disagfusion_operator.reconcile.outcome import Outcome, failed
from disagfusion_operator.reconcile.tokens import Tokens
from disagfusion_operator.scaling.gateways import Door
from disagfusion_operator.scaling.view import Key

_REASONS_SECONDS = 5.0
"""For so long what gateways say of workers that are not ready is taken for what they say now."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ways:
    """To gateways that are ready, and to stages.

    Attributes:
        doors: Of gateways.
        tls: What stages know the operator by as well.
        outcomes: What keeps the operator from any of them.
    """

    doors: tuple[Door, ...] = ()
    tls: TlsSettings | None = None
    outcomes: tuple[Outcome, ...] = ()


class Doors:
    """Finds and asks gateways.

    Args:
        gateways: How they are talked to.
        tokens: The keys of their internal ports.
        port: At which they are asked.
        now: Unix seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        gateways: Gateways,
        tokens: Tokens,
        port: int,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._gateways = gateways
        self._tokens = tokens
        self._port = port
        self._now = now
        self._clock = clock
        self._reasons: dict[Key, tuple[float, Fleet | None]] = {}

    async def find(self, key: Key, inputs: Inputs, observed: Observed) -> Ways:
        """Return the ways that there are; afterwards the Secret that gateways need is there.

        Raises:
            UnavailableError: The API server is away.
            AbortedError: A Secret has to go first that is there already, and goes.
        """
        # One that waits for its volumes may do so for want of the Secret.
        doubted = not all(map(is_prepared, observed.gateway_pods))
        try:
            token = await self._tokens.key_of(key, inputs, doubted=doubted)
            tls = await self._tokens.certificates(key, inputs)
        except (AbortedError, UnavailableError):
            raise
        except DisagfusionError as error:
            _log.warning("no way to gateways", pipeline=str(key), problem=error.message)
            return Ways(outcomes=(failed("SecretUnavailable", error.message),))
        addresses = (_host(one, self._port) for one in observed.addresses())
        return Ways(tuple(Door(one, token, tls) for one in addresses), tls)

    async def ask(self, key: Key, inputs: Inputs, ways: Ways, observed: Observed) -> Fleet | None:
        """Return what is known of all jobs; None: there may be some that nobody tells of."""
        if not ways.doors or self._unheard(inputs, observed):
            return None
        return await self._fleet(key, ways)

    async def ask_why(self, key: Key, ways: Ways) -> Fleet | None:
        """Return what gateways say of workers that are not ready, a few seconds ago or now."""
        read, fleet = self._reasons.get(key, (-1e9, None))
        if self._clock() - read < _REASONS_SECONDS:
            return fleet
        fleet = await self._fleet(key, ways) if ways.doors else None
        self._reasons[key] = self._clock(), fleet
        return fleet

    async def leave(self, key: Key, inputs: Inputs, observed: Observed, *, left: float) -> Leaving:
        """Go on with the end of a pipeline; see `leave`.

        Raises:
            UnavailableError: The API server is away.
        """
        doors: Sequence[Door] = ()
        if observed.addresses():
            try:
                doors = (await self.find(key, inputs, observed)).doors
            except AbortedError as error:
                _log.warning("no way to gateways", pipeline=str(key), problem=error.message)
        unheard = self._unheard(inputs, observed)
        try:
            return await leave(self._gateways, doors, unheard=unheard, left=left)
        except UnauthenticatedError as error:
            self._tokens.doubt(key)
            return Leaving(False, f"a gateway does not answer: {error.message}")

    def forget(self, key: Key) -> None:
        """Forget a pipeline."""
        self._tokens.forget(key)
        self._reasons.pop(key, None)

    def _unheard(self, inputs: Inputs, observed: Observed) -> str:
        shared = inputs.spec.gateway.store.postgresql is not None
        return observed.unheard(self._now(), shared=shared)

    async def _fleet(self, key: Key, ways: Ways) -> Fleet | None:
        try:
            return await ask_all(self._gateways, ways.doors)
        except DisagfusionError as error:
            if isinstance(error, UnauthenticatedError):
                self._tokens.doubt(key)
            _log.warning("gateway not asked", pipeline=str(key), problem=error.message)
            return None


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
