"""No fixture is shared by all tests. pytest-randomly shuffles them, since none may lean on another: `-p no:randomly`
keeps the written order, `--randomly-seed=last` repeats the last one.
"""
