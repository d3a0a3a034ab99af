"""The profile in docs/emulation.md is one, and means what is said of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from disagfusion.emulation.accelerator import Accelerator
from disagfusion.emulation.roles import role_of
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

PAGE = Path(__file__).parents[3] / "docs" / "emulation.md"


def test_the_example_is_a_profile() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    profile = parse(Profile, text, name=PAGE.name)
    a10 = Accelerator(profile, "a10", time_scale=0.1)
    shape = Shape(height=480, width=832, num_frames=81, num_inference_steps=4)
    a10.check_names(tuple(Stage))
    for stage, seconds in ((Stage.ENCODER, 5.05), (Stage.DIT, 74.19), (Stage.DECODER, 9.0)):
        role = role_of(stage)
        a10.check_weights(role)
        a10.check_memory(role, shape)
        assert a10.service_seconds(role, shape, "j") == pytest.approx(0.1 * seconds)
    with pytest.raises(MemoryError):
        a10.check_memory(role_of(Stage.DIT), shape.model_copy(update={"num_frames": 161}))
