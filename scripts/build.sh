#!/bin/sh
# scripts/build.sh PRESET JOBS [cmake arguments]: configures and builds build/PRESET; release leaves ./tailor here.
set -eu
preset=$1 jobs=$2
shift 2
cd "$(dirname "$0")/.."
begin=$(date +%s.%N)
mkdir -p build
log=build/$preset-configure.log
cmake --preset "$preset" -DTAILOR_DEPS_DIR="$TAILOR_CACHE/deps" -DTAILOR_NATIVE="${TAILOR_NATIVE:-ON}" "$@" >"$log" 2>&1 || {
  cat "$log" >&2
  exit 1
}
cmake --build "build/$preset" --parallel "$jobs"
if [ "$preset" = release ]; then
  ln -sfn build/release/bin/tailor tailor
  ln -sfn build/release/bin/tailor-tune tailor-tune
  [ -e tailor-tune ] || rm -f tailor-tune # built without libtorch
fi
awk -v a="$begin" -v b="$(date +%s.%N)" -v p="$preset" 'BEGIN { printf "[build] %s: done (%.1f s)\n", p, b - a }'
