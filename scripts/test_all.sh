#!/bin/sh
# scripts/test_all.sh JOBS DATA: everything `make test` runs, sanitizers, benchmarks' smoke runs, and tests on real data.
# A part that cannot run here is counted as skipped, with its reason; the sum stands in the last line.
set -u
jobs=$1 data=$2
cd "$(dirname "$0")/.."
mkdir -p build
totals=build/totals
: >$totals
failed=0

# Unit tests and fuzz targets of the modules without libtorch (it is not built for sanitizers). $1 preset.
# setarch -R: GCC 12's thread sanitizer does not start where the kernel shuffles addresses by more than 28 bits.
sanitizer() {
  preset=$1
  if ! scripts/build.sh "$preset" "$jobs" -DTAILOR_TUNE=OFF -DTAILOR_BENCHMARKS=OFF; then
    echo "0 1 0" >>$totals
    failed=1
    return
  fi
  setarch -R python3 scripts/run_tests.py --build "build/$preset" --jobs "$jobs" --totals $totals --label '^(unit|fuzz)$' || failed=1
}

skip() { # how many, reason
  echo "SKIPPED $1: $2"
  echo "0 0 $1" >>$totals
}

make --no-print-directory build JOBS="$jobs" || exit 1
python3 scripts/run_tests.py --build build/release --jobs "$jobs" --totals $totals || failed=1

# The store, killed a thousand times; the unit test does it a hundred times.
if TAILOR_CRASHES=1000 build/release/tailor_store_test --gtest_brief=1 --gtest_filter='StoreCrash.*'; then
  echo "1 0 0" >>$totals
else
  echo "0 1 0" >>$totals
  failed=1
fi

# Servers with a job, a batch of 4,500 lines and many small ones, killed thirty times each; the recipe tests do it three
# times.
if TAILOR_SERVER_KILLS=30 TAILOR_BUILD_DIR=build/release TAILOR_SOURCE_DIR=. OMP_WAIT_POLICY=passive \
  build/release/tests/tailor_serve_jobs_recipe_test --gtest_brief=1 --gtest_filter='Serve*.Killed*'; then
  echo "1 0 0" >>$totals
else
  echo "0 1 0" >>$totals
  failed=1
fi

export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
sanitizer asan
# GNU OpenMP's barriers are invisible to the thread sanitizer; what runs on them is left out by name in scripts/tsan.supp.
export TSAN_OPTIONS="suppressions=$PWD/scripts/tsan.supp second_deadlock_stack=1"
sanitizer tsan

python3 scripts/bench.py --smoke --totals $totals || failed=1
python3 scripts/test_methods.py --totals $totals || failed=1
python3 scripts/test_web.py --totals $totals || failed=1

# The archive needs root for its chroot, and a second build.
if [ "$(id -u)" = 0 ] && python3 scripts/dist.py --jobs "$jobs"; then
  python3 scripts/test_dist.py --totals $totals || failed=1
else
  skip 1 "the release archive: not root, or it was not built"
fi

# Clients come from registries; where these cannot be reached the rest is tested all the same.
if scripts/setup.sh --clients; then
  python3 scripts/test_clients.py --totals $totals || failed=1
else
  skip 1 "the server's clients could not be installed (scripts/setup.sh --clients)"
fi

if [ -d "$data/banking77" ] && [ -d "$data/sms_spam" ]; then
  python3 scripts/test_data.py "$data" --totals $totals || failed=1
else
  skip 3 "tests on real data: $data/banking77 or $data/sms_spam is absent (make test-all DATA=directory)"
fi

awk '{ p += $1; f += $2; s += $3 } END { printf "all: %d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 }' $totals || failed=1
exit $failed
