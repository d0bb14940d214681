"""Sound: reading files and the preprocessing the bundle states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import AudioPreprocessing
from perceiver_deploy.errors import InputError, requires

_RIFF_SIZE_UNKNOWN = (0, 0xFFFFFFFF)  # what writers that cannot seek back leave


def read_sound(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """The sound of a file, mono, in [-1, 1]: float32 [samples].

    Raises:
        InputError: no file there, not a whole sound file, no sound in it, or of another sample rate or channel count.
        MissingError: PyAV is not installed.
    """
    return np.asarray(_decode(path, sample_rate, "flt"), np.float32)


def read_pcm(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """The sound of a file, mono, as 16-bit samples [samples]. Raises what `read_sound` raises."""
    return np.asarray(_decode(path, sample_rate, "s16"), np.int16)


def _decode(path: Path, sample_rate: int, sample_format: str) -> NDArray[Any]:
    with requires("media", "Reading sound"):
        import av
    try:
        _check_whole(path)
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound. Give a sound file, or a video that has some.")
            stream = container.streams.audio[0]
            if stream.channels != 1 or stream.rate != sample_rate:
                raise InputError(
                    f"{path} has {stream.channels} channel(s) at {stream.rate} Hz; expected mono at {sample_rate} Hz. "
                    f"Convert it with: ffmpeg -i {path} -ac 1 -ar {sample_rate} converted.wav"
                )
            resampler = av.AudioResampler(format=sample_format)  # the format only: channels and rate stay
            parts = [part.to_ndarray()[0] for frame in container.decode(stream) for part in resampler.resample(frame)]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a sound file, for example WAV.") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as sound ({reason}). Give a sound file, for example WAV.") from None
    if not parts:
        raise InputError(f"{path} has no samples in it. Give a sound of at least one sample.")
    return np.concatenate(parts)


def preprocess_sound(sound: NDArray[np.float32], preprocessing: AudioPreprocessing) -> Arrays:
    """Cut or fill up float32 [samples] and mask what was filled: `audio` [samples, 1], `attention_mask` [patches].

    A patch counts where it has at least one sample of the sound.
    """
    kept = sound[: preprocessing.samples]
    audio = np.zeros((preprocessing.samples, 1), np.float32)
    audio[: len(kept), 0] = kept
    starts = np.arange(0, preprocessing.samples, preprocessing.samples_per_patch)
    return {"audio": audio, "attention_mask": (starts < len(kept)).astype(np.int64)}


def _check_whole(path: Path) -> None:
    """Refuse a WAV file that ends before its header says; decoders would take what is there."""
    with path.open("rb") as file:
        header = file.read(8)
    stated = int.from_bytes(header[4:], "little")
    missing = 8 + stated - path.stat().st_size
    if header[:4] == b"RIFF" and stated not in _RIFF_SIZE_UNKNOWN and missing > 0:
        raise ValueError(f"it is cut off: {missing} bytes are missing")
