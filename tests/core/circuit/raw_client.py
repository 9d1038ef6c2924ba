"""A client that keeps no rules: it writes the cells itself, on a link that an honest client has set up."""

from onionrelay.base.limits import BUILD, LARGE_DATA, RECORD_PLAINTEXT, SMALL_BODY, SMALL_DATA
from onionrelay.core.circuit.end import write_cell
from onionrelay.core.circuit.origin import HopLayers
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.crypto.build import CircuitSealer
from onionrelay.crypto.ticket import build_ticket
from onionrelay.testing.memory_net import K_TICKET
from onionrelay.wire.build import BuildStatus, ReplyBody, Role
from onionrelay.wire.cell import Cmd, pack_cell
from onionrelay.wire.relay import RelayCmd, pack_payload, parse_payload
from tests.core.circuit.world import header
from tests.seeded import SeededRng


class RawClient:
    """Its circuit has the id `circ_id` on the link to the first relay; `heard` are the cells that came back on it."""

    def __init__(self, world, circ_id=0x1234):
        self.world = world
        self.circ_id = circ_id
        self.rng = SeededRng(circ_id)
        channel = world.net.channel(world.client, world.relays[0], LinkPurpose.GUARD)
        world.net.run_until(lambda: channel.peer is not None)
        pipe = world.net.between(world.client, world.relays[0])
        self.out = pipe.forth
        self.heard = []
        pipe.back.adversary = self._hear

    def _hear(self, cell):
        if header(cell)[0] != self.circ_id:
            return (cell,)
        self.heard.append(cell)
        return ()

    def send(self, *cells, seconds=0.2):
        """Sends cells under the circuit's id, whatever theirs is; what comes back meanwhile."""
        before = len(self.heard)
        self.out.send(b"".join(self.circ_id.to_bytes(4) + cell[4:] for cell in cells))
        self.world.net.run(seconds)
        return [(header(cell)[1], cell[8:]) for cell in self.heard[before:]]

    def seal(self, plan):
        """The seven cells of a build, and what opens the answer."""
        sealer = CircuitSealer(self.world.net.net_id, [(hop.identity, hop.onion) for hop in plan.hops], self.rng)
        records = []
        for index, hop in enumerate(plan.hops):
            ticket = build_ticket(K_TICKET, sealer.ephemeral(index)) if hop.record.role is Role.HANDLE else bytes(16)
            plaintext = bytearray(hop.record.encode(bytes(RECORD_PLAINTEXT)))
            plaintext[70:86] = ticket
            records.append(bytes(plaintext))
        message = sealer.seal(records)
        cells = [pack_cell(1, Cmd.BUILD, message[at : at + SMALL_BODY]) for at in range(0, BUILD, SMALL_BODY)]
        return cells, sealer

    def build(self, plan):
        """(the last answer's status, the layers shared with each hop that answered)."""
        cells, sealer = self.seal(plan)
        (reply,) = (body for cmd, body in self.send(*cells) if cmd == Cmd.BUILT)
        answers = sealer.open_reply(reply).hops
        status = ReplyBody.decode(answers[-1].body).status
        assert isinstance(status, BuildStatus)
        return status, [HopLayers(answer.keys) for answer in answers]

    def cell(self, layers, hop, payload):
        """The relay cell that carries a payload to a hop, counted from 1."""
        buf = bytearray(20_000)
        size = write_cell(buf, payload)
        layers[hop - 1].forward.mark(buf, 0)
        for layer in layers[hop - 1 :: -1]:
            layer.forward.dec(buf, 0, size)
        layers[hop - 1].forward.update()
        return bytes(buf[:size])

    def message(self, layers, hop, cmd, data, *, rid=0, large=False):
        """The cell of a one-cell message."""
        room = LARGE_DATA if large else SMALL_DATA
        return self.cell(layers, hop, pack_payload(cmd, rid, data, room=room))

    def open(self, layers, body, cmd=Cmd.RELAY):
        """(hop, payload) of a relay cell's body, or (0, None) when it is no hop's."""
        buf = bytearray(bytes([0, 0, 0, 0, cmd, 0, 0, 0]) + body + bytes(16))
        for hop, layer in enumerate(layers, 1):
            layer.backward.dec(buf, 0, len(buf) - 16)
            if layer.backward.is_mine(buf, 0):
                layer.backward.update()
                return hop, parse_payload(buf[24 : len(buf) - 16])
        return 0, None

    def echo(self, layers, hop):
        """What a hop echoes."""
        ((cmd, body),) = self.send(self.message(layers, hop, RelayCmd.ECHO, b"12345678"))
        assert cmd == Cmd.RELAY
        answered, payload = self.open(layers, body)
        assert (answered, payload.cmd) == (hop, RelayCmd.ECHOED)
        return payload.data
