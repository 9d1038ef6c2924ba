"""The home: what a node, a relay or a client keeps from one run to the next. specs/11-files.md.

::

    node.key              the node id's secret
    relay.key             the relay id's secret
    signing.key           the relay's current signing key and its certificate
    relay.toml            where the relay listens and what it advertises
    network.toml          the network joined
    <net id>/guards.json  the guards and vanguards chosen in that network, opaque here
    <net id>/table        the relay table as last seen there, opaque here

Guards belong to their network: with one file for all, a command with another --network would find its guard gone and
choose anew, and a client that keeps choosing guards ends up with a bad one.

A missing or unusable home is a HomeError, a file that cannot be meant a ConfigError; both say what to do.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from onionrelay.base.errors import ConfigError, HomeError, NoNetwork, OnionRelayError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import (
    GUARD_FILE,
    KEY_FILE,
    NETWORK_FILE,
    SIGNING_CERT_LIFE,
    SIGNING_CERT_RENEW,
    TABLE_FILE,
    TIME_WINDOW,
)
from onionrelay.base.seams import Rng
from onionrelay.core.link.handshake import LinkIdentity
from onionrelay.core.link.identity import check_signing_cert, make_signing_cert
from onionrelay.crypto.signing import SEED_SIZE, SigningSecret
from onionrelay.node.folder import Folder, MemoryFiles
from onionrelay.node.key_file import key_line, read_key_line
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.relay_settings import RelaySettings
from onionrelay.wire.invite import Invite
from onionrelay.wire.link import SigningCert

T = TypeVar("T")

NODE_KEY, RELAY_KEY, SIGNING_KEY = "node.key", "relay.key", "signing.key"
SETTINGS, NETWORK = "relay.toml", "network.toml"
KINDS = {NODE_KEY: "onionrelay-node-key", RELAY_KEY: "onionrelay-relay-key", SIGNING_KEY: "onionrelay-signing-key"}
MAKERS = {
    NODE_KEY: "`onionrelay listen --home {home}` makes one",
    RELAY_KEY: "`onionrelay relay init --home {home} --listen tls://ADDRESS:PORT` makes one",
}
HOW_TO_GET_A_NETWORK = (
    "get its file from a member and run `onionrelay network join FILE`, or name it with --network FILE or "
    "ONIONRELAY_NETWORK; `onionrelay network new` makes a network, `onionrelay demo` shows one"
)


class Home:
    """The home folder at `path`. Nothing is made before something is kept.

    `notices`: sentences for the person; `on_notice` is called with each as it comes up.
    """

    def __init__(self, path: Path, on_notice: Callable[[str], None] = lambda _: None) -> None:
        self.where = str(path)
        self.notices: list[str] = []
        self._on_notice = on_notice
        self._files: Folder | MemoryFiles = Folder(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r})"

    # keys

    def node_secret(self) -> SigningSecret:
        """The node id's secret; HomeError when there is none yet."""
        return SigningSecret(self._seed(NODE_KEY))

    def make_node_secret(self, rng: Rng) -> SigningSecret:
        """The node id's secret, made when there is none."""
        return SigningSecret(self._make_seed(NODE_KEY, rng))

    def init_relay(self, listen: Sequence[str], advertise: Sequence[str], rng: Rng) -> Invite:
        """Makes a relay and returns its invite; ConfigError when there is one here."""
        settings = RelaySettings.of(listen, advertise)
        if self._files.read(SETTINGS, NETWORK_FILE) is not None:
            raise ConfigError(f"there is a relay in {self.where} already: edit its relay.toml, or use another --home")
        secret = SigningSecret(self._make_seed(RELAY_KEY, rng))
        self._files.write(SETTINGS, settings.text().encode())
        return Invite(RelayId(secret.public), settings.endpoint)

    def relay_settings(self) -> RelaySettings:
        """Where the relay listens; HomeError when `init_relay` never ran."""
        data = self._files.read(SETTINGS, NETWORK_FILE)
        if data is None:
            raise self._missing(SETTINGS, RELAY_KEY)
        return RelaySettings.parse(data, self._path(SETTINGS))

    def relay_identity(self, rng: Rng, unix_now: int) -> LinkIdentity:
        """What the relay proves its id with. The signing key is replaced when its certificate is two thirds through.

        Ask again at `signing_key_due` of the result.
        """
        relay = SigningSecret(self._seed(RELAY_KEY))
        with self._files.exclusive("lock"):
            current = self._signing_key(RelayId(relay.public))
            if current is None or unix_now >= signing_key_due(current):
                current = self._new_signing_key(relay, rng, unix_now)
        return current

    def _signing_key(self, relay_id: RelayId) -> LinkIdentity | None:
        """The stored one; None when there is none that `relay_id` certified."""
        data = self._files.read_secret(SIGNING_KEY, KEY_FILE)
        if data is None:
            return None
        try:
            sizes = (SEED_SIZE, SigningCert.SIZE)
            seed, certificate = read_key_line(data, KINDS[SIGNING_KEY], sizes, self._path(SIGNING_KEY))
            secret, cert = SigningSecret(seed), SigningCert.decode(certificate)
            check_signing_cert(relay_id, cert)
            if cert.signing_key.raw != secret.public:
                raise ConfigError(f"{self._path(SIGNING_KEY)} holds another key's certificate")
        except OnionRelayError as error:
            aside = self._files.set_aside(SIGNING_KEY)
            self._notice(f"made a new signing key: {error}; the old file is {aside}")
            return None
        return LinkIdentity(relay_id, secret, cert)

    def _new_signing_key(self, relay: SigningSecret, rng: Rng, unix_now: int) -> LinkIdentity:
        secret = SigningSecret.generate(rng)
        not_after = (unix_now + SIGNING_CERT_LIFE) // TIME_WINDOW * TIME_WINDOW  # rounded, so it tells no start time
        cert = make_signing_cert(relay, secret.public, not_after)
        self._files.write(SIGNING_KEY, key_line(KINDS[SIGNING_KEY], secret.seed, cert.encode()))
        return LinkIdentity(RelayId(relay.public), secret, cert)

    def _seed(self, name: str) -> bytes:
        data = self._files.read_secret(name, KEY_FILE)
        if data is None:
            raise self._missing(name, name)
        return read_key_line(data, KINDS[name], (SEED_SIZE,), self._path(name))[0]

    def _make_seed(self, name: str, rng: Rng) -> bytes:
        with self._files.exclusive("lock"):  # two processes that both find none must end up with the same key
            if self._files.read_secret(name, KEY_FILE) is None:
                self._files.write(name, key_line(KINDS[name], rng.token(SEED_SIZE)))
            return self._seed(name)

    # the network and what is remembered of it

    def network(self) -> NetworkFile | None:
        """The network joined; None when there is none."""
        data = self._files.read(NETWORK, NETWORK_FILE)
        return None if data is None else NetworkFile.parse(data, self._path(NETWORK))

    def join(self, network: NetworkFile) -> None:
        """Makes `network` the one that commands use when no other is named. Keeps another one's file, with a notice."""
        try:
            before = self.network()
            name = before and before.name
        except ConfigError:
            before, name = None, "a file that is no network's"
        if name is not None and not (before and before.secret == network.secret):
            aside = self._files.set_aside(NETWORK, "replaced")
            self._notice(f"{network.name} takes the place of {name}, whose file now is {aside}")
        self._files.write(NETWORK, network.text().encode())

    def load_guards(self, net_id: bytes, decode: Callable[[str], T]) -> T | None:
        """What `save_guards` kept, decoded; None when nothing is.

        A file that `decode` refuses is moved aside with a notice, for losing the guards costs anonymity and the
        person should know.
        """
        name = f"{net_id.hex()}/guards.json"
        data = self._files.read(name, GUARD_FILE)
        if data is None:
            return None
        try:
            return decode(data.decode())
        except (ValueError, OnionRelayError) as error:
            aside = self._files.set_aside(name)
            self._notice(f"chose guards anew: {self._path(name)} is damaged ({error}) and now is {aside}")
            return None

    def save_guards(self, net_id: bytes, text: str) -> None:
        """Replaces the guards kept for this network."""
        self._files.write(f"{net_id.hex()}/guards.json", text.encode())

    def load_table(self, net_id: bytes) -> bytes | None:
        """What `save_table` kept; None when nothing is. A cache: to be verified as if it came from a relay."""
        return self._files.read(f"{net_id.hex()}/table", TABLE_FILE)

    def save_table(self, net_id: bytes, data: bytes) -> None:
        """Replaces the cached relay table of this network."""
        self._files.write(f"{net_id.hex()}/table", data)

    def hold(self, role: str) -> AbstractContextManager[None]:
        """For as long as this process is the home's `role` ("relay" or "target"): HomeError while another one is.

        Two processes with one id would take each other's links and publish over each other.
        """
        return self._files.hold(
            f"{role}.lock", f"another process runs the {role} of {self.where}: stop it, or use another --home"
        )

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        self._on_notice(text)

    def _path(self, name: str) -> str:
        return f"{self.where}/{name}"

    def _missing(self, name: str, key: str) -> HomeError:
        return HomeError(f"there is no {self._path(name)}: {MAKERS[key].format(home=self.where)}")


