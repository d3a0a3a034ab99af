"""A model's files on a node: only what one stage needs, fetched once, verified.

`python -m disagfusion.weights fetch` is the command line. Imports neither torch nor diffusers.
"""
