"""Equal workers elsewhere: what is submitted, how Slurm starts it, what every worker does, and how they are watched."""
