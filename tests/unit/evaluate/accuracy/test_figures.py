"""What scores lost against others on the same examples."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.evaluate.accuracy.figures import lost


def test_hits_that_were_lost_one_sided_are_significant_and_few_are_not():
    before = np.ones(100)
    after = before.copy()
    after[:10] = 0
    drop, (low, high), significant = lost(after, before, higher_is_better=True)
    assert drop == 0.1
    assert 0 < low < 0.1 < high
    assert significant
    after[:] = 1
    after[:2] = 0
    assert not lost(after, before, higher_is_better=True)[2]  # McNemar: two of two is p = 0.5


def test_error_that_grew_is_a_loss():
    before = np.linspace(1, 2, 50)
    drop, (low, _), significant = lost(before + np.linspace(0.1, 0.3, 50), before, higher_is_better=False)
    assert np.isclose(drop, 0.2, rtol=1e-12)
    assert low > 0
    assert significant


def test_score_that_is_gone_means_that_everything_is_lost():
    assert lost(np.array([1, np.nan]), np.array([1.0, 1.0]), higher_is_better=True) is None
    assert lost(np.array([1, np.nan]), np.array([1.0, np.nan]), higher_is_better=True) == (0, (0, 0), False)
