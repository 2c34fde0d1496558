"""Networks: how each is opened, and what the ecosystem does not have. Next: load.py, the one way to
get any.
"""
