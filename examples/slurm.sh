#!/bin/bash
#SBATCH --job-name=odebench
#SBATCH --cpus-per-task=2
#SBATCH --time=24:00:00
export ODEBENCH_CACHE=$HOME/odebench/cache
python - <<'PY'
import subprocess, sys
from dask_jobqueue import SLURMCluster

if __name__ == "__main__":
    cluster = SLURMCluster(
        queue="normal", walltime="04:00:00",
        cores=16, processes=16, memory="64GB",      # sixteen workers of one thread per job
        interface="ib0",                            # the network between nodes
        scheduler_options={"dashboard": False},
    )
    cluster.scale(jobs=4)
    sys.exit(subprocess.run(
        ["odebench", "sweep", "digits-full", "--scheduler", cluster.scheduler_address, "--results", "results"]
    ).returncode)
PY
