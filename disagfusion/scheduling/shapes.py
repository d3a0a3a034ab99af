"""What a job asks for, as far as it decides what the job costs."""

from __future__ import annotations

from disagfusion.scheduling.document import Document, NonNegative, Positive, PositiveCount

FEATURES = (
    "constant",
    "per_megapixel",
    "per_megapixel_squared",
    "per_token",
    "per_step",
    "per_step_megapixel",
    "per_step_megapixel_squared",
)
"""What seconds and bytes are sums of. Attention is quadratic in the latents, all else linear;
TridentServe (arXiv 2510.02838) profiles stages as a + b·n + c·n², the DiT's times its steps."""


class Shape(Document):
    """Size and steps of a job; the fields are diffusers' arguments.

    Attributes:
        height: Pixels.
        width: Pixels.
        num_frames: Frames of a video; 1 for a picture.
        num_inference_steps: Denoising steps.
        batch_size: Pictures or videos that one job makes.
        sequence_length: Tokens of the prompt.
    """

    height: PositiveCount = 512
    width: PositiveCount = 512
    num_frames: PositiveCount = 1
    num_inference_steps: PositiveCount = 1
    batch_size: PositiveCount = 1
    sequence_length: PositiveCount = 1

    @property
    def megapixels(self) -> float:
        """Pixels of all frames of one item, in millions."""
        return self.height * self.width * self.num_frames / 1e6

    @property
    def features(self) -> tuple[float, ...]:
        """One number for each name in `FEATURES`; none falls as the job grows."""
        pixels, batch, steps = self.megapixels, self.batch_size, self.num_inference_steps
        return (
            1.0,
            batch * pixels,
            batch * pixels**2,
            float(batch * self.sequence_length),
            float(steps),
            batch * steps * pixels,
            batch * steps * pixels**2,
        )


class WeightedShape(Shape):
    """A shape and its share among others.

    Attributes:
        weight: Jobs of this shape among the sum of all weights.
    """

    weight: Positive = 1.0


class CostModel(Document):
    """Seconds or GiB as a sum over a shape's features.

    No coefficient is negative, so no prediction is, and more work never costs less.
    """

    constant: NonNegative = 0.0
    per_megapixel: NonNegative = 0.0
    per_megapixel_squared: NonNegative = 0.0
    per_token: NonNegative = 0.0
    per_step: NonNegative = 0.0
    per_step_megapixel: NonNegative = 0.0
    per_step_megapixel_squared: NonNegative = 0.0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """One number for each name in `FEATURES`."""
        return tuple(getattr(self, name) for name in FEATURES)

    @property
    def varies(self) -> bool:
        """Whether it differs from job to job."""
        return any(self.coefficients[1:])

    def evaluate(self, shape: Shape) -> float:
        """Return what a job of this shape costs."""
        return sum(c * f for c, f in zip(self.coefficients, shape.features, strict=True))
