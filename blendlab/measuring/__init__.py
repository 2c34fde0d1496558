"""What the four papers claim and their readers asked: a module of tables for each, on tinyworld.

Next: tables.py, which says what a table is.
"""
