"""Reading sound files and what a model takes of them."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest

from perceiver_deploy.bundle.preprocessing import AudioPreprocessing
from perceiver_deploy.data.media.audio import preprocess_sound, read_sound
from perceiver_deploy.data.media.files import read_example
from perceiver_deploy.errors import InputError

RATE = 8000
TONE = np.round(12000 * np.sin(np.arange(1000) / 5)).astype(np.int16)
PREPROCESSING = AudioPreprocessing(sample_rate=RATE, samples=40, samples_per_patch=10)


def write_wav(path, samples=TONE, *, rate=RATE, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def write_encoded(path, codec, sample_format, samples):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_a_16_bit_wav_is_its_samples_over_32768(tmp_path):
    sound = read_sound(write_wav(tmp_path / "tone.wav"), RATE)
    assert sound.dtype == np.float32
    assert np.array_equal(sound, TONE / np.float32(32768))


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "samples"),
    [
        ("a.flac", "flac", "s16", TONE),
        ("a.wav", "pcm_f32le", "flt", TONE / np.float32(32768)),
        ("a.mkv", "pcm_s32le", "s32", TONE.astype(np.int32) << 16),
    ],
)
def test_formats_that_lose_nothing_give_the_same_sound(tmp_path, name, codec, sample_format, samples):
    path = write_encoded(tmp_path / name, codec, sample_format, samples)
    assert np.array_equal(read_sound(path, RATE), TONE / np.float32(32768))


@pytest.mark.parametrize("length", [1, 10, 25, 40, 55])
def test_short_sound_is_filled_up_and_masked_and_long_sound_is_cut(length):
    example = preprocess_sound(np.ones(length, np.float32), PREPROCESSING)
    kept = min(length, 40)
    assert example["audio"].shape == (40, 1)
    assert np.array_equal(example["audio"][:, 0], np.arange(40) < kept)
    assert np.array_equal(example["attention_mask"], np.arange(4) < -(-kept // 10))


def test_a_file_becomes_a_batch_of_one(tmp_path):
    example = read_example(write_wav(tmp_path / "tone.wav", TONE[:25]), PREPROCESSING, {})
    assert example["audio"].shape == (1, 40, 1)
    assert example["attention_mask"].tolist() == [[1, 1, 1, 0]]


def test_samples_that_are_no_whole_patches_are_refused_where_they_are_stated():
    with pytest.raises(ValueError, match="samples 45, expected a multiple of samples_per_patch"):
        AudioPreprocessing(sample_rate=RATE, samples=45, samples_per_patch=10)


def test_another_sample_rate_is_refused_with_the_command_that_resamples(tmp_path):
    path = write_wav(tmp_path / "fast.wav", rate=44100)
    with pytest.raises(InputError, match=r"1 channel\(s\) at 44100 Hz; expected mono at 8000 Hz.*ffmpeg .* -ar 8000"):
        read_sound(path, RATE)


def test_stereo_is_refused_with_the_command_that_mixes(tmp_path):
    path = write_wav(tmp_path / "stereo.wav", channels=2)
    with pytest.raises(InputError, match=r"2 channel\(s\) at 8000 Hz; expected mono.*ffmpeg .* -ac 1"):
        read_sound(path, RATE)


def test_a_sound_without_samples_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"empty\.wav has no samples"):
        read_sound(write_wav(tmp_path / "empty.wav", TONE[:0]), RATE)


def test_a_video_without_sound_is_refused(tmp_path):
    path = tmp_path / "silent.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=5, width=16, height=16, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(InputError, match=r"silent\.mkv has no sound"):
        read_sound(path, RATE)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no sound at all", b"RIFF\x00\x01\x00\x00WAVEfmt " + bytes(400)])
def test_a_file_that_is_no_sound_is_an_input_error(tmp_path, content):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.wav cannot be read as sound"):
        read_sound(path, RATE)


def test_a_wav_that_was_cut_off_is_refused_not_taken_for_a_shorter_one(tmp_path):
    path = write_wav(tmp_path / "cut.wav")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"cut\.wav cannot be read as sound \(it is cut off: 500 bytes are missing\)"):
        read_sound(path, RATE)


def test_a_wav_written_to_a_pipe_states_no_size_and_is_read(tmp_path):
    path = write_wav(tmp_path / "piped.wav")
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:])
    assert np.array_equal(read_sound(path, RATE), TONE / np.float32(32768))


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_sound(tmp_path / "none.wav", RATE)
    with pytest.raises(InputError, match="cannot be read as sound"):
        read_sound(tmp_path, RATE)
