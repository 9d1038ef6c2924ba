"""Where the vectors are."""

from pathlib import Path

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
