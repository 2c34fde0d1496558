"""What the four papers claim, and what their readers asked: a module of tables for each, measured
on tinyworld.

Next: tables.py, which says what a table is.
"""
