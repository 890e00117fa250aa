"""Train the mixers that we did not write at a preset, as the chapter *Bring your own mixer* shows them.

    python benchmarks/guests.py --preset laptop --budget 50m

Stop it at any time: called again, it goes on. Several processes share the runs. Each guest whose runs are all finished
is saved to OUT/NAME.json, which `hyla-repro leaderboard add OUT/*.json` puts on the leaderboard.
"""

import argparse
import time
from pathlib import Path

import torch

import hyla_repro
from hyla_repro.studies.mixers import GUESTS
from hyla_repro.training.plan import seconds_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guests", nargs="*", default=[], help=f"some of {', '.join(GUESTS)}; all if none is named")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--budget", default="1000h", help="a time such as 50m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("guests"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    ends = time.monotonic() + seconds_of(options.budget)
    for name in options.guests or GUESTS:
        left = f"{max(0, round(ends - time.monotonic()))}s"
        result = hyla_repro.benchmark(
            GUESTS[name], preset=options.preset, name=name, budget=left, device=options.device
        )
        print(result.table.to_string())
        if result.left:
            print("left:", *result.left, sep="\n  ")
        else:
            print("saved", result.save(options.out / f"{name}.json"))


if __name__ == "__main__":
    main()
