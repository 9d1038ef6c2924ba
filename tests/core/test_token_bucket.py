from onionrelay.core.token_bucket import TokenBucket


def test_a_burst_then_the_rate():
    bucket = TokenBucket(rate=2, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]


def test_it_never_holds_more_than_the_burst():
    bucket = TokenBucket(rate=2, burst=3, now=0.0)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_refused_take_costs_nothing():
    bucket = TokenBucket(rate=1, burst=2, now=0.0)
    assert not bucket.take(0.0, 3)
    assert bucket.take(0.0, 2)
