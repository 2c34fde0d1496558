"""CLIP guidance (2111.14818) by the name that lessons import. Read next: ../clip_guidance.py."""

from ..clip_guidance import Guiding, clip_distance

__all__ = ["Guiding", "clip_distance"]
