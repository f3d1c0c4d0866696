"""Submit failed and missing tasks again: python scripts/resubmit_failed.py [CONFIG] [--stage S] [--only-oom] [--mem 64G]."""

import sys

from sae_genomics.cli import main

if __name__ == "__main__":
    sys.exit(main(["resubmit", *sys.argv[1:]]))
