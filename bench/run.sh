#!/usr/bin/env bash
# Runs the benchmark kit on Tandem beside Kamailio and prints the ratios. Further arguments go to the kit's bench.py,
# for instance: bench/run.sh --reps 3 --phases closed --tests register,refresh
set -euo pipefail
cd "$(dirname "$0")/.."
export TANDEM_REPOSITORY=$PWD
source=${BENCH_KIT:-$PWD/../shared/bench}
if [ ! -f "$source/bench.py" ]; then
  echo "the benchmark kit is not at $source: name its folder in BENCH_KIT" >&2
  exit 2
fi
if ! command -v kamailio >/dev/null 2>&1; then
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends kamailio kamailio-sqlite-modules
fi
# The kit builds its generator in its own folder, so it works on a copy.
kit=$PWD/target/bench-kit
mkdir -p "$kit"
cp -r --no-preserve=mode "$source/." "$kit/"
mkdir -p bench/results/local
exec python3 "$kit/bench.py" --sut "$kit/sut/kamailio-memory.json" --sut "$PWD/bench/sut/tandem.json" \
  --out "$PWD/bench/results/local/run.json" "$@"
