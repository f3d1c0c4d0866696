"""Stage 08 cross_layer by hand: python scripts/08_cross_layer.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("cross_layer"))
