"""Where the cells of a sweep run: in this process, on the GPUs of this machine, or on a SLURM cluster."""
