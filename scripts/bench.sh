#!/bin/sh
# scripts/bench.sh DATA: the figures of docs/BENCHMARKS.md, each beside its peer in the same run.
set -eu
data=$1
cd "$(dirname "$0")/.."
if [ ! -d "$data" ]; then
  echo "bench: $data is absent; name the directory of the data sets: make bench DATA=directory" >&2
  exit 2
fi
if [ ! -f "$TAILOR_CACHE/peers/.setup" ]; then
  echo "bench: the peers are not installed; \`make peers\` does it (about 3 GB)" >&2
  exit 4
fi
exec "$TAILOR_CACHE/peers/bin/python" benchmarks/run.py --build build/release --data "$data"
