"""Tables of what became of the faults that ``mutants_cuda.py`` and ``mutants_numba.py`` make."""

from collections import Counter, defaultdict
from collections.abc import Iterable


def table(title: str, how: tuple[str, ...], rows: Iterable[tuple[str, str]]) -> None:
    """Prints counts of (name, outcome); ``how`` are the outcomes that count as caught."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in rows:
        counts[name][outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    columns = (*how, "equivalent", "survived")
    print(f"\n{title:<34}   made caught " + " ".join(f"{each:>{max(6, len(each))}}" for each in columns))
    for name, each in counts.items():
        caught = sum(each[one] for one in how)
        cells = " ".join(f"{each[one]:>{max(6, len(one))}}" for one in columns)
        print(f"{name:<34} {sum(each.values()):>6} {caught:>6} {cells}")
