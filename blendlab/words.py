"""A network that was trained on a few words is not asked about others. Next: prompts.py and clip.py, which ask."""

import re


def known_words(text: str, known, who: str) -> None:
    """Refuse a text with words outside `known` (None: all are), naming them and those that `who` knows."""
    strange = [word for word in re.findall(r"[\w'-]+", text.lower()) if known and word not in known]
    if strange:
        listed = ", ".join(sorted(word for word in known if len(word) > 1 and word.isalpha()))
        raise ValueError(f"{who} does not know {', '.join(map(repr, strange))}; it knows {listed}")
