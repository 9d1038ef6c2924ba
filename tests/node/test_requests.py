"""Questions over a link: to a relay that answers, and to one that does not, or not well."""

import asyncio

import pytest

from onionrelay.base.errors import NetworkError, ProtocolViolation, TimedOut
from onionrelay.base.limits import MAX_RELAYS
from onionrelay.core.directory.service import DirectoryService
from onionrelay.core.directory.table import RelayTable
from onionrelay.node import requests as requests_module
from onionrelay.node.requests import Requests
from onionrelay.testing.overlay import until
from onionrelay.wire.directory import BUCKETS, DirData, DirGet, DirReceipt, StoreResult, from_control, to_control
from tests.core.relays import NOW, TESTNET, local_relays, table_of
from tests.node.overlays import AT_ONCE
from tests.node.parties import parties


class Conversation:
    """A party that asks, and one whose answers a test writes: `answer(question)`, None for silence."""

    def __init__(self, here, there):
        self.here, self.there = here, there
        self.requests = Requests(here.driver)
        self.asked = []
        self.answer = lambda question: None
        there.on_message = self._on_question
        here.on_message = self._on_answer
        here.on_link_down = self.requests.on_link_down

    async def open(self):
        self.channel = await self.here.dial(self.there)
        return self

    def _on_question(self, channel, cmd, kind, body):
        request_id, question = from_control(cmd, kind, body)
        self.asked.append((channel, request_id, question))
        if (answer := self.answer(question)) is not None:
            self.there.driver.send_control(channel, *to_control(answer, request_id))

    def _on_answer(self, channel, cmd, kind, body):
        self.requests.on_answer(channel, *from_control(cmd, kind, body))


@pytest.fixture
async def talk():
    async with parties(clock=lambda: NOW) as (here, there):
        yield await Conversation(here, there).open()


async def test_answers_find_their_questions(talk):
    late = []
    talk.there.on_message = lambda channel, cmd, kind, body: late.append((channel, *from_control(cmd, kind, body)))
    asking = [asyncio.create_task(talk.requests.ask(talk.channel, DirGet(bucket))) for bucket in range(3)]
    await until(lambda: len(late) == 3)
    for channel, request_id, question in reversed(late):
        talk.there.driver.send_control(channel, *to_control(DirData(question.first_bucket + 1, ()), request_id))
    assert [page.next_bucket for page in await asyncio.gather(*asking)] == [1, 2, 3]


async def test_no_answer_in_time(talk, monkeypatch):
    monkeypatch.setattr(requests_module, "ANSWER_TIMEOUT", 0.05)
    with pytest.raises(TimedOut, match="a relay's answer about the relay table"):
        await talk.requests.ask(talk.channel, DirGet(0))
    channel, request_id, _ = talk.asked[0]
    talk.there.driver.send_control(channel, *to_control(DirData(256, ()), request_id))  # too late, and no matter
    talk.answer = lambda question: DirData(256, ())
    assert await talk.requests.ask(talk.channel, DirGet(0)) == DirData(256, ())
    assert not talk.requests._waiting


async def test_a_link_that_ends_is_the_answer(talk):
    asking = asyncio.create_task(talk.requests.ask(talk.channel, DirGet(0)))
    await until(lambda: talk.asked)
    talk.there.driver.close_link(talk.asked[0][0])
    with pytest.raises(NetworkError, match="closed"):
        await asking
    assert not talk.requests._waiting


async def test_a_link_that_has_ended_is_not_asked(talk):
    talk.here.driver.close_link(talk.channel)
    await talk.here.driver.wait_down(talk.channel)
    with pytest.raises(NetworkError, match="gone"):
        async with asyncio.timeout(AT_ONCE):
            await talk.requests.ask(talk.channel, DirGet(0))


async def test_another_link_that_ends_is_no_matter(talk):
    other = await talk.here.dial(talk.there)
    asking = asyncio.create_task(talk.requests.ask(talk.channel, DirGet(0)))
    await until(lambda: talk.asked)
    talk.here.driver.close_link(other)
    await talk.here.driver.wait_down(other)
    channel, request_id, _ = talk.asked[0]
    talk.there.driver.send_control(channel, *to_control(DirData(256, ()), request_id))
    assert await asking == DirData(256, ())


async def test_a_table_is_fetched_whole_page_by_page(talk):
    relays = local_relays(60)  # more than one page takes
    their = table_of(*relays)
    service = DirectoryService(their, None)
    talk.answer = lambda question: service.answer(question, NOW)
    mine = RelayTable(TESTNET)
    assert await talk.requests.fetch_table(talk.channel, mine) == 60
    assert {entry.digest for entry in mine} == {entry.digest for entry in their}
    buckets = [question.first_bucket for _, _, question in talk.asked]
    assert len(buckets) > 1
    assert buckets == sorted(set(buckets))
    assert buckets[0] == 0


async def test_a_descriptor_that_does_not_hold_costs_no_other(talk):
    good, bad = (relay.describe() for relay in local_relays(2))
    talk.answer = lambda question: DirData(BUCKETS, (b"junk", bad[:-1] + bytes([bad[-1] ^ 1]), good))
    table = RelayTable(TESTNET)
    assert await talk.requests.fetch_table(talk.channel, table) == 3
    assert [entry.raw for entry in table] == [good]


@pytest.mark.parametrize(
    "answer",
    [
        DirData(1, ()),  # on from bucket 0, but from 1 it leads back to itself
        DirReceipt(StoreResult.STORED),  # is none
    ],
)
async def test_a_page_that_leads_nowhere_ends_the_fetch(talk, answer):
    talk.answer = lambda question: answer
    with pytest.raises(ProtocolViolation, match="no page"):
        await talk.requests.fetch_table(talk.channel, RelayTable(TESTNET))


async def test_a_table_has_an_end(talk):
    talk.answer = lambda question: DirData(question.first_bucket + 1, (b"x",) * 5000)
    with pytest.raises(ProtocolViolation, match="more relays than"):
        await talk.requests.fetch_table(talk.channel, RelayTable(TESTNET))
    assert len(talk.asked) == MAX_RELAYS // 5000 + 1


async def test_a_push_returns_its_receipt(talk):
    talk.answer = lambda question: DirReceipt(StoreResult.STALE)
    assert await talk.requests.push(talk.channel, b"a descriptor") == DirReceipt(StoreResult.STALE)
    assert talk.asked[0][2].descriptor == b"a descriptor"


async def test_a_push_wants_a_receipt(talk):
    talk.answer = lambda question: DirData(256, ())
    with pytest.raises(ProtocolViolation, match="no receipt"):
        await talk.requests.push(talk.channel, b"a descriptor")
