"""Stage 03 train by hand: python scripts/03_train.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("train"))
