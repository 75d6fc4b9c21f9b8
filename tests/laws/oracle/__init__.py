"""The naive full fold: one record's meaning, computed from the text of the semantics and nothing else.

Plain sets of write ids, every step re-reads everything, no pruning, no bit masks. Each rule cites the sentence it
implements ("§2 rule 3"). Where the text leaves a choice, CHOICES.md quotes it and says what was chosen and why.

    words.py      what the fold remembers
    frontiers.py  frontier, live deletes, what is contested
    causality.py  §2: how `seen` grows in one field or group
    rows.py       §4: inserts, deletes, snapshots
    counters.py, elements.py   the types that are not read from a frontier
    reading.py    values and questions
    answers.py    the entry: answer(entity, changes) -> Answer
"""

from tests.laws.oracle.answers import Answer, answer

__all__ = ["Answer", "answer"]