class MemoryHome(Home):
    """A home that ends with the process. It begins with a notice that says what this costs."""

    def __init__(self) -> None:
        super().__init__(Path("memory"))
        self._files = MemoryFiles()
        self._notice(
            "nothing is kept: every run has new keys and chooses a new guard, and sooner or later one of them is bad"
        )


def signing_key_due(identity: LinkIdentity) -> int:
    """The unix time at which the signing key is to be replaced, ten days before its certificate ends."""
    return identity.signing_cert.not_after - (SIGNING_CERT_LIFE - SIGNING_CERT_RENEW)


def home_path(option: Path | None, environment: Mapping[str, str]) -> Path:
    """Where the home is: what was asked for, else ONIONRELAY_HOME, else the platform's data folder."""
    if option is not None:
        return option
    if environment.get("ONIONRELAY_HOME"):
        return Path(environment["ONIONRELAY_HOME"])
    from platformdirs import user_data_path  # noqa: PLC0415 - takes a while, and child processes name their home

    return user_data_path("onionrelay", appauthor=False)


def resolve_network(option: Path | None, environment: Mapping[str, str], home: Home) -> NetworkFile:
    """The network to use: what was asked for, else ONIONRELAY_NETWORK, else the one joined; else NoNetwork."""
    named = option or environment.get("ONIONRELAY_NETWORK")
    if named:
        return NetworkFile.load(Path(named))
    joined = home.network()
    if joined is None:
        raise NoNetwork(f"there is no network in {home.where}: {HOW_TO_GET_A_NETWORK}")
    return joined
