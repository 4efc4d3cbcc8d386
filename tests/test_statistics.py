"""The interval, the tests and Holm's correction against hand-made numbers and plain enumeration."""

import itertools
import warnings

import numpy as np
import pytest

from nnunet_skd.tools.evaluate.statistics import bootstrap_interval, holm, sign_flip_p, smallest_p, wilcoxon_p

VALUES = np.random.default_rng(5).normal(0.8, 0.1, size=400)


def enumerated_sign_flip_p(differences):
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return np.mean(np.array(sums) >= abs(np.sum(differences)) - 1e-9)


def test_interval_of_many_normal_values_is_the_textbook_one():
    half = 1.96 * VALUES.std(ddof=1) / np.sqrt(len(VALUES))
    low, high = bootstrap_interval(VALUES)
    assert low == pytest.approx(VALUES.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(VALUES.mean() + half, abs=0.1 * half)


def test_interval_follows_the_skew_of_the_values():
    low, high = bootstrap_interval([0.9] * 18 + [0.1, 0.3])
    mean = (0.9 * 18 + 0.4) / 20
    assert mean - low > 1.3 * (high - mean)


def test_interval_repeats():
    assert bootstrap_interval(VALUES) == bootstrap_interval(VALUES)


def test_interval_leaves_nan_out():
    assert bootstrap_interval([0.1, np.nan, 0.5, 0.9, np.nan]) == bootstrap_interval([0.1, 0.5, 0.9])


@pytest.mark.parametrize("values", [[], [0.5], [0.5, np.nan], [0.5, np.inf]])
def test_interval_does_not_exist(values):
    assert np.isnan(bootstrap_interval(values)).all()


@pytest.mark.parametrize("values", [[0.7, 0.7, 0.7], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_interval_of_equal_values_is_a_point_without_warnings(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap_interval(values) == (values[0], values[0])


def test_wilcoxon_by_hand():
    # Ranks 1..6, the only negative one is 2: rank sums <= 2 are {}, {1}, {2}, so p = 2 * 3 / 64.
    assert wilcoxon_p([1, -2, 3, 4, 5, 6]) == pytest.approx(6 / 64)
    assert wilcoxon_p([1, -2, 3, 0, 4, 5, 0, 6, np.nan]) == pytest.approx(6 / 64)


def test_sign_flip_is_exact_for_few_cases():
    differences = np.array([0.3, -0.1, 0.2, 0.25, 0.05, -0.02, 0.4])
    assert sign_flip_p(differences) == pytest.approx(enumerated_sign_flip_p(differences))
    assert sign_flip_p([*differences, 0, np.nan]) == sign_flip_p(differences)


def test_sign_flip_of_many_cases_comes_near_the_exact_p():
    differences = np.random.default_rng(1).normal(0.5, 1, size=16)
    assert sign_flip_p(differences) == pytest.approx(enumerated_sign_flip_p(differences), abs=0.01)
    assert sign_flip_p(np.ones(40)) == pytest.approx(2 / 10000)


@pytest.mark.parametrize("test", [wilcoxon_p, sign_flip_p])
def test_paired_tests_at_their_limits(test):
    assert test([0.0, 0.0, 0.0]) == 1
    assert test([0.3]) == 1
    assert np.isnan(test([]))
    assert np.isnan(test([np.nan]))
    assert np.isnan(test([0.1, np.inf]))
    assert test(np.array([0.1, 0.2, -0.05, 0.3])) == test(-np.array([0.1, 0.2, -0.05, 0.3]))


@pytest.mark.parametrize("test", [wilcoxon_p, sign_flip_p])
@pytest.mark.parametrize("cases", [1, 2, 5, 6, 8])
def test_no_test_goes_below_the_smallest_p(test, cases):
    assert test(np.arange(1, cases + 1)) == pytest.approx(smallest_p(cases))
    assert smallest_p(5) == 0.0625
    assert smallest_p(0) == 1


def test_a_change_is_a_tie_whatever_its_last_bit():
    assert wilcoxon_p([0.8 - 0.7, 0.6 - 0.5, 0.3]) == wilcoxon_p([0.1, 0.1, 0.3])


def test_holm_by_hand():
    # Ascending: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 raised to its predecessor's 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).size == 0


def test_holm_does_not_count_tests_that_were_not_done():
    assert holm([np.nan, 0.01, 0.04]) == pytest.approx([np.nan, 0.02, 0.04], nan_ok=True)
