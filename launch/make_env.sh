#!/usr/bin/env bash
# Makes the environment in .venv and installs the package into it; does nothing if that is done.
#
# Usage: launch/make_env.sh [EXTRAS]      e.g. launch/make_env.sh test
#
# What was installed is remembered in .venv/mirage-<extras>.stamp as a hash of pyproject.toml, so a
# changed dependency installs again. Packages come from wherever your own pip configuration says.
set -eu

cd "$(dirname "$0")/.."
extras="${1:-}"
venv="${VENV:-.venv}"
python="$venv/bin/python"

# An environment whose interpreter has gone, or that was moved, is made anew.
if ! "$python" -m pip --version >/dev/null 2>&1; then
  base="$(launch/find_python.sh)"
  echo "Making $venv with $base"
  rm -rf "$venv"
  "$base" -m venv "$venv"
fi

wanted="$("$python" -c 'import hashlib, os, sys
print(hashlib.sha256(open("pyproject.toml", "rb").read() + os.getcwd().encode()).hexdigest())')"
wider="test parity" # test contains the others but these three, parity contains test
case "$extras" in parity | notebooks | depth) wider="" ;; esac
for done in "$extras" $wider; do
  if [ "$(cat "$venv/mirage-$done.stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
  fi
done

echo "Installing mirage-jax${extras:+ with extras [$extras]} into $venv (a few minutes the first time)"
"$python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
echo "$wanted" > "$venv/mirage-$extras.stamp"
