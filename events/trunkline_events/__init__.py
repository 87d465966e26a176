"""The facts of Trunkline, the log that keeps them, and the names of every subject.

This package imports nothing of ours; projections, actors and services build on it.
"""
