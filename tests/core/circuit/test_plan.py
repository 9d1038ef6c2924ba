from dataclasses import replace

import pytest

from onionrelay.base.errors import UsageError
from onionrelay.core.circuit.engine import CircuitPlan
from onionrelay.wire.build import Role
from tests.core.circuit.world import World, with_record


@pytest.fixture(scope="module")
def plan():
    return World(3).plan()


def test_a_plan_has_one_to_six_hops(plan):
    for hops in ((), plan.hops[:1] * 6 + plan.hops[-1:]):
        with pytest.raises(UsageError):
            replace(plan, hops=hops)
    assert len(CircuitPlan((*plan.hops[:1] * 5, plan.hops[-1]), 60.0).hops) == 6


def test_the_last_hop_and_no_other_is_the_end(plan):
    with pytest.raises(UsageError):
        replace(plan, hops=plan.hops[:-1])
    with pytest.raises(UsageError):
        with_record(plan, 1, role=Role.ENDPOINT, next_id=None)


def test_large_cells_are_for_all_hops_or_none(plan):
    with pytest.raises(UsageError):
        with_record(plan, 2, bulk=False)
