"""Networks: how each is opened, and what the ecosystem lacks. Next: load.py, the way to get any."""
