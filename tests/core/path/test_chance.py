import pytest

from tests.core.path.chance import are_alike, critical, is_uniform
from tests.seeded import SeededRng


@pytest.mark.parametrize(("freedom", "value", "error"), [(1, 15.137, 0.08), (10, 35.564, 0.02), (100, 161.319, 0.01)])
def test_critical_values_are_those_of_the_tables_or_a_little_above(freedom, value, error):
    assert 0.998 * value <= critical(freedom) <= (1 + error) * value


def test_a_fair_draw_passes_and_a_biased_one_does_not():
    rng = SeededRng(1)
    fair = [rng.below(20) for _ in range(4000)]
    biased = [rng.below(20) if rng.below(10) else 7 for _ in range(4000)]
    assert is_uniform(fair, 20)
    assert not is_uniform(biased, 20)
    assert not is_uniform(fair, 40)
    assert are_alike(fair, [rng.below(20) for _ in range(1000)])
    assert not are_alike(fair, biased)
