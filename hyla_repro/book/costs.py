"""What things cost, and which faults runs survive: the tables of the book's chapter on cost, from measurements."""

from collections.abc import Callable, Iterable
from itertools import product

import pandas as pd

from hyla_repro.attention.variants import VARIANTS
from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store, timed_runs
from hyla_repro.studies import PRESETS, experiments, study_of, with_runs
from hyla_repro.studies.study import once
from hyla_repro.training.plan import minutes_per_run, step_flop, total_flop

RELEASE = "measurements/release.csv"
NOT_MEASURED = "not measured"
# The release's step was measured for three variants; the others are taken to cost what the nearest of these does.
_LIKE = {"hyper_relu": "hyla", "hyper_linear": "hyla", "hyper_deep": "hyla"}


def release_hours(store: Store, runs: Iterable[Experiment]) -> float | None:
    """Return the hours that the authors' release would take for these runs, on two cores; None where it has no such.

    They were measured at the main sizes of a task; others are scaled by the floating-point operations of a step.
    """
    step_ms = store.table(RELEASE).set_index(["task", "variant"])["step_ms"].to_dict()
    total = 0.0
    for run in runs:
        task, variant = run.task_name, run.model.variant
        if variant not in VARIANTS:
            return None
        known = variant if (task, variant) in step_ms else _LIKE.get(VARIANTS[variant].value_network, "linear")
        build = study_of(task).build
        if build is None or (task, known) not in step_ms:
            return None
        scale = step_flop(run) / step_flop(build("paper", variant, 0))
        total += run.steps * step_ms[task, known] * scale / 3.6e6
    return total


def figures(store: Store) -> pd.DataFrame:
    """Return, per figure, preset and machine: runs, PFLOP, hours here, of the release, and on the paper's GPUs.

    Runs without a result on a machine are estimated from those that have one, and the hours then marked with ≈.
    """
    timed = timed_runs(once(run for preset in PRESETS for run in experiments("all", preset)), store)
    minutes = {(entry.run.id, entry.device): entry.minutes for entry in timed}
    estimates = {device: minutes_per_run(timed, device) for device in sorted({entry.device for entry in timed})}
    rows = []
    for figure, preset in product(with_runs(), ("laptop", "paper")):
        runs = experiments(figure, preset)
        names, flop, release = [run.id for run in runs], sum(map(total_flop, runs)), release_hours(store, runs)
        for device, estimate in estimates.items():
            measured = [minutes.get((name, device)) for name in names]
            total = sum((estimate(run) or 0.0) if known is None else known
                        for run, known in zip(runs, measured, strict=True))  # fmt: skip
            rows.append({
                "figure": f"`{figure}`", "preset": preset, "runs": len(runs), "PFLOP": f"{flop / 1e15:.1f}",
                "device": device,
                "hours here, of a core or GPU": f"{'≈ ' if None in measured else ''}{_hours(total / 60)}",
                "release, hours of two cores": "" if release is None else f"{release:.0f}",
                "as reported, GPU hours": _reported(runs) if preset == "paper" else "",
            })  # fmt: skip
    return pd.DataFrame(rows)


def spans(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """Return, per figure, how long training its runs again takes at each preset, in words, blank where unknown.

    Hours are of one core, those of the fastest and of the slowest machine that runs were timed on.

    Args:
        table: what `figures` returns.
    """
    smoke = store.table("measurements/chapters.csv").set_index("figure")["smoke_s"].dropna()
    rows: dict[str, dict[str, str]] = {figure: {"smoke": f"{seconds:.0f} s"} for figure, seconds in smoke.items()}
    for (figure, preset), group in table[table["runs"] > 0].groupby(["figure", "preset"], sort=False):
        hours = sorted(group["hours here, of a core or GPU"].str.removeprefix("≈ ").astype(float))
        ends = dict.fromkeys(map(_hours, (hours[0], hours[-1])))
        rows.setdefault(figure.strip("`"), {})[preset] = f"{' to '.join(ends)} h"
    ordered = [figure for figure in with_runs() if figure in rows]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(PRESETS)).loc[ordered].fillna("")


