"""How often verdicts on claims go wrong: means of skewed units, judged as `lape study` judges them.

At worst: a claim is refused most easily where all its members lie at the margin, and holds most easily where one does and all others lie far on the
rule's side. `refused` and `held` are the shares of simulations in which that happened, for 1, 3 and 6 members; both should be .05 at most.
usage: python benchmarks/verdicts.py [SIMULATIONS]
"""

from __future__ import annotations

import sys

import numpy as np

from lape.measure.bootstrap import Resamples
from lape.measure.intervals import holm, p_at

MEMBERS = (1, 3, 6)
RESAMPLES, LEVEL = 1000, 0.05


def shares(units: int, tail: int, simulations: int) -> dict[str, list[float]]:
    """`refused` and `held` by number of members, for exponential units with their tail above (1) or below (-1) the margin."""
    drawn = Resamples(units, RESAMPLES, seed=units)
    values = tail * np.random.default_rng(units + 7).exponential(size=(units, simulations * max(MEMBERS)))
    p, low = [], []
    for row in (drawn.sums(values) / units).T:
        p.append(min(1.0, 2 * p_at(drawn.quantiles(row) or [], float(tail), side=-1)))
        low.append(drawn.interval(row)[1])
    tested = np.array(p).reshape(simulations, -1)
    held = float(np.mean(np.array(low).reshape(simulations, -1)[:, 0] > tail))
    refused = [float(np.mean([min(holm(list(one[:count]))) < LEVEL for one in tested])) for count in MEMBERS]
    return {"refused": refused, "held": [held] * len(MEMBERS)}


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"units  tail   refused, {MEMBERS} members   held")
    for units in (20, 40, 60, 100, 200):
        for tail, name in ((1, "above"), (-1, "below")):
            found = shares(units, tail, simulations)
            print(
                f"{units:5}  {name}  {'  '.join(f'{one:.3f}' for one in found['refused']):24}   {found['held'][0]:.3f}"
            )


if __name__ == "__main__":
    main()
