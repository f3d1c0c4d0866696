"""What is done, missing, stale, running and failed: python scripts/status.py [CONFIG] [--watch]."""

import sys

from sae_genomics.cli import main

if __name__ == "__main__":
    sys.exit(main(["status", *sys.argv[1:]]))
