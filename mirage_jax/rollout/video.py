"""Video files in and out: mp4 through PyAV, GIF and WebP through Pillow, folders of pictures.

Conventions: uint8 RGB frames [f, H, W, 3], which may be given one after the other. mp4 files are
H.264 in yuv420p with the colours of BT.709, playable everywhere and from the first byte; sides of
odd length get their last row or column twice. Old files are replaced in one step.
Read next: `mirage_jax/rollout/outputs.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from mirage_jax.atomic import replacing
from mirage_jax.rollout.photo import PICTURE_SUFFIXES, read_photo

Frame = UInt8[np.ndarray, "H W 3"]
Frames = Iterable[Frame]

SUFFIXES = (".mp4", ".gif", ".webp")
# What a video may take once decoded, and what one of its frames may.
MAX_BYTES, MAX_PIXELS = 4 << 30, 64 << 20
# Quantiser of x264: 0 is lossless, 18 looks so, 23 is its default.
CRF = 14
_BT709 = 1
# GIFs count hundredths of a second, and viewers slow down what is faster than 50 frames a second.
_FASTEST_GIF = 50.0
# Frames whose colours make the palette of a GIF.
_PALETTE_FRAMES = 8


def write_video(path: Path, frames: Frames, fps: float = 8.0, crf: int = CRF) -> None:
    """Write an mp4.

    Args:
        path: file to write.
        frames: pictures of one size; at least one.
        fps: frames a second, may be a fraction.
        crf: quality, smaller is better; 14 loses nothing that is seen.

    Raises:
        ValueError: no frames, or not of one size.
    """
    checked = _checked(frames, path)
    first = next(checked)
    height, width = (side + side % 2 for side in first.shape[:2])
    with replacing(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as file:
            rate = Fraction(fps).limit_denominator(1001 * 240)
            stream = file.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": str(crf), "preset": "medium"}
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            for frame in itertools.chain([first], checked):
                more = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
                picture = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(np.pad(frame, more, "edge")), format="rgb24"
                )
                converted = picture.reformat(format="yuv420p", dst_colorspace=_BT709)
                file.mux(stream.encode(converted))
            file.mux(stream.encode())


def write_animation(path: Path, frames: Frames, fps: float = 8.0) -> None:
    """Write an animated .gif or .webp that repeats for ever, as READMEs show them.

    A GIF has one palette of 256 colours for all its frames. Times are rounded so that the whole
    lasts as long as it should.

    Args:
        path: file to write; its suffix chooses.
        frames: pictures of one size; at least one.
        fps: frames a second.

    Raises:
        ValueError: no frames, not of one size, or a GIF of more than 50 frames a second.
    """
    from PIL import Image

    gif = path.suffix.lower() == ".gif"
    if gif and fps > _FASTEST_GIF:
        raise ValueError(
            f"{path}: a GIF shows at most {_FASTEST_GIF:g} frames a second, got {fps:g}. Write "
            ".webp or .mp4, or give --fps."
        )
    images, taken = [], 0
    for frame in _checked(frames, path):
        images.append(Image.fromarray(frame))
        taken += frame.nbytes
        if taken > MAX_BYTES:
            raise ValueError(
                f"{path}: got more than {MAX_BYTES} bytes of frames, which an animation needs at "
                "once. Write .mp4, or use fewer and smaller frames (--every, --width)."
            )
    if gif:
        images = _with_one_palette(images)
    unit = 10 if gif else 1
    ends = [round((index + 1) * 1000 / fps / unit) * unit for index in range(len(images))]
    durations = [max(end - start, unit) for start, end in zip([0, *ends], ends, strict=False)]
    options: dict[str, Any] = {"format": "GIF"} if gif else {"format": "WEBP", "quality": 85}
    if not gif:
        options["method"] = 4
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            **options,
        )


def _with_one_palette(images: list[Any]) -> list[Any]:
    from PIL import Image

    width, height = images[0].size
    chosen = images[:: max(1, len(images) // _PALETTE_FRAMES)]
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for index, image in enumerate(chosen):
        sheet.paste(image, (0, index * height))
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
    return [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in images]


def write_frames(directory: Path, frames: Frames) -> int:
    """Write pictures as 00000.png, 00001.png and so on; returns how many.

    Older pictures of that kind in the folder are removed first, so that none of another video stay.
    """
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("[0-9]" * 5 + ".png"):
        old.unlink()
    count = 0
    for count, frame in enumerate(_checked(frames, directory), 1):
        with replacing(directory / f"{count - 1:05d}.png") as temporary:
            Image.fromarray(frame).save(temporary, format="PNG")
    return count


def write_any(path: Path, frames: Frames, fps: float = 8.0) -> None:
    """Write .mp4, .gif, .webp, or a folder of pictures where the name has no suffix.

    Raises:
        ValueError: another suffix; see also the writers.
    """
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        write_video(path, frames, fps)
    elif suffix in (".gif", ".webp"):
        write_animation(path, frames, fps)
    elif not suffix or path.is_dir():
        write_frames(path, frames)
    else:
        raise ValueError(
            f"{path}: got {suffix!r}, expected {', '.join(SUFFIXES)}, or a folder of pictures"
        )


def beside(left: Frames, right: Frames, gap: int = 4) -> Iterator[Frame]:
    """Put two videos of one height next to each other, with a white gap; the shorter one ends both.

    Raises:
        ValueError: heights differ.
    """
    for first, second in zip(left, right, strict=False):
        if first.shape[0] != second.shape[0]:
            raise ValueError(
                f"side by side: got heights {first.shape[0]} and {second.shape[0]}, expected one; "
                "resize one of the videos"
            )
        white = np.full((first.shape[0], gap, 3), 255, np.uint8)
        yield np.concatenate([first, white, second], axis=1)


def _checked(frames: Frames, path: Path) -> Iterator[Frame]:
    """Yield frames after a check of each; the first is checked at once."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: got no frames to write, expected at least one")

    def all_of_them() -> Iterator[Frame]:
        for index, frame in enumerate(itertools.chain([first], iterator)):
            if frame.shape != first.shape or frame.ndim != 3 or frame.shape[2] != 3:
                raise ValueError(
                    f"{path}: frame {index} has shape {frame.shape}, expected [height, width, 3], "
                    f"all as the first, {first.shape}"
                )
            yield frame

    return all_of_them()