def rerun_times(store: Store) -> dict[str, str]:
    """Return, per figure, how long training its runs again takes at each preset, in one line."""
    of_a_core = {"smoke": "", "laptop": " of a core", "paper": " of a core"}
    return {
        figure: ", ".join(f"{time}{of_a_core[preset]} at {preset}" for preset, time in row.items() if time)
        for figure, row in spans(store, figures(store)).iterrows()
    }


def _reported(runs: list[Experiment]) -> str:
    hours = reported_hours(runs)
    return " to ".join(map(_hours, hours)) if hours else ""


def reported_hours(runs: Iterable[Experiment]) -> tuple[float, float] | None:
    """Return the least and most GPU hours that the paper reports for such runs; None where it reports none."""
    minutes = [study_of(run.task_name).reported_minutes for run in runs]
    known = [pair for pair in minutes if pair is not None]
    low, high = (sum(pair[end] for pair in known) / 60 for end in (0, 1))
    return (low, high) if len(known) == len(minutes) else None


def _hours(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def steps(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per shape and method: milliseconds of a step, and its ratios to its products and its batch."""
    return pd.DataFrame({
        "sizes": table["shape"], "method": table["variant"].map(NAMES), "step, ms": _fixed(table["compiled_ms"], 1),
        "products, ms": _fixed(table["products_ms"], 1),
        "products, GFLOP/s": _fixed(1e3 * table["gflop"] / table["products_ms"], 0),
        "step / products, eager": _fixed(table["eager_per_products"], 2),
        "step / products, compiled": "**" + _fixed(table["compiled_per_products"], 2) + "**",
        "batch, % of a step": _fixed(100 * table["batch_per_step"], 1),
    })  # fmt: skip


def stacks(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per device, method and number of runs in a stack: step, throughput and shares of the ceilings."""
    rows = pd.DataFrame({
        "device": table["device"], "method": table["variant"].map(NAMES), "runs": table["runs"].astype(str),
        "step, ms": _fixed(table["step_ms"], 1), "runs × steps / s": _fixed(table["run_steps_per_s"], 0),
        "% of matrix rate": _fixed(100 * table["of_gemm"], 0), "% of copy rate": _fixed(100 * table["of_copy"], 0),
    })  # fmt: skip
    if not (table["instruction_set"] == "cuda").any():
        rows.loc[len(rows)] = ["any GPU", "all", "any", *[NOT_MEASURED] * 4]
    return rows


def value_networks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the milliseconds of every form of HYLA's value network, the fastest of each line bold."""
    rows = []
    for (task, d_head, compiled), group in table.groupby(["task", "d_head", "compiled"], sort=False):
        cells = {
            row.form: f"**{row.ms:.1f}**" if row.to_fastest == 1 else f"{row.ms:.1f}" for row in group.itertuples()
        }
        rows.append({"sizes": f"{task}, heads of {d_head}", "": "compiled" if compiled else "eager", **cells})
    return pd.DataFrame(rows)


_FORMS = {"plain": "all pairs at once", "chunked": "in blocks of 256", "torch": "torch's own"}


def chunked(table: pd.DataFrame) -> pd.DataFrame:
    """Return memory and time of every form, by attention and number of tokens, and blocks against pairs."""
    shown = table[table["form"].isin(_FORMS) & table["chunk"].isin([0, 256])]
    rows = []
    for (variant, tokens), group in shown.groupby(["variant", "tokens"], sort=False):
        forms = group.set_index("form")
        row: dict[str, object] = {"attention": NAMES[variant], "tokens": tokens}
        for column, unit, digits in (("peak_mib", "MiB", 0), ("cpu_s", "s", 2)):
            row |= {f"{title}, {unit}": f"{forms.loc[form, column]:.{digits}f}" if form in forms.index else ""
                    for form, title in _FORMS.items()}  # fmt: skip
        times = forms["cpu_s"]
        both = {"plain", "chunked"} <= set(times.index)
        row["blocks / all pairs, time"] = f"{times['chunked'] / times['plain']:.2f}" if both else ""
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["attention", "tokens"], ignore_index=True)


def chapters(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per chapter, the seconds that it takes on committed results, and with training at smoke."""
    return pd.DataFrame({
        "chapter": "`" + table["figure"] + "`", "on committed results, s": _fixed(table["committed_s"], 0),
        "at smoke, training included, s": _fixed(table["smoke_s"], 0).replace("nan", ""),
    })  # fmt: skip


def sraven_throughput(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many SRAVEN problems each call draws or solves in a second."""
    return pd.DataFrame({
        "call": table["call"], "problems at a time": table["problems"], "ms": _fixed(table["ms"], 2),
        "problems / s": table["problems_per_s"].round(-3).map("{:,.0f}".format).str.replace(",", " "),
    })  # fmt: skip


def start_up(table: pd.DataFrame) -> pd.DataFrame:
    """Return what precedes training, and its seconds."""
    return pd.DataFrame({"what": table["what"], "seconds": _fixed(table["seconds"], 2)})


def reruns(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per committed run and rounding, by how many points its scores differed when it was trained again."""
    how = table["compiled"].map({True: ", compiled", False: ", eager"})
    how += (table["commit"] == table["committed_commit"]).map({True: ", same commit", False: ""})
    examples = table["n_examples"].map("N = {:.0f}".format).where(table["n_examples"].notna(), "SRAVEN")
    return pd.DataFrame({
        "run": table["variant"].map(NAMES) + ", " + examples + ", seed " + table["seed"].astype(str),
        "steps": table["steps"].astype(str),
        "trained again with": table["instruction_set"] + how,
        "training tasks, points": _signed(100 * (table["test"] - table["committed_test"])),
        "held-out, points": _signed(100 * (table["heldout"] - table["committed_heldout"])),
    })  # fmt: skip


def _signed(numbers: pd.Series) -> pd.Series:
    return numbers.map("{:+.2f}".format).str.replace("-", "−")


def faults(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per promise and fault, how often it was tried and how often survived."""
    columns = {"tried": "times tried", "survived": "times survived"}
    return table[["promise", "fault", "tried", "survived"]].rename(columns=columns)


def slurm_faults(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per fault of a cluster, how often it was tried and how often survived."""
    return faults(table).drop(columns="promise")


def _fixed(numbers: pd.Series, digits: int) -> pd.Series:
    return numbers.map(f"{{:.{digits}f}}".format)


# Tables below data/measurements: how each is made, and what the book shows of it.
MEASUREMENTS: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "step_time": ("python benchmarks/step_time.py", steps),
    "stack_size": ("python benchmarks/stack_size.py", stacks),
    "value_network": ("python benchmarks/value_network.py", value_networks),
    "chunked": ("python benchmarks/chunked.py", chunked),
    "sraven_throughput": ("python benchmarks/sraven_throughput.py", sraven_throughput),
    "start_up": ("python benchmarks/start_up.py", start_up),
    "chapters": ("python benchmarks/chapters.py", chapters),
    "reruns": ("python benchmarks/reruns.py", reruns),
    "faults": ("python -m pytest tests/promises", faults),
    "slurm_faults": ("make test-slurm", slurm_faults),
}


def described(store: Store, name: str) -> tuple[pd.DataFrame, str]:
    """Return a table of the book, and a sentence on where and when it was measured, and how to do that again."""
    command, show = MEASUREMENTS[name]
    table, how = store.table(f"measurements/{name}.csv"), f"`{command}`"
    if table.empty:
        return pd.DataFrame(), f"Not measured yet; {how} does it."
    machines = "; ".join(
        f"{row.device} ({row.instruction_set}, {row.threads} thread{'s' if row.threads > 1 else ''}, "
        f"torch {row.torch}, {row.date})"
        for row in table[["device", "instruction_set", "threads", "torch", "date"]].drop_duplicates().itertuples()
    )
    return show(table), f"Measured by {how} on {machines}."
