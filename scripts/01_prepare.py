"""Stage 01 prepare by hand: python scripts/01_prepare.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("prepare"))
