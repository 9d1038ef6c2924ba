"""Chi-square tests with the error of the first kind fixed at 1e-4. Samples come from seeds, so a verdict never changes."""

from collections import Counter
from math import sqrt
from statistics import NormalDist

ALPHA = 1e-4
LEAST_EXPECTED = 5  # the approximation needs that many in every cell; rarer outcomes are counted together


def critical(freedom):
    """The value that chi-square exceeds with probability ALPHA (Wilson and Hilferty's approximation)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + NormalDist().inv_cdf(1 - ALPHA) * sqrt(part)) ** 3


def is_uniform(outcomes, choices):
    """Whether the outcomes are consistent with `choices` equally likely ones."""
    counts = Counter(outcomes)
    expected = counts.total() / choices
    assert expected >= LEAST_EXPECTED
    seen = sum((count - expected) ** 2 / expected for count in counts.values())
    return len(counts) <= choices and seen + (choices - len(counts)) * expected <= critical(choices - 1)


def are_alike(*samples):
    """Whether several samples are consistent with one distribution."""
    counts = [Counter(sample) for sample in samples]
    together = sum(counts, Counter())
    total = together.total()
    shares = [count.total() / total for count in counts]
    rare = {outcome for outcome, count in together.items() if count * min(shares) < LEAST_EXPECTED}
    outcomes = [{outcome} for outcome in together if outcome not in rare] + ([rare] if rare else [])
    if len(outcomes) == 1:
        return True
    seen = 0.0
    for group in outcomes:
        row = sum(together[outcome] for outcome in group)
        for count, share in zip(counts, shares, strict=True):
            expected = row * share
            seen += (sum(count[outcome] for outcome in group) - expected) ** 2 / expected
    return seen <= critical((len(outcomes) - 1) * (len(samples) - 1))
