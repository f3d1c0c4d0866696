"""Stage 06 concepts by hand: python scripts/06_concepts.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("concepts"))
