"""The log-mel spectrogram against scipy's transform and the mel scale written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from perceiver_deploy.model.inputs.audio import AudioInput, AudioInputAdapter
from perceiver_deploy.model.inputs.log_mel import LogMel, LogMelSpectrogram, mel_filters
from perceiver_deploy.model.positions import FourierPositions

CONFIG = LogMel(sample_rate=8000, num_mels=40, window=256)
PATCH = 160


def spectrogram_of(sound, config=CONFIG, patch=PATCH):
    """Frames [tokens, num_mels] of a float64 sound [samples] in float64."""
    patches = torch.from_numpy(sound).reshape(1, -1, patch)
    return LogMelSpectrogram(config, patch)(patches)[0].numpy()


def written_out(sound, config, patch):
    """The same by scipy's short-time transform and the formulas of the HTK book, section 5.4 to 5.6."""
    before = (config.window - patch) // 2
    padded = np.concatenate([np.zeros(before), sound, np.zeros(config.window - patch - before)])
    window = signal.get_window("hann", config.window)
    _, _, spectra = signal.stft(
        padded,
        fs=config.sample_rate,
        window=window,
        nperseg=config.window,
        noverlap=config.window - patch,
        boundary=None,
        padded=False,
    )
    power = np.abs(spectra * window.sum()) ** 2 / (window**2).sum()
    top = 1127 * np.log(1 + config.sample_rate / 2 / 700)
    frames = np.empty((power.shape[1], config.num_mels))
    for band in range(config.num_mels):
        left, centre, right = (
            700 * (np.exp(top * (band + offset) / (config.num_mels + 1) / 1127) - 1) for offset in range(3)
        )
        weights = np.interp(np.fft.rfftfreq(config.window, 1 / config.sample_rate), [left, centre, right], [0, 1, 0])
        frames[:, band] = weights @ power / weights.sum()
    decibels_above_floor = 10 * np.log10(np.maximum(frames, config.floor) / config.floor)
    return 2 * decibels_above_floor / (-10 * np.log10(config.floor)) - 1


@pytest.mark.parametrize(
    ("config", "patch"),
    [
        (CONFIG, PATCH),
        (LogMel(sample_rate=16000, num_mels=23, window=401, floor=1e-9), 100),  # odd window, unequal padding
        (LogMel(sample_rate=8000, num_mels=10, window=64), 64),  # no overlap
    ],
)
def test_frames_are_those_of_scipy_and_the_mel_formula(config, patch):
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal(patch * 20) * np.linspace(0, 1, patch * 20) ** 4  # over several decades of power
    # the constants are float32, as weights are: 6e-8 relative in each, seen through a logarithm
    np.testing.assert_allclose(spectrogram_of(sound, config, patch), written_out(sound, config, patch), atol=1e-5)


def test_silence_is_minus_one_and_white_noise_of_variance_one_is_one():
    assert np.all(spectrogram_of(np.zeros(PATCH * 3)) == -1)
    noise = np.random.default_rng(0).standard_normal(PATCH * 2000)
    # the mean of the logarithm of a power that is exponentially distributed lies 0.58 below the logarithm of its mean,
    # and less where a band averages several bins: at most 0.08 in these units
    assert spectrogram_of(noise).mean(0) == pytest.approx(1, abs=0.09)


def test_a_tone_is_loudest_in_the_band_around_its_frequency():
    tone = np.sin(2 * np.pi * 1000 / 8000 * np.arange(PATCH * 10))
    centres = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42)[1:-1] / 2595) - 1)
    assert set(spectrogram_of(tone)[1:-1].argmax(1)) == {int(np.abs(centres - 1000).argmin())}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_half_precision_computes_it_in_float32(dtype):
    sound = torch.from_numpy(0.01 * np.random.default_rng(0).standard_normal((1, 20, PATCH))).to(dtype)
    module = LogMelSpectrogram(CONFIG, PATCH)
    half = module.to(dtype)(sound)
    assert half.dtype == dtype
    assert torch.equal(half, module(sound.float()).to(dtype))


def test_autocast_does_not_reach_it():
    sound = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 20, PATCH)).astype(np.float32))
    module = LogMelSpectrogram(CONFIG, PATCH)
    expected = module(sound)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(sound), expected)


def test_constants_are_no_part_of_a_checkpoint():
    assert LogMelSpectrogram(CONFIG, PATCH).state_dict() == {}


def test_what_a_mask_hides_does_not_reach_the_frames_beside_it():
    adapter = AudioInputAdapter(
        AudioInput(FourierPositions(2, (8,)), samples=800, samples_per_patch=PATCH, log_mel=CONFIG)
    )
    audio = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 5 * PATCH, 1)).astype(np.float32))
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    silenced = audio.clone()
    silenced[:, 3 * PATCH :] = 0
    assert torch.equal(adapter(audio, mask), adapter(silenced, mask))
    assert not torch.equal(adapter(audio)[:, 2], adapter(silenced)[:, 2])


def test_filters_each_sum_to_one():
    # rows of float64 numbers divided by their sum
    np.testing.assert_allclose(mel_filters(CONFIG).sum(1), 1, rtol=1e-12)


def test_more_bands_than_the_window_resolves_are_refused():
    with pytest.raises(ValueError, match="num_mels 80 is too many for a window of 128 samples"):
        LogMelSpectrogram(LogMel(sample_rate=8000, num_mels=80, window=128), 80)


def test_a_window_shorter_than_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"log_mel\.window 128 with samples_per_patch 160"):
        AudioInput(
            FourierPositions(2, (8,)),
            samples=800,
            samples_per_patch=PATCH,
            log_mel=LogMel(sample_rate=8000, num_mels=10, window=128),
        )


@pytest.mark.parametrize("floor", [0.0, 1.0, -1e-6])
def test_a_floor_outside_of_zero_to_one_is_refused(floor):
    with pytest.raises(ValueError, match="expected more than 0 and less than 1"):
        LogMel(sample_rate=8000, num_mels=10, window=128, floor=floor)
