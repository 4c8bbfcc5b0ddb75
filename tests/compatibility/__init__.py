"""Situations in which torch's layers are used, each run with torch's layer and with ours.

`python -m tests.compatibility` runs them all and writes docs/compatibility.md.
"""
