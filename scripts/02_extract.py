"""Stage 02 extract by hand: python scripts/02_extract.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("extract"))
