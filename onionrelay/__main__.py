"""The program: `onionrelay`, `python -m onionrelay`."""

import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line. A Ctrl-C while it is being loaded ends it quietly."""
    try:
        from onionrelay.apps import cli  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
