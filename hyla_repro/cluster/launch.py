"""Starting workers by submitit: one array of Slurm's, processes of this machine, or this very process."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from hyla_repro.cluster.submission import Submission
from hyla_repro.cluster.worker import start, start_here
from hyla_repro.errors import MissingPackageError


def require_submitit() -> ModuleType:
    """Return submitit.

    Raises: MissingPackageError saying how to install it.
    """
    try:
        import submitit
    except ImportError:
        raise MissingPackageError("submitting needs submitit: `pip install hyla-repro[cluster]`; the script of "
                                  "--print-sbatch works without it") from None  # fmt: skip
    return submitit


def launch(submission: Submission, folder: Path, program: Sequence[str]) -> str:
    """Start the workers, and return in words what was started.

    Only strings go to them. What they are trained on, and how far, is in the ledger.

    Raises:
        MissingPackageError: without submitit.
        ValueError: with what sbatch said, if it refuses.
    """
    submitit = require_submitit()
    executor = submitit.AutoExecutor(folder / "submitit", cluster=submission.cluster)
    if submission.cluster == "debug":
        jobs = [executor.submit(start_here, submission.run_words()) for _ in range(submission.workers)]
        codes = [job.result() for job in jobs]
        return f"{len(codes)} workers ran here, one after the other, and left with {', '.join(map(str, codes))}"
    executor.update_parameters(
        name=submission.name, timeout_min=int(submission.seconds // 60), gpus_per_node=submission.gpus,
        cpus_per_task=submission.cpus,
    )  # fmt: skip
    if submission.cluster == "slurm":
        executor.update_parameters(
            slurm_signal_delay_s=submission.signal_seconds, slurm_array_parallelism=submission.workers,
            slurm_srun_args=[f"--cpus-per-task={submission.cpus}"],
            slurm_additional_parameters={"requeue": True, **submission.extra()},
            **({"slurm_partition": submission.partition} if submission.partition else {}),
        )  # fmt: skip
    command = submission.command(program)
    words = [[str(folder), str(index), *command] for index in range(submission.workers)]
    try:
        jobs = executor.map_array(start, words)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise ValueError(f"sbatch refused: {' '.join(str(error).split())}") from error
    if submission.cluster == "local":
        return f"started {len(jobs)} processes"
    return f"submitted job {jobs[0].job_id.partition('_')[0]}, an array of {len(jobs)}"