def iterate_video(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video, or of a folder of pictures in the order of their names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, cut short, or frames that are too large.
    """
    if path.is_dir():
        yield from _iterate_folder(path)
        return
    with _opened(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def frame_rate(path: Path) -> float | None:
    """Return the frames a second of a video; None for folders and where it does not say.

    Raises:
        FileNotFoundError, ValueError: as for `iterate_video`.
    """
    if path.is_dir():
        return None
    with _opened(path) as container:
        rate = container.streams.video[0].average_rate
    return float(rate) if rate and 0 < rate < 1000 else None


def resized(frames: Frames, width: int) -> Iterator[Frame]:
    """Yield frames with another width and the same aspect, averaged where they shrink."""
    import cv2

    for frame in frames:
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        smaller = width < frame.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        yield cv2.resize(frame, (width, height), interpolation=how)


def _iterate_folder(path: Path) -> Iterator[Frame]:
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise ValueError(f"video: got {path}, a folder without pictures; check the path")
    for file in files:
        yield read_photo(file).image


def read_video(path: Path, frames: int | None = None) -> UInt8[np.ndarray, "f H W 3"]:
    """Read a whole video.

    Args:
        path: video file.
        frames: how many frames it must hold, or None for any number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a video, is cut short, too long, or holds another number of
            frames.
    """
    stated, pictures, taken = 0, [], 0
    with _opened(path) as container:
        stated = container.streams.video[0].frames
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
            taken += pictures[-1].nbytes
            if taken > MAX_BYTES:
                raise ValueError(
                    f"video: got more than {MAX_BYTES} bytes of frames in {path}, expected less; "
                    "cut it into parts"
                )
            if len(pictures) == frames:
                break
    expected = frames if frames is not None else stated
    if not pictures or (expected and len(pictures) < expected):
        raise ValueError(
            f"video: got {len(pictures)} frames in {path}, expected {expected or 'at least 1'}; it "
            "may be truncated, export or copy it again"
        )
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(f"video: got frames of several sizes in {path}, expected one size")
    return np.stack(pictures)


def read_frames(path: Path) -> UInt8[np.ndarray, "f H W 3"]:
    """Read a picture as one frame, or all frames of a video.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded, or is too large.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return read_photo(path).image[None]
    return read_video(path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a video; errors of the library while it is open become ValueErrors with its name."""
    if not path.is_file():
        raise FileNotFoundError(
            f"video: got {path}, expected an existing video file; check the path"
        )
    try:
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            if context is None:
                raise IndexError("no stream of a known codec")
            if context.width * context.height > MAX_PIXELS:
                raise ValueError(
                    f"video: got frames of {context.height}x{context.width} in {path}, expected at "
                    f"most {MAX_PIXELS} pixels; make it smaller"
                )
            yield container
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"video: got {path} ({error}), expected a whole video; it may be truncated, export or "
            "copy it again"
        ) from error
