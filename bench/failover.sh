#!/usr/bin/env bash
# Side by side: two Kamailio servers on dmq_usrloc and a pair of Tandem pools, through the kit's failover.py, and one
# table of both. Further arguments go to failover.py, for instance: bench/failover.sh --tests lag,kill,loss,restart --reps 3
# The reachability of every phone after a kill (failover_reach.py) is measured REACH_REPS times as well.
# SYSTEMS names what is run: kamailio, tandem (the default time limits), tandem-shortest. All three when it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
source=${BENCH_KIT:-$PWD/../shared/bench}
results=${RESULTS:-$PWD/bench/results/local}
systems=${SYSTEMS:-kamailio tandem tandem-shortest}
if [ ! -f "$source/failover.py" ]; then
  echo "the benchmark kit is not at $source: name its folder in BENCH_KIT" >&2
  exit 2
fi
# A network namespace of its own: the fixed addresses of the kit collide with nothing else on this machine.
if [ -z "${TANDEM_BENCH_INSIDE:-}" ]; then
  exec unshare --net env TANDEM_BENCH_INSIDE=1 "$repository/bench/failover.sh" "$@"
fi
ip link set lo up
if ! command -v kamailio >/dev/null 2>&1; then
  echo "kamailio is missing: run bench/run.sh first, which installs it" >&2
  exit 2
fi
export TANDEM_REPOSITORY=$repository
export TANDEM_BINARY=${TANDEM_BINARY:-$repository/target/debug/tandem}
export TANDEM_CLUSTER=$repository/target/bench-cluster
kit=$repository/target/bench-kit
mkdir -p "$kit" "$results" "$TANDEM_CLUSTER"
cp -r --no-preserve=mode "$source/." "$kit/"
trap 'python3 "$repository/bench/provision_cluster.py" end' EXIT
for system in $systems; do
  case $system in
    kamailio) cluster=$kit/sut/cluster-kamailio-dmq.json ;;
    tandem) cluster=$repository/bench/sut/cluster-tandem.json TANDEM_TIMING=default ;;
    tandem-shortest) cluster=$repository/bench/sut/cluster-tandem.json TANDEM_TIMING=shortest ;;
    *) echo "SYSTEMS: $system is none of kamailio, tandem, tandem-shortest" >&2; exit 2 ;;
  esac
  export TANDEM_TIMING=${TANDEM_TIMING:-default}
  echo "== $system"
  python3 "$kit/failover.py" --cluster "$cluster" --out "$results/failover-$system.json" "$@"
  python3 "$repository/bench/failover_reach.py" --kit "$kit" --cluster "$cluster" --reps "${REACH_REPS:-5}" \
    --out "$results/reach-$system.json"
done
python3 "$repository/bench/failover_table.py" "$results"
