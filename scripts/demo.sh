#!/bin/sh
# The first run a user sees: `fit` on the project's own example. An interrupted demo goes on; a finished one starts anew.
set -eu
cd "$(dirname "$0")/.."
out=runs/demo
if [ -e $out/run.json ] && [ ! -e $out/result.json ]; then
  set -- --resume $out
else
  rm -rf $out
  set -- examples/estate-agency/inquiries.csv --text message --label intent --budget 5m --out $out
fi
echo "./tailor fit $*"
exec ./tailor fit "$@"
