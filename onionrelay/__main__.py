"""`python -m onionrelay` is the command line."""

from onionrelay.apps.cli import main

main()
