"""How a pod gets the part of the model that its stages need: an init container fetches it.

`python -m disagfusion.weights fetch` leaves a link to the model, wherever that is: in a cache that
the pods of a node share, in one of the pod's own, on a volume, or in the image.
"""

from __future__ import annotations

from disagfusion_operator.api.base import number
from disagfusion_operator.desired import pods
from disagfusion_operator.desired.crews import Crew
from disagfusion_operator.desired.inputs import Inputs, Manifest

NAME = "weights"
_CACHE = "/var/cache/disagfusion"
_RUN = "/var/run/disagfusion"
_SOURCE = "/mnt/model"
_TOKEN = "/etc/disagfusion/hub"  # noqa: S105 - a directory
_LINK = f"{_RUN}/model"
_REPORT = f"{_RUN}/weights.json"
_FILLED = 0.98
"""Of a cache that lives with the pod, for models: beyond its limit the pod would be evicted."""
SETTINGS = {"model": _LINK, "weights_report": _REPORT, "local_files_only": "true"}
"""By which a stage finds what was fetched."""


def containers(inputs: Inputs, crew: Crew) -> list[Manifest]:
    """Return the container that fetches; none where there is no model."""
    if inputs.emulated:
        return []
    token = inputs.spec.model.hub.token_secret if inputs.spec.model.hub else None
    own = [{"name": "hub-token", "mountPath": _TOKEN, "readOnly": True}] if token else []
    return [
        {
            "name": NAME,
            "image": crew.image,
            "imagePullPolicy": inputs.release.pull_policy,
            "command": ["python", "-m", "disagfusion.weights", "fetch", *_arguments(inputs, crew)],
            "securityContext": pods.container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                *mounts(inputs, writable=True),
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of a pod
                *own,
            ],
        }
    ]


def volumes(inputs: Inputs) -> list[Manifest]:
    """Return the volumes of the cache, the link and the source."""
    if inputs.emulated:
        return []
    model = inputs.spec.model
    found: list[Manifest] = [{"name": "model", "emptyDir": {"sizeLimit": "16Mi"}}]
    if model.hub is not None or model.store is not None:
        found.append({"name": "weights", **_cache(inputs)})
    if model.volume is not None:
        claim = {"claimName": model.volume.claim_name, "readOnly": True}
        found.append({"name": "source", "persistentVolumeClaim": claim})
    if model.hub is not None and model.hub.token_secret is not None:
        token = model.hub.token_secret
        secret = {
            "secretName": token.name,
            "items": [{"key": token.key, "path": "token"}],
            "defaultMode": 0o440,
        }
        found.append({"name": "hub-token", "secret": secret})
    return found


def mounts(inputs: Inputs, *, writable: bool = False) -> list[Manifest]:
    """Return where they are mounted."""
    if inputs.emulated:
        return []
    model = inputs.spec.model
    found: list[Manifest] = [{"name": "model", "mountPath": _RUN, **_access(writable)}]
    if model.hub is not None or model.store is not None:
        # A stage locks what it reads, so that it is not evicted; that needs no right to write.
        found.append({"name": "weights", "mountPath": _CACHE, **_access(writable)})
    if model.volume is not None:
        found.append({"name": "source", "mountPath": _SOURCE, "readOnly": True})
    return found


def _access(writable: bool) -> Manifest:
    return {} if writable else {"readOnly": True}


def _cache(inputs: Inputs) -> Manifest:
    cache = inputs.spec.model.cache
    if cache.host_path:
        # Made by whoever runs the node, since only they can say that it is the pods' user's.
        return {"hostPath": {"path": cache.host_path, "type": "Directory"}}
    limit = _limit(inputs)
    return {"emptyDir": {} if limit is None else {"sizeLimit": limit}}


def _limit(inputs: Inputs) -> str | None:
    """Return how large the cache may be, where it lives with the pod."""
    cache, model = inputs.spec.model.cache, inputs.spec.model
    fetched = model.hub is not None or model.store is not None
    if cache.host_path or cache.size_limit is None or not fetched:
        return None
    return str(cache.size_limit)


def _arguments(inputs: Inputs, crew: Crew) -> list[str]:
    options = inputs.spec.options
    # Who may change the stage needs the weights of all of them.
    stage = [] if len(crew.stages) > 1 else ["--stage", *crew.stages]
    found = [_source(inputs), *stage, "--cache", _CACHE]
    found += ["--link", _LINK, "--report", _REPORT]
    if (limit := _limit(inputs)) is not None:
        found += ["--max-bytes", str(int(float(number(limit)) * _FILLED))]
    hub = inputs.spec.model.hub
    if hub is not None:
        found += ["--revision", hub.revision]
        if hub.token_secret is not None:
            found += ["--token-file", f"{_TOKEN}/token"]
    if options.variant is not None:
        found += ["--variant", options.variant]
    if options.workflows:
        found += ["--workflows", ",".join(options.workflows)]
    return found


def _source(inputs: Inputs) -> str:
    model = inputs.spec.model
    if model.hub is not None:
        return f"hub:{model.hub.repository}"
    if model.store is not None:
        return model.store.url
    if model.volume is not None:
        return f"dir:{_SOURCE}/{model.volume.path}".rstrip("/")
    return f"builtin:{model.builtin}"
