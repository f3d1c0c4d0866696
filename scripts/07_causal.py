"""Stage 07 causal by hand: python scripts/07_causal.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("causal"))
