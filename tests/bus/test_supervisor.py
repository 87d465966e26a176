"""Supervision: an actor that falls is started again, later each time, and a stop ends it for good."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from embedded_kit import eventually
from trunkline.embedded import EmbeddedServer
from trunkline_actors.bus import Bus, Delivery
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.supervisor import Supervised
from trunkline_events.connection import Connection
from trunkline_events.refusal import Refused

SUBJECT = "test.supervised"


class Brittle(ServiceActor):
    """Answers; falls when it is told something that is no delivery."""

    made = 0

    def __init__(self, bus: Bus, *, born_dead: bool = False) -> None:
        super().__init__(bus, "brittle", "1.0.0")
        type(self).made += 1
        self._born_dead = born_dead

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(name="ask", subject=SUBJECT, handler=self._answer)]

    async def starting(self) -> None:
        if self._born_dead:
            raise RuntimeError("no")
        await super().starting()

    async def _answer(self, delivery: Delivery) -> Refused | None:
        if delivery.data == b"raise":
            raise RuntimeError("a handler's error is answered, and nothing falls")
        await self.bus.publish(delivery.reply, b"here")
        return None


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with EmbeddedServer(store=tmp_path, port=0, durability="process") as server:
        connection = await Connection.open(server.url, name="test")
        yield Bus(connection)
        await connection.close()


async def ask(bus: Bus, data: bytes = b"") -> bytes:
    reply: bytes = (await bus.nats.request(SUBJECT, data, timeout=5)).data
    return reply


async def test_an_actor_that_falls_is_replaced_and_answers_again(bus: Bus) -> None:
    supervised = Supervised(lambda: Brittle(bus))
    await supervised.start()
    first = supervised.actor
    assert first is not None
    assert await ask(bus) == b"here"
    first.actor_ref.tell("not a delivery")  # unpacking it fails in the actor's own loop
    await eventually(lambda: supervised.actor is not first and supervised.actor is not None)
    assert supervised.actor is not None
    await supervised.actor.started
    assert supervised.restarts == 1
    assert await ask(bus) == b"here"
    assert await supervised.stop(timeout=5)


async def test_the_subscriptions_of_a_fallen_actor_do_not_answer_for_it(bus: Bus) -> None:
    """Its successor gets every message, or the sender is told to send again: none is lost in a dead mailbox."""
    supervised = Supervised(lambda: Brittle(bus))
    await supervised.start()
    first = supervised.actor
    assert first is not None
    first.actor_ref.tell("not a delivery")
    await eventually(lambda: supervised.actor is not first and supervised.actor is not None)
    assert supervised.actor is not None
    await supervised.actor.started
    assert {await ask(bus) for _ in range(20)} == {b"here"}
    await supervised.stop(timeout=5)


async def test_a_handlers_error_is_answered_without_its_words_and_nothing_falls(bus: Bus) -> None:
    supervised = Supervised(lambda: Brittle(bus))
    await supervised.start()
    message = await bus.nats.request(SUBJECT, b"raise", timeout=5)
    assert message.headers["Nats-Service-Error-Code"] == "500"
    assert b"nothing falls" not in message.data
    assert supervised.restarts == 0
    await supervised.stop(timeout=5)


async def test_what_keeps_the_first_one_from_starting_is_raised(bus: Bus) -> None:
    with pytest.raises(RuntimeError, match="no"):
        await Supervised(lambda: Brittle(bus, born_dead=True)).start()


async def test_an_actor_that_can_not_start_again_is_tried_until_it_can(bus: Bus) -> None:
    before = Brittle.made
    supervised = Supervised(lambda: Brittle(bus, born_dead=0 < Brittle.made - before < 3))
    await supervised.start()
    assert supervised.actor is not None
    supervised.actor.actor_ref.tell("not a delivery")
    await eventually(lambda: Brittle.made - before == 4)
    assert supervised.actor is not None
    await supervised.actor.started
    assert await ask(bus) == b"here"
    await supervised.stop(timeout=5)


async def test_a_stopped_actor_is_not_started_again(bus: Bus) -> None:
    supervised = Supervised(lambda: Brittle(bus))
    await supervised.start()
    before = Brittle.made
    assert await supervised.stop(timeout=5)
    assert Brittle.made == before
    with pytest.raises(Exception, match="no responders"):
        await ask(bus)
