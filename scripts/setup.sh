#!/bin/sh
# Makes a Debian 12 machine ready to build Tailor: system packages, pinned libraries, default models, llama.cpp, XGrammar.
# Run it as often as you like: what is there already is not done again. `scripts/setup.sh --help` lists the options.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v python3 >/dev/null 2>&1; then
  echo "setup: python3 is missing; install it with: apt-get install python3 python3-pip" >&2
  exit 4
fi
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 exec python3 -m tailor_setup "$@"
