"""Synthetic proteins: random background with planted domains, so that what a feature should find is known.

No sequence of a living being stands in them. The domains follow published consensus patterns (patterns.py).
"""
