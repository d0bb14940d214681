"""Video files: their pictures and their sound track, as the bundle's preprocessing states."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import VideoPreprocessing
from perceiver_deploy.errors import InputError, UsageError, requires

if TYPE_CHECKING:
    from PIL import Image

_PCM_SCALE = 1 << 15
_CLOCK_TOLERANCE = 1e-3  # of a picture: time stamps are rounded to the file's time base


def read_video(path: Path, preprocessing: VideoPreprocessing) -> Arrays:
    """`image` float32 [1, frames, 3, height, width] and, where the sound counts, `audio` float32 [1, samples, 1].

    Raises:
        InputError: no file there, not a video, too short, damaged, or without the sound that the model takes.
        MissingError: PyAV or Pillow is not installed.
    """
    pictures, sound = _read_clip(path, preprocessing, lambda picture: cover(picture, preprocessing.size))
    image = scale_pictures(pictures)[None]
    if sound is None:
        return {"image": image}
    return {"image": image, "audio": np.clip(sound * np.float32(preprocessing.gain), -1, 1)[None, :, None]}


def read_raw_video(path: Path, preprocessing: VideoPreprocessing) -> Arrays:
    """`video_uint8` [1, frames, height, width, 3], of the film's own size, and `pcm` [1, samples] where sound counts.

    Raises what `read_video` raises.
    """
    pictures, sound = _read_clip(path, preprocessing, lambda picture: picture)
    if sound is None:
        return {"video_uint8": pictures[None]}
    pcm = np.clip(np.round(sound * _PCM_SCALE), -_PCM_SCALE, _PCM_SCALE - 1).astype(np.int16)
    return {"video_uint8": pictures[None], "pcm": pcm[None]}


def _read_clip(
    path: Path, preprocessing: VideoPreprocessing, prepare: Callable[[Image.Image], Image.Image]
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Pictures [frames, height, width, 3], each prepared, and the sound [samples] before its gain, where it counts."""
    try:
        with path.open("rb") as file:
            start, pictures = _read_pictures(file, str(path), preprocessing, prepare)
            if preprocessing.sample_rate is None:
                return pictures, None
            file.seek(0)
            return pictures, _read_sound(file, str(path), preprocessing, start)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a video file, such as an MP4.") from None


def _read_pictures(
    file: BinaryIO, name: str, preprocessing: VideoPreprocessing, prepare: Callable[[Image.Image], Image.Image]
) -> tuple[float, NDArray[np.uint8]]:
    """Seconds at which the first picture is shown, and the pictures [frames, height, width, 3]."""
    shown = decode_pictures(file, name, preprocessing.frame_rate)
    taken = itertools.islice(shown, 0, preprocessing.frames * preprocessing.stride, preprocessing.stride)
    seconds, pictures = [], []
    for second, picture in taken:
        seconds.append(second)
        pictures.append(np.asarray(prepare(picture)))
    if len(pictures) < preprocessing.frames:
        rate = "" if preprocessing.frame_rate is None else f", {preprocessing.frame_rate:g} a second"
        raise InputError(
            f"{name} has {len(pictures)} pictures (stride {preprocessing.stride}{rate}); the model takes "
            f"{preprocessing.frames}. Give a longer video."
        )
    return seconds[0], np.stack(pictures)


def _read_sound(file: BinaryIO, name: str, preprocessing: VideoPreprocessing, start: float) -> NDArray[np.float32]:
    """Samples [samples] from the second `start` on. A track that ends within the last picture is padded with zeros."""
    assert preprocessing.sample_rate is not None
    until = start + preprocessing.samples / preprocessing.sample_rate
    begin, samples = decode_sound(file, name, preprocessing.sample_rate, until)
    offset = round((start - begin) * preprocessing.sample_rate)
    taken = samples[offset:] if offset >= 0 else np.pad(samples, (-offset, 0))
    missing = preprocessing.samples - len(taken)
    if missing > preprocessing.samples // preprocessing.frames:
        raise InputError(
            f"{name} has {len(taken)} samples of sound at {preprocessing.sample_rate} Hz from its first picture on; "
            f"the model takes {preprocessing.samples} with {preprocessing.frames} pictures. Give more sound."
        )
    return np.pad(taken, (0, max(missing, 0)))[: preprocessing.samples]


def scale_pictures(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [..., height, width, 3] to float32 [..., 3, height, width] in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32) / np.float32(255)


