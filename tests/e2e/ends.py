"""The client and the target of test_no_one_knows_both_ends, each a tapped process: honest, or with a fault to be found.

    ends.py FAULT target ADDRESS TAPS listen ...        the ordinary command; tells its secrets as events besides
    ends.py FAULT client ADDRESS TAPS HOME NETWORK NODE_ID SENT RECEIVED

The client sends the marker SENT again and again, and checks that RECEIVED comes back as often; then it stays connected
until its standard input ends. Markers are in hex.
"""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import onionrelay
from onionrelay.core.attach.attachment import Attachment
from onionrelay.core.circuit import hop
from onionrelay.core.circuit.origin import Origin
from onionrelay.core.directory import reach
from onionrelay.crypto.layer import LayerForDec, LayerForEnc
from onionrelay.node.lifeline import hold_lifeline
from onionrelay.node.records import Records
from onionrelay.node.target import Target
from onionrelay.testing.tapped import come_from, run_program, tap, wrap
from onionrelay.wire.build import Role
from onionrelay.wire.directory import StoreResult

PORT = 80
MARKER = 32  # bytes
REPEATS = 16_384  # of a marker, in each direction


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


# Faults


def none():
    """Honest."""


def no_target_layer():
    """Client and target leave out the layer between them: the one that hides the data from the final hop."""

    class BareEnc(LayerForEnc):
        def enc(self, buf, start, size): ...
        def update(self): ...

    class BareDec(LayerForDec):
        def dec(self, buf, start, size): ...
        def update(self): ...

    def wrapped(opened):
        def _open(self, keys):
            opened(self, keys)
            if self.plan.hops[-2].record.role is Role.HANDLE:  # and not a circuit that ends at a relay
                end = self._layers[-1]
                end.forward, end.backward = BareDec(keys[-1].forward), BareDec(keys[-1].backward)

        return _open

    wrap(hop, "LayerForEnc", lambda _: BareEnc)
    wrap(Origin, "_open", wrapped)


def node_id_in_attach():
    """The target tells its final hops its node id, in an extension that they ignore."""
    node_ids = []

    def wrapped_start(start):
        async def wrapped(self):
            node_ids.append(self.node_id.raw)
            await start(self)

        return wrapped

    def wrapped_attach(attach):
        def wrapped(self, transcript):
            told = replace(attach(self, transcript), extensions=((1, node_ids[0]),))
            signature = self._secret.sign("attach", told.signed_part(self.final.relay_id, transcript))
            return replace(told, signature=signature)

        return wrapped

    wrap(Target, "start", wrapped_start)
    wrap(Attachment, "attach", wrapped_attach)


FAULTS = {fault.__name__: fault for fault in (none, no_target_layer, node_id_in_attach)}


# The target


def tell_secrets():
    """Makes the target say what it keeps from everybody, so that the test can look for it."""

    def wrapped_attach(attach):
        def wrapped(self, transcript):
            message = attach(self, transcript)
            tell(
                "attach",
                final=str(self.final.relay_id),
                handle=message.handle.raw.hex(),
                handle_secret=self._secret.seed.hex(),
                k_ticket=message.k_ticket.hex(),
            )
            return message

        return wrapped

    def wrapped_seal(seal_reach):
        def wrapped(plaintext, *args, **options):
            tell("sealed", onion_keys=plaintext[32 : 32 + 32 + 1184].hex())  # behind the node id
            return seal_reach(plaintext, *args, **options)

        return wrapped

    def wrapped_put(put):
        async def wrapped(self, key, record, storer):
            result = await put(self, key, record, storer)
            if result is StoreResult.STORED:
                tell("stored", storer=str(storer.relay_id), record=record.hex())
            return result

        return wrapped

    wrap(Attachment, "attach", wrapped_attach)
    wrap(reach, "seal_reach", wrapped_seal)
    wrap(Records, "put", wrapped_put)


# The client


async def client(home, network, node_id, sent, received):
    async with (
        onionrelay.Node(network, home=home) as node,
        node.connect(node_id, port=PORT) as stream,
    ):
        message = bytes.fromhex(sent) * REPEATS  # kept to the end, as a program may
        stream.writer.write(message)
        answer = await stream.reader.readexactly(MARKER * REPEATS)
        assert answer == bytes.fromhex(received) * REPEATS
        tell("done", path=[hop.relay_id for hop in stream.circuit.hops if hop.relay_id])
        await stream.circuit.wait_lost()


if __name__ == "__main__":
    fault, end, address, taps, *arguments = sys.argv[1:]
    tap(Path(taps))
    come_from(address)
    FAULTS[fault]()
    if end == "target":
        tell_secrets()
        run_program(arguments)
    else:
        hold_lifeline(0)
        asyncio.run(client(*arguments))
