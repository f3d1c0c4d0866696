"""Any edit of a finished run's layer, measured on items of one's choice: what `scripts/intervene.py` does."""
