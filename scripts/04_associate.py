"""Stage 04 associate by hand: python scripts/04_associate.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("associate"))
