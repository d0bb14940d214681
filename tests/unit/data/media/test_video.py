"""Reading and writing clips: tiny lossless videos made here, so that every picture and sample is known."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from perceiver_deploy.bundle.preprocessing import VideoPreprocessing
from perceiver_deploy.data.media.files import read_example
from perceiver_deploy.data.media.video import read_video, write_clip
from perceiver_deploy.errors import InputError, UsageError

MEDIA = Path(__file__).parents[3] / "data/video"
WITH_SOUND = VideoPreprocessing(size=(4, 4), frames=3, frame_rate=25, sample_rate=2000)


def make_video(path, levels, rate=25, sound=None, size=(8, 6)):
    """Grey pictures of these levels, lossless, and sound float32 [channels, samples] at 2000 Hz."""
    with av.open(path, "w") as container:
        video = container.add_stream("ffv1", rate=rate)
        video.width, video.height, video.pix_fmt = *size, "bgr0"
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo"}[len(sound)]
            audio = container.add_stream("pcm_f32le", rate=2000, layout=layout)
        for level in levels:
            picture = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), level, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio is not None:
            samples = np.ascontiguousarray(sound.T.reshape(1, -1), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
            frame.sample_rate = 2000
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def noise(samples, channels=1):
    return np.random.default_rng(0).uniform(-1, 1, (channels, samples)).astype(np.float32)


def shown(clip):
    """The level of each picture, all of whose pixels must have it."""
    levels = np.round(255 * clip["image"][0]).astype(int)
    assert (levels == levels[:, :1, :1, :1]).all()
    return levels[:, 0, 0, 0].tolist()


def test_the_first_pictures_are_read_at_the_stride(tmp_path):
    path = make_video(tmp_path / "film.mkv", range(0, 100, 10))
    clip = read_video(path, VideoPreprocessing(size=(4, 4), frames=3, stride=2))
    assert set(clip) == {"image"}
    assert clip["image"].shape == (1, 3, 3, 4, 4)
    assert clip["image"].dtype == np.float32
    assert shown(clip) == [0, 20, 40]


@pytest.mark.parametrize(("rate", "expected"), [(50, [0, 20, 40]), (25, [0, 10, 20]), (10, [0, 0, 0, 10, 10, 20])])
def test_pictures_are_taken_by_time_when_the_film_has_another_frame_rate(tmp_path, rate, expected):
    path = make_video(tmp_path / "film.mkv", range(0, 60, 10), rate=rate)
    clip = read_video(path, VideoPreprocessing(size=(4, 4), frames=len(expected), frame_rate=25))
    assert shown(clip) == expected  # 40 ms apart


def test_a_picture_is_scaled_to_cover_the_size_and_cropped_in_the_middle(tmp_path):
    left_to_right = np.repeat(np.repeat([[0, 100, 200]], 4, axis=0), [4, 8, 4], axis=1)  # 4 x 16
    path = tmp_path / "film.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 16, 4, "bgr0"
        pixels = np.repeat(left_to_right[..., None], 3, axis=-1).astype(np.uint8)
        container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
    clip = read_video(path, VideoPreprocessing(size=(4, 8), frames=1))
    assert shown(clip) == [100]


def test_sound_goes_with_the_pictures(tmp_path):
    sound = noise(800)
    path = make_video(tmp_path / "film.mkv", range(10), sound=sound)
    clip = read_video(path, WITH_SOUND)
    assert clip["audio"].shape == (1, 240, 1)  # 3 pictures, 80 samples each
    np.testing.assert_array_equal(clip["audio"][0, :, 0], sound[0, :240])  # same rate, lossless


def test_stereo_is_mixed_down_and_gain_clips_at_full_scale(tmp_path):
    sound = noise(800, channels=2)
    path = make_video(tmp_path / "film.mkv", range(10), sound=sound)
    plain = read_video(path, WITH_SOUND)["audio"][0, :, 0]
    np.testing.assert_allclose(plain, sound.mean(axis=0)[:240], atol=1e-6)  # float32 additions
    louder = read_video(path, WITH_SOUND.model_copy(update={"gain": 3.0}))["audio"][0, :, 0]
    np.testing.assert_allclose(louder, np.clip(3 * plain, -1, 1), atol=1e-6)
    assert np.abs(louder).max() == 1


def test_sound_is_resampled_to_the_stated_rate(tmp_path):
    tone = np.sin(2 * np.pi * 50 * np.arange(2000) / 2000, dtype=np.float32)[None]
    path = make_video(tmp_path / "film.mkv", range(25), sound=tone)
    halved = read_video(path, WITH_SOUND.model_copy(update={"sample_rate": 1000, "frames": 20}))["audio"][0, :, 0]
    expected = np.sin(2 * np.pi * 50 * np.arange(800) / 1000)
    assert len(halved) == 800
    np.testing.assert_allclose(halved[50:-50], expected[50:-50], atol=0.01)  # the filter's ripple, away from the ends


def test_a_sound_track_that_ends_within_the_last_picture_is_filled_with_zeros(tmp_path):
    path = make_video(tmp_path / "film.mkv", range(10), sound=noise(200))
    clip = read_video(path, WITH_SOUND)
    assert (clip["audio"][0, 200:] == 0).all()
    assert (clip["audio"][0, :200] != 0).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read as a video"),
        (b"no video at all", "cannot be read as a video"),
        ((MEDIA / "bunny.mp4").read_bytes()[:3000], "cannot be read as a video"),
    ],
    ids=["absent", "empty", "text", "cut off"],
)
def test_what_is_no_video_is_refused(tmp_path, content, message):
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"film\.mp4 {message}"):
        read_video(path, WITH_SOUND)


def test_a_damaged_stream_is_refused(tmp_path):
    content = bytearray((MEDIA / "bunny.mp4").read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin : begin + 2000] = bytes(2000)
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"film\.mp4 cannot be read as a video"):
        read_video(path, WITH_SOUND)


def test_too_little_of_a_film_is_refused(tmp_path):
    path = make_video(tmp_path / "short.mkv", range(5), sound=noise(100))
    with pytest.raises(InputError, match=r"has 3 pictures \(stride 2\); the model takes 4"):
        read_video(path, VideoPreprocessing(size=(4, 4), frames=4, stride=2))
    with pytest.raises(InputError, match=r"has 100 samples of sound at 2000 Hz.* takes 240"):
        read_video(path, WITH_SOUND)


def test_a_film_without_sound_is_refused_where_the_sound_counts():
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound track"):
        read_video(MEDIA / "silent.mp4", WITH_SOUND)


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 4, "NONE", ""))
        file.writeframes(bytes(8))
    with pytest.raises(InputError, match="has no pictures, only sound"):
        read_video(path, WITH_SOUND)


def test_preprocessing_refuses_sound_that_does_not_keep_pace():
    with pytest.raises(ValueError, match="needs frame_rate"):
        VideoPreprocessing(size=(4, 4), frames=3, sample_rate=2000)
    with pytest.raises(ValueError, match="not a whole number of samples"):
        VideoPreprocessing(size=(4, 4), frames=3, frame_rate=30, sample_rate=2000)


def test_what_is_written_is_what_was_read(tmp_path):
    preprocessing = WITH_SOUND.model_copy(update={"gain": 2.0, "size": (54, 96), "frames": 8})
    clip = read_example(MEDIA / "bunny.mp4", preprocessing, {})
    written = write_clip(tmp_path / "out", clip, preprocessing)
    assert [Path(path).name for path in written] == [*(f"frame-{index:03d}.png" for index in range(8)), "sound.wav"]
    pixels = np.asarray(Image.open(written[3]))
    np.testing.assert_array_equal(pixels, np.round(255 * np.moveaxis(clip["image"][0, 3], 0, -1)))
    with wave.open(written[-1]) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 2000, 640)
        samples = np.frombuffer(file.readframes(640), "<i2") / 32767
    np.testing.assert_allclose(2 * samples, clip["audio"][0, :, 0], atol=1 / 32767)  # half a step of 16 bits, doubled
    with pytest.raises(UsageError, match="has files already"):
        write_clip(tmp_path / "out", clip, preprocessing)
