"""Stage 05 validate by hand: python scripts/05_validate.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("validate"))
