"""A path of hops that builds circuits: the client's sealer on one side, onion secrets on the other."""

from onionrelay.crypto.build import CircuitSealer, open_build
from onionrelay.crypto.onion_keys import OnionSecret
from tests.seeded import SeededRng

NET = b"test-net"


class Path:
    def __init__(self, hops, seed=0):
        self.rng = SeededRng(seed)
        self.identities = [self.rng.token(32) for _ in range(hops)]
        self.secrets = [OnionSecret.generate(self.rng) for _ in range(hops)]
        self.plaintexts = [self.rng.token(152) for _ in range(hops)]
        self.sealer = self.new_sealer()

    def new_sealer(self, rng=None):
        hops = [(identity, secret.public) for identity, secret in zip(self.identities, self.secrets, strict=True)]
        return CircuitSealer(NET, hops, rng or self.rng)

    def seal(self):
        return self.sealer.seal(self.plaintexts)

    def open(self, hop, message):
        return open_build(message, [self.secrets[hop]], self.identities[hop], NET, self.rng)

    def open_all(self, message, through=None):
        """What each hop opened, in path order."""
        opened = []
        for hop in range(len(self.secrets) if through is None else through):
            opened.append(self.open(hop, message))
            message = opened[-1].onward
        return opened

    def answer(self, opened, bodies):
        """The reply as the client receives it; the last of `opened` answers first."""
        reply = None
        for hop, body in zip(reversed(opened), reversed(bodies), strict=True):
            reply = hop.reply(body, reply)
        return reply


def messages_of(path):
    """The message as each hop receives it."""
    message = path.seal()
    return [message, *(opened.onward for opened in path.open_all(message)[:-1])]
