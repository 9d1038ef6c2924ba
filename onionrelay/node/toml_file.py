"""Small TOML files with a few known keys: read with every fault named, written so that they read back the same."""

import json
import tomllib
from collections.abc import Mapping, Sequence

from onionrelay.base.errors import ConfigError

Value = str | bool | Sequence[str]


class TomlKeys:
    """The keys of one file, taken one by one. Every fault is a ConfigError: file, key, what is wrong.

    `where` names the file in messages. Call `finish` when all keys are taken: what is left over is a misspelling.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        try:
            self._left: dict[str, object] = tomllib.loads(data.decode())
        except UnicodeDecodeError as error:
            raise ConfigError(f"{where} is no text file: byte {error.start} is not UTF-8") from error
        except (ValueError, RecursionError) as error:  # for a number of many digits it is a plain ValueError
            raise ConfigError(f"{where} is no TOML file: {error}") from error

    def text(self, key: str) -> str:
        """A string that must be there."""
        value = self._left.pop(key, None)
        if not isinstance(value, str):
            raise self.fault(key, "must be a string" if value is not None else "is missing")
        return value

    def flag(self, key: str) -> bool:
        """A boolean; false when absent."""
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            raise self.fault(key, "must be true or false, without quotes")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when absent."""
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fault(key, 'must be a list of strings: ["…", "…"]')
        return tuple(value)

    def finish(self, known: str) -> None:
        """Refuses keys that nobody took. `known` lists the ones there are, for the message."""
        if self._left:
            raise self.fault(min(self._left), f"is no key of this file, which has {known}; remove or correct it")

    def fault(self, key: str, problem: str) -> ConfigError:
        """The error that says what is wrong with `key`."""
        return ConfigError(f"{self.where}: `{key}` {problem}")


def toml_text(values: Mapping[str, Value], comment: str) -> str:
    """One `key = value` a line, below `comment`. Lists are written one item a line."""
    lines = [f"# {comment}", *(f"{key} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _value(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return "".join(["[\n", *(f"  {_value(item)},\n" for item in value), "]"])
