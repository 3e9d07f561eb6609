#!/bin/bash
# Runs a job of two tasks under a real SLURM on this machine, pre-empts it, and waits until it has come back and is done:
#     tests/slurm/run.sh FOLDER PYTHON
# All that SLURM keeps lies in FOLDER, as do the results: FOLDER/whole and FOLDER/preempted. It needs root.
# Exit codes: 0 it ran; 77 SLURM cannot run here, and the last line says why; else what failed.
set -u
folder=$(realpath -m "$1"); python=$2; here=$(dirname "$(realpath "$0")"); host=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool" && cd "$folder" || exit 1

cannot() { echo "SLURM cannot run here: $*"; exit 77; }
[ "$(id -u)" = 0 ] || cannot "this is not root"
if ! command -v slurmctld slurmd munged sbatch > /dev/null || [ "$(command -v slurmd)" = "" ]; then
    command -v apt-get > /dev/null || cannot "there is no slurmd, and no apt-get to install it"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        slurmctld slurmd slurm-client munge; } > install.log 2>&1 || cannot "apt-get failed, see $folder/install.log"
fi
read -r port1 port2 < <("$python" -c '
import socket
taken = [socket.socket() for _ in range(2)]
for one in taken: one.bind(("", 0))
print(*(one.getsockname()[1] for one in taken))')

cat > slurm.conf << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port1
SlurmdPort=$port2
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf
"$python" -c 'import os; print(os.urandom(512).hex())' > munge.key && chmod 400 munge.key

started=()
stop() {
    scancel --user="$(id -un)" > /dev/null 2>&1
    sleep 1
    for pid in "${started[@]}"; do kill "$pid" 2> /dev/null; done
    wait
}
trap stop EXIT
munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --num-threads=2 \
    --pid-file="$folder/munge.pid" --log-file="$folder/munge.log" --seed-file="$folder/munge.seed" 2> munge.err & started+=($!)
for _ in $(seq 50); do [ -S munge.socket ] && break; sleep 0.2; done
[ -S munge.socket ] || cannot "munged does not run: $(tail -n 1 munge.err)"
slurmctld -D > slurmctld.out 2>&1 & started+=($!)
slurmd -D -N "$host" > slurmd.out 2>&1 & started+=($!)
for _ in $(seq 150); do [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && break; sleep 0.2; done
[ "$(sinfo -h -o %T 2> /dev/null)" = idle ] || cannot "$(tail -n 1 slurmctld.log; tail -n 1 slurmd.log)"

submit() {  # NAME: the job that leaves its results in FOLDER/NAME
    sbatch --parsable --output="$folder/$1.txt" --open-mode=append --job-name="$1" << END
#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@90
srun "$python" "$here/train.py" "$folder/$1"
END
}
wait_for() {  # SECONDS CONDITION
    for _ in $(seq $(($1 * 5))); do eval "$2" && return; sleep 0.2; done
    echo "after $1 seconds still not: $2"; squeue; tail -n 30 "$folder"/*.txt slurmctld.log slurmd.log; exit 1
}
done_with() { [ -e "$folder/$1/rank0.json" ] && [ -e "$folder/$1/rank1.json" ] && [ -z "$(squeue -h)" ]; }

job=$(submit whole) || exit 1
wait_for 180 "done_with whole"
job=$(submit preempted) || exit 1
wait_for 120 '[ "$(cat "$folder/preempted/step" 2> /dev/null || echo 0)" -ge 6 ]'
scancel --signal=USR1 "$job"
wait_for 120 '[[ "$(squeue -h -o %T -j "$job" 2> /dev/null)" != RUNNING ]]'
echo "pre-empted at step $(cat "$folder/preempted/step"): $(squeue -h -o '%T %r' -j "$job")"
wait_for 300 "done_with preempted"