def cover(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture scaled to cover height and width of `size`, and what stands out over it cut off at both sides."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, size[::-1], Image.Resampling.BICUBIC)


def write_clip(folder: Path, clip: Arrays, preprocessing: VideoPreprocessing) -> tuple[str, ...]:
    """Write what `read_video` reads: pictures as `frame-000.png` and so on, and the sound as `sound.wav`.

    The sound is as loud as the file it was made from: `gain` is taken back.

    Raises:
        UsageError: the folder has files already.
        MissingError: Pillow is not installed.
    """
    with requires("media", "Writing pictures"):
        from PIL import Image
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} has files already. Choose another folder for what is reconstructed.")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, pixels in enumerate(np.moveaxis(clip["image"][0], 1, -1)):
        written.append(folder / f"frame-{index:03d}.png")
        Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(written[-1])
    if preprocessing.sample_rate is not None:
        written.append(folder / "sound.wav")
        sound = clip["audio"][0, :, 0].astype(np.float32) / preprocessing.gain
        pcm = np.round(32767 * np.clip(sound, -1, 1)).astype("<i2")
        with wave.open(str(written[-1]), "wb") as file:
            file.setparams((1, 2, preprocessing.sample_rate, len(pcm), "NONE", ""))
            file.writeframes(pcm.tobytes())
    return tuple(str(path) for path in written)


def decode_pictures(file: BinaryIO, name: str, frame_rate: float | None = None) -> Iterator[tuple[float, Image.Image]]:
    """Second and RGB picture, upright, of a film's frames, or of what it shows `frame_rate` times a second.

    Raises:
        InputError: not a video, or damaged; `name` is what the message calls it.
        MissingError: PyAV or Pillow is not installed.
    """
    with _container(file, name) as container:
        if not container.streams.video:
            raise InputError(f"{name} has no pictures, only sound. Give a video file, such as an MP4.")
        frames = container.decode(video=0)
        for frame in frames if frame_rate is None else _at_rate(frames, frame_rate):
            yield frame.time, frame.to_image().rotate(frame.rotation, expand=True)


def _at_rate(frames: Iterator[Any], frame_rate: float) -> Iterator[Any]:
    """The frame that is shown at each of the moments `1 / frame_rate` apart, from the first frame on."""
    begin, given, shown = 0.0, 0, None

    def until(second: float) -> Iterator[Any]:
        nonlocal given
        while given < (second - begin) * frame_rate - _CLOCK_TOLERANCE:
            yield shown
            given += 1

    for frame in frames:
        if shown is None:
            begin = frame.time
        else:
            yield from until(frame.time)
        shown = frame
    if shown is not None:
        yield from until(shown.time + max(float(shown.duration * shown.time_base), 1 / frame_rate))


def decode_sound(
    file: BinaryIO, name: str, sample_rate: int, until: float | None = None
) -> tuple[float, NDArray[np.float32]]:
    """Second at which the sound begins, and its samples [samples]: the mean of the channels, in [-1, 1], resampled.

    `until`: the second up to which the sound is needed; None reads all.

    Raises:
        InputError: no sound track, or a damaged one.
        MissingError: PyAV is not installed.
    """
    with _container(file, name) as container:
        if not container.streams.audio:
            raise InputError(f"{name} has no sound track, and the model takes pictures with their sound.")
        import av

        # Mixing down is done here: FFmpeg's own, to float, adds channels up to more than full scale.
        resampler = av.AudioResampler("fltp", rate=sample_rate)
        begin, parts = None, []
        for frame in container.decode(audio=0):
            if until is not None and frame.time > until:
                break
            begin = frame.time if begin is None else begin
            parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
        parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(None)]
    if begin is None:
        raise InputError(f"{name} has a sound track without a single sample. Give a video with sound.")
    return begin, np.clip(np.concatenate(parts), -1, 1).astype(np.float32)


@contextmanager
def _container(file: BinaryIO, name: str) -> Iterator[Any]:
    """An open container, FFmpeg's errors turned into ours."""
    with requires("media", "Reading videos"):
        import av
    try:
        with av.open(file) as container:
            yield container
    except (av.FFmpegError, OSError) as error:  # an OSError where FFmpeg seeks out of the file
        raise InputError(
            f"{name} cannot be read as a video ({error.strerror}). Give an undamaged video file, such as an MP4."
        ) from None
