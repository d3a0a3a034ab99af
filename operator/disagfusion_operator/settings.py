"""The operator's settings, from the environment."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from disagfusion_operator.api.base import STAGES, ObjectName


class OperatorSettings(BaseSettings):
    """Every setting `x` is read from the environment variable `DISAGFUSION_OPERATOR_X`.

    Attributes:
        namespace: Where the operator itself runs; its Lease is there.
        name: Of this process, for the Lease: the pod's name.
        watch_namespaces: Comma list of the namespaces whose pipelines it serves; all where empty.
        image_gateway: Image of gateways, where a pipeline does not say another.
        image_encoder: The same of encoders.
        image_dit: The same of DiTs.
        image_decoder: The same of decoders.
        image_flex: The same of pods that change their stage in place.
        image_emulated: The same of all stages of an emulated pipeline.
        image_pull_policy: Of all containers that it makes.
        image_pull_secrets: Comma list of Secrets, which must be in the pipelines' namespaces.
        prometheus_url: Of the Prometheus that scrapes the pipelines, where they do not say another.
        prometheus_namespace: Whose pods may read metrics; everybody where empty.
        client_namespaces: JSON object of labels of the namespaces whose pods may reach gateways;
            pods of the pipeline's own namespace always may. Empty: everybody may.
        network_policies: Whether network policies are made.
        pod_monitors: Whether PodMonitors are made: "auto" does it where their kind is known.
        leader_election: Whether several operators may run at the same time.
        lease_name: Of the Lease that they compete for.
        lease_seconds: After which a silent leader is succeeded.
        lease_renew_seconds: After which a leader that could not renew gives up.
        lease_retry_seconds: Between two tries.
        resync_seconds: Between two looks at a pipeline where nothing has happened.
        list_seconds: Between two lists of all objects, in case a watch has missed one.
        workers: Pipelines that are looked at at a time.
        stalled_seconds: Without any look at an end, after which the process calls itself dead.
        health_listen: `host:port` of `/healthz` and `/readyz`.
        metrics_listen: `host:port` for Prometheus; empty for none.
        gateway_port: At which it asks gateways; another than theirs only in tests.
        log_format: "json" for machines, "console" for people.
        log_level: The least severe level that is written.
    """

    model_config = SettingsConfigDict(env_prefix="DISAGFUSION_OPERATOR_", extra="ignore")

    namespace: ObjectName = "default"
    name: str = Field(default_factory=socket.gethostname, min_length=1)
    watch_namespaces: str = ""
    image_gateway: str = "disagfusion-gateway"
    image_encoder: str = "disagfusion-encoder"
    image_dit: str = "disagfusion-dit"
    image_decoder: str = "disagfusion-decoder"
    image_flex: str = "disagfusion-flex"
    image_emulated: str = "disagfusion-emulated"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: str = ""
    prometheus_url: str = ""
    prometheus_namespace: str = ""
    client_namespaces: dict[str, str] = Field(default_factory=dict)
    network_policies: bool = True
    pod_monitors: Literal["auto", "off"] = "auto"
    leader_election: bool = True
    lease_name: ObjectName = "disagfusion-operator"
    lease_seconds: float = Field(default=15.0, ge=3)
    lease_renew_seconds: float = Field(default=10.0, gt=0, validate_default=True)
    lease_retry_seconds: float = Field(default=2.0, gt=0, validate_default=True)
    resync_seconds: float = Field(default=30.0, gt=0)
    list_seconds: float = Field(default=300.0, gt=0)
    workers: int = Field(default=8, ge=1, le=256)
    stalled_seconds: float = Field(default=180.0, gt=0)
    health_listen: str = "0.0.0.0:8080"
    metrics_listen: str = "0.0.0.0:9464"
    gateway_port: int = Field(default=7421, ge=1, le=65535)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("client_namespaces", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return {} if value == "" else value

    @field_validator("lease_renew_seconds")
    @classmethod
    def _gives_up_in_time(cls, value: float, info: ValidationInfo) -> float:
        # As the Lease has it, in whole seconds. What is wrong itself has been told already.
        lease = int(info.data.get("lease_seconds", value + 1))
        if value >= lease:
            raise ValueError(
                f"a leader that gives up after {value:g} s still acts when lease_seconds are over:"
                f" expected less than {lease}"
            )
        return value

    @field_validator("lease_retry_seconds")
    @classmethod
    def _tries_again_in_time(cls, value: float, info: ValidationInfo) -> float:
        renew = info.data.get("lease_renew_seconds", value + 1)
        if value >= renew:
            raise ValueError(f"{value:g} s leave no second try: expected less than {renew:g}")
        return value

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Whose pipelines it serves; empty: all."""
        return _split(self.watch_namespaces)

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        """Names of Secrets for the images' registry."""
        return _split(self.image_pull_secrets)

    @property
    def images(self) -> dict[str, str]:
        """Images where a pipeline says no other: by stage, "gateway", "flex" and "emulated"."""
        names = (*STAGES, "gateway", "flex", "emulated")
        return {name: getattr(self, f"image_{name}") for name in names}


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for one in text.split(",") if (part := one.strip()))
