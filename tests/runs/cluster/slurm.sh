#!/usr/bin/env bash
# A throw-away SLURM on this machine, for tests: slurm.sh start DIRECTORY | slurm.sh stop DIRECTORY
#
# One controller, two nodes (n1, n2) and munge, all real, from Debian's packages (installed if absent: root, ~10 s); no
# systemd, no cgroups, no accounting. Everything but the packages lies in DIRECTORY, its configuration too: use it with
# SLURM_CONF=DIRECTORY/slurm.conf. CPUs, memory and GPUs (two a node) are pretended. Partitions: main, low (preempted
# and queued again), high (preempts low). Everything listens on 127.0.0.1 alone.
set -euo pipefail
action=${1:?start or stop} dir=${2:?a directory}
export SLURM_CONF=$dir/slurm.conf
sockets=$dir/munge.socket

running() { [ -s "$1" ] && kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null; }

install_packages() {
    local missing=()
    for pair in munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || { echo "slurm.sh: ${missing[*]} must be installed, which needs root" >&2; exit 77; }
    command -v apt-get >/dev/null || { echo "slurm.sh: no apt-get to install ${missing[*]} with" >&2; exit 77; }
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$dir/apt.log" 2>&1 ||
        { tail -n 20 "$dir/apt.log" >&2; exit 1; }
}

configure() {
    local host
    host=$(hostname -s)
    for i in 0 1; do [ -e "$dir/gpu$i" ] || mknod "$dir/gpu$i" c 1 3; done # /dev/null by another name
    echo "NodeName=n[1-2] Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
    echo "CgroupAutomount=no" >"$dir/cgroup.conf"
    cat >"$SLURM_CONF" <<CONF
ClusterName=throwaway
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$sockets,cred_expire=5
StateSaveLocation=$dir/controller
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
GresTypes=gpu
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=2
InactiveLimit=0
MinJobAge=300
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[27001-27002] CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
    getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
}

start_munge() {
    [ -s "$dir/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    running "$dir/munge.pid" || munged --force --socket="$sockets" --key-file="$dir/munge.key" \
        --pid-file="$dir/munge.pid" --log-file="$dir/munge.log" --seed-file="$dir/munge.seed" 2>>"$dir/munge.log"
    for _ in $(seq 50); do munge -n --socket="$sockets" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "slurm.sh: munge does not answer" >&2; exit 1
}

start_daemons() {
    running "$dir/slurmctld.pid" || setsid slurmctld </dev/null >/dev/null 2>&1
    for node in n1 n2; do running "$dir/slurmd.$node.pid" || setsid slurmd -N "$node" </dev/null >/dev/null 2>&1; done
    for _ in $(seq 200); do
        [ "$(sinfo -h -N -p main -o '%N %t' 2>/dev/null | grep -cE ' (idle|mix|alloc)$')" = 2 ] && break
        sleep 0.1
    done
    for _ in 1 2 3 4 5; do # a real job on both nodes; the first may meet a controller that is not ready
        timeout 20 srun --immediate=10 -p high -N 2 --mem=1 true 2>>"$dir/srun.log" && return
        sleep 1
    done
    echo "slurm.sh: the nodes run no job" >&2; tail -n 20 "$dir"/*.log >&2; exit 1
}

end() { # a daemon by its pid file
    running "$1" || return 0
    kill "$(cat "$1" 2>/dev/null)" 2>/dev/null || true
    for _ in $(seq 50); do running "$1" || return 0; sleep 0.1; done
    kill -9 "$(cat "$1" 2>/dev/null)" 2>/dev/null || true
}

case $action in
start)
    mkdir -p "$dir"/{controller,n1,n2}
    chmod 755 "$dir"
    install_packages
    configure
    start_munge
    start_daemons
    ;;
stop)
    if running "$dir/slurmctld.pid"; then
        squeue -h -o %A 2>/dev/null | sort -u | xargs -r scancel --full 2>/dev/null || true
        for _ in $(seq 50); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    fi
    for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munge.pid"; do end "$file"; done
    ;;
*) echo "slurm.sh: start or stop, got $action" >&2; exit 2 ;;
esac
