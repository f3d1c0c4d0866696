"""Stage 09 report by hand: python scripts/09_report.py --config FILE [--task I]."""

import sys

from sae_genomics.cli import stage_main

if __name__ == "__main__":
    sys.exit(stage_main("report"))
