"""What scores lost against others on the same examples."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.evaluate.accuracy.losses import loss_of_scores


def lost(found, before, *, higher_is_better):
    """The loss of a metric without a name."""
    return loss_of_scores(found, before, metric="metric", unit="px", higher_is_better=higher_is_better)


def test_hits_that_were_lost_one_sided_are_significant_and_few_are_not():
    before = np.ones(100)
    after = before.copy()
    after[:10] = 0
    loss = lost(after, before, higher_is_better=True)
    low, high = loss.interval
    assert loss.drop == 0.1
    assert 0 < low < 0.1 < high
    assert loss.significant
    assert loss.worse
    after[:] = 1
    after[:2] = 0
    assert not lost(after, before, higher_is_better=True).significant  # McNemar: two of two is p = 0.5


def test_error_that_grew_is_a_loss():
    before = np.linspace(1, 2, 50)
    loss = lost(before + np.linspace(0.1, 0.3, 50), before, higher_is_better=False)
    assert np.isclose(loss.drop, 0.2, rtol=1e-12)
    assert loss.interval[0] > 0
    assert loss.significant


def test_score_that_is_gone_means_that_everything_is_lost():
    gone = lost(np.array([1, np.nan]), np.array([1.0, 1.0]), higher_is_better=True)
    assert gone.everything
    assert gone.worse
    assert gone.examples == 2
    kept = lost(np.array([1, np.nan]), np.array([1.0, np.nan]), higher_is_better=True)
    assert (kept.drop, kept.interval, kept.significant, kept.examples) == (0, (0, 0), False, 1)


def test_hits_are_tested_on_the_examples_that_count():
    before = np.array([np.nan] + [1.0] * 9)
    loss = lost(before - np.array([0.0] + [1.0] * 9), before, higher_is_better=True)
    assert loss.test is not None
    assert (loss.test.lost, loss.test.won, loss.significant) == (9, 0, True)


def test_gain_is_significant_and_not_worse():
    before = np.zeros(20)
    assert lost(np.ones(20), before, higher_is_better=True).significant
    assert not lost(np.ones(20), before, higher_is_better=True).worse
