"""Checkers of the exercises: each runs your function on a toy and says in a sentence how it went.

Solutions are in notebooks/solutions/. Next: notebooks/00_start_here.ipynb.
"""

from .common import attempt, points
from .nb00 import check_00_1, check_00_2, check_00_3, check_00_4, check_00_5
from .nb01 import check_01_1, check_01_2, check_01_3, check_01_4, check_01_5
from .nb02 import check_02_1, check_02_2, check_02_3, check_02_4, check_02_5
from .nb03 import check_03_1, check_03_2, check_03_3, check_03_4, check_03_5
from .nb04 import check_04_1, check_04_2, check_04_3, check_04_4
from .nb05 import check_05_1, check_05_2, check_05_3, check_05_4, check_05_5
from .nb06 import check_06_1, check_06_2, check_06_3, check_06_4, check_06_5
from .nb07 import check_07_1, check_07_2, check_07_3, check_07_4, check_07_5
from .nb08 import check_08_1, check_08_2, check_08_3, check_08_4, check_08_5, check_08_6

__all__ = [
    "attempt", "points",
    "check_00_1", "check_00_2", "check_00_3", "check_00_4", "check_00_5",
    "check_01_1", "check_01_2", "check_01_3", "check_01_4", "check_01_5",
    "check_02_1", "check_02_2", "check_02_3", "check_02_4", "check_02_5",
    "check_03_1", "check_03_2", "check_03_3", "check_03_4", "check_03_5",
    "check_04_1", "check_04_2", "check_04_3", "check_04_4",
    "check_05_1", "check_05_2", "check_05_3", "check_05_4", "check_05_5",
    "check_06_1", "check_06_2", "check_06_3", "check_06_4", "check_06_5",
    "check_07_1", "check_07_2", "check_07_3", "check_07_4", "check_07_5",
    "check_08_1", "check_08_2", "check_08_3", "check_08_4", "check_08_5", "check_08_6",
]  # fmt: skip
