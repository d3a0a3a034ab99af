from __future__ import annotations

import pytest
from pydantic import ValidationError

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.options import CompileOptions
from disagfusion.stage.settings import StageSettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "MODEL": "/models/flux",
        "SLOTS": "3",
        "ARENA_BYTES": str(10 << 20),
        "COMPILE": '{"scope": "model"}',
        "WORKFLOWS": '["text2image"]',
        "ATTENTION_BACKEND": "",
        "TLS_CERT": "",
        "DTYPE": "bfloat16",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"DISAGFUSION_{name}", value)
    settings = StageSettings()  # type: ignore[call-arg]
    options = settings.load_options()
    assert options.compile == CompileOptions(scope="model")
    assert (options.dtype, options.workflows) == ("bfloat16", ("text2image",))
    assert options.attention_backend is None
    assert settings.tls is None
    assert settings.slot_bytes % 4096 == 0
    assert settings.slots * settings.slot_bytes + settings.held_bytes <= 10 << 20


def test_a_model_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISAGFUSION_MODEL", raising=False)
    with pytest.raises(ValidationError):
        StageSettings()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong", [{"device": "toaster"}, {"tls_cert": "/c"}, {"tls_key": "/k", "tls_ca": "/a"}]
)
def test_wrong_settings_are_named(wrong: dict[str, str]) -> None:
    settings = StageSettings(model="m", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError) as error:
        _ = settings.load_options(), settings.tls
    assert error.value.field in {"device", "tls_cert", "tls_key"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", ""])
def test_other_stages_need_an_address_that_leads_here(host: str) -> None:
    with pytest.raises(ValidationError) as error:
        StageSettings(model="m", transport_host=host)
    (problem,) = error.value.errors()
    assert problem["loc"] == ("transport_advertise",)
    assert "under which other stages reach this one" in problem["msg"]
    settings = StageSettings(model="m", transport_host=host, transport_advertise="10.0.0.7")
    assert settings.transport_advertise == "10.0.0.7"
