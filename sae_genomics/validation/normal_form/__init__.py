"""Databases of known biology in one normal form, which is all that `validate` reads of them.

`scripts/download_databases.py` makes it on a machine with a network, or from files that were fetched elsewhere.
"""
