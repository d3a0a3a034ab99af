import io

import av
import numpy as np
import pytest
from disagfusion_decoder.media import Media, MediaFormat, encode_image, encode_outputs
from PIL import Image

from disagfusion.errors import InvalidArgumentError


def picture(width: int = 20, height: int = 12, shift: int = 0) -> Image.Image:
    ramp = (np.arange(width * height * 3).reshape(height, width, 3) + shift) % 256
    return Image.fromarray(ramp.astype(np.uint8))


@pytest.mark.parametrize("media_format", [MediaFormat.PNG, MediaFormat.WEBP])
def test_png_and_webp_keep_every_pixel(media_format: MediaFormat) -> None:
    (media,) = encode_outputs({"images": [picture()]}, media_format, fps=1)
    assert (media.height, media.width, media.num_frames) == (12, 20, 1)
    assert media.content_type == media_format.value
    decoded = Image.open(io.BytesIO(media.content)).convert("RGB")
    assert np.array_equal(np.asarray(decoded), np.asarray(picture()))


def test_jpeg_is_close_and_takes_transparency() -> None:
    smooth = Image.linear_gradient("L").convert("RGBA")
    media = encode_image(smooth, MediaFormat.JPEG)
    decoded = np.asarray(Image.open(io.BytesIO(media.content)), dtype=int)
    assert abs(decoded - np.asarray(smooth.convert("RGB"), dtype=int)).max() <= 4


def test_the_same_pixels_give_the_same_bytes() -> None:
    for media_format in (MediaFormat.PNG, MediaFormat.JPEG, MediaFormat.WEBP):
        first = encode_image(picture(), media_format).content
        assert first == encode_image(picture(), media_format).content
        assert first != encode_image(picture(shift=1), media_format).content


def test_images_are_png_unless_said_otherwise_and_nested_lists_count() -> None:
    media = encode_outputs({"images": [[picture()], [picture(shift=9)]]}, None, fps=1)
    assert [item.content_type for item in media] == ["image/png"] * 2


def decode(media: Media) -> list[np.ndarray]:
    with av.open(io.BytesIO(media.content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(32, 24), (33, 25)])
def test_a_video_holds_its_frames_in_order(size: tuple[int, int]) -> None:
    frames = [Image.new("RGB", size, (40 * i, 20, 200 - 40 * i)) for i in range(5)]
    (media,) = encode_outputs({"videos": [frames]}, None, fps=8)
    assert (media.width, media.height, media.num_frames) == (*size, 5)
    assert media.content_type == "video/mp4"
    for frame, decoded in zip(frames, decode(media), strict=True):
        error = decoded[: size[1], : size[0]].astype(int) - np.asarray(frame, dtype=int)
        assert abs(error).max() <= 6


def test_a_video_may_be_an_array_and_keeps_its_rate() -> None:
    array = np.linspace(0, 1, 3 * 16 * 16 * 3).reshape(1, 3, 16, 16, 3)
    (media,) = encode_outputs({"videos": array}, MediaFormat.MP4, fps=23.976)
    assert media.num_frames == 3
    with av.open(io.BytesIO(media.content)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(23.976, abs=0.01)


def test_the_same_frames_give_the_same_video() -> None:
    frames = [[picture(64, 48, shift) for shift in range(6)]]
    first, second = (encode_outputs({"videos": frames}, None, fps=8)[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("outputs", "media_format"),
    [({"images": [picture()]}, MediaFormat.MP4), ({"videos": [[picture()]]}, MediaFormat.PNG)],
)
def test_a_format_for_another_kind_names_the_field(
    outputs: dict[str, object], media_format: MediaFormat
) -> None:
    with pytest.raises(InvalidArgumentError, match="output_format"):
        encode_outputs(outputs, media_format, fps=8)


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="num_frames"):
        encode_outputs({"videos": [[]]}, None, fps=8)
