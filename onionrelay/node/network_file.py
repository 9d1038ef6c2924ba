"""The network file: what makes a network, in a file that its members hand to each other. specs/11-files.md.

TOML, UTF-8::

    name = "home"                                        1..64 printable characters
    secret = "<64 hex digits>"                           32 random bytes: the same secret is the same network
    testnet = false                                      absent: false; for what it changes see specs/07
    seeds = ["onrr1…@tls://192.0.2.1:443", …]            1..64 invites, relays that a newcomer asks first
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from onionrelay.base.errors import ConfigError, HomeError, NoNetwork, UsageError
from onionrelay.base.limits import NETWORK_FILE, NETWORK_NAME, SEEDS
from onionrelay.base.seams import Rng
from onionrelay.node.folder import Folder, replace_file, trying
from onionrelay.node.toml_file import TomlKeys, toml_text
from onionrelay.wire.invite import Invite

KEYS = "name, secret, testnet and seeds"
SECRET_SIZE = 32
NET_ID_SIZE = 8
COMMENT = "An onionrelay network. Whoever has this file can join: onionrelay network join FILE"


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network's name, secret, first relays, and whether it is a test network. Build one with `create` or `load`."""

    name: str
    seeds: tuple[Invite, ...]
    testnet: bool
    secret: bytes = field(repr=False)

    @property
    def net_id(self) -> bytes:
        """8 bytes that tell networks apart on every link; name and seeds can change, this stays."""
        return hashlib.sha256(b"onionrelay/net/1\0" + self.secret).digest()[:NET_ID_SIZE]

    @classmethod
    def create(cls, name: str, seeds: tuple[Invite, ...], testnet: bool, rng: Rng) -> Self:
        """A new network, with a secret of its own."""
        check_name(name, "network name")
        check_seeds(seeds, testnet, "the network")
        return cls(name, seeds, testnet, rng.token(SECRET_SIZE))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises NoNetwork when there is no such file, ConfigError when it cannot be read or is none of this kind."""
        try:
            data = Folder(path.parent).read(path.name, NETWORK_FILE)
        except HomeError as error:
            raise ConfigError(f"the network file cannot be used: {error}") from error
        if data is None:
            raise NoNetwork(f"there is no network file {path}: check the path, or ask a member of the network for it")
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """The network that `data` describes; `where` names it in messages."""
        keys = TomlKeys(data, where)
        name, secret = keys.text("name"), keys.text("secret")
        testnet, seeds = keys.flag("testnet"), keys.texts("seeds")
        keys.finish(KEYS)
        check_name(name, f"{where}: `name`")
        return cls(name, read_seeds(seeds, testnet, where), testnet, read_secret(secret, keys))

    def write(self, path: Path) -> None:
        """Makes the file (0600), and refuses to replace one: its secret would be lost."""
        if trying("write", path, path.exists):
            raise ConfigError(f"{path} exists already, and a network's secret cannot be made again: name another file")
        trying("write", path, lambda: replace_file(path, self.text().encode()))

    def text(self) -> str:
        """What `parse` reads back as this value."""
        return toml_text(
            {
                "name": self.name,
                "secret": self.secret.hex(),
                "testnet": self.testnet,
                "seeds": [str(seed) for seed in self.seeds],
            },
            COMMENT,
        )


def check_name(name: str, where: str) -> None:
    """A name appears in terminals and logs, so it is short and printable."""
    if not (0 < len(name) <= NETWORK_NAME and name.isprintable() and name == name.strip()):
        raise ConfigError(f"{where} must be 1 to {NETWORK_NAME} printable characters: {name[:NETWORK_NAME]!r} is not")


def read_secret(text: str, keys: TomlKeys) -> bytes:
    """The text itself never appears in an error."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_SIZE or len(text) != 2 * SECRET_SIZE:
        raise keys.fault("secret", f"must be {2 * SECRET_SIZE} hex digits: get the file anew from a member")
    return secret


def read_seeds(texts: tuple[str, ...], testnet: bool, where: str) -> tuple[Invite, ...]:
    """The invites in `texts`."""
    seeds = []
    for number, text in enumerate(texts, 1):
        try:
            seeds.append(Invite.parse(text))
        except UsageError as error:
            raise ConfigError(f"{where}: `seeds` entry {number} is no invite: {error}") from error
    check_seeds(tuple(seeds), testnet, f"{where}: `seeds`")
    return tuple(seeds)


def check_seeds(seeds: tuple[Invite, ...], testnet: bool, where: str) -> None:
    """Seeds are named once each, and can be reached from anywhere unless this is a test network."""
    if not 0 < len(seeds) <= SEEDS:
        raise ConfigError(
            f"{where} must name 1 to {SEEDS} relays, not {len(seeds)}; `onionrelay relay init` prints one"
        )
    ids = [seed.relay_id for seed in seeds]
    twice = next((relay_id for relay_id in ids if ids.count(relay_id) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} names the relay {twice} twice: remove one")
    private = [address for seed in seeds for address in seed.endpoint.addresses if not address.is_public]
    if private and not testnet:
        raise ConfigError(
            f"{where} holds {private[0]}, which is no public address: only a test network (--testnet) can have it"
        )
