#!/usr/bin/env bash
# Prints the path of a Python that can make the project's environment, or says what to install.
#
# A candidate counts only if it runs: pyenv leaves shims on PATH for versions that are not selected,
# and Debian ships a python3 without the modules that make environments. So each one is asked.
#
# Usage: launch/find_python.sh          search PATH, pyenv and uv
#        PYTHON=/path/to/python launch/find_python.sh     accept this one or refuse
set -u

MINIMUM="3.12"
PROBE='import sys, venv, ensurepip
if sys.version_info < (3, 12):
    raise SystemExit(1)
print(sys.executable)'

# Prints the real path of the interpreter if it is new enough and complete.
probe() {
  [ -n "$1" ] && "$1" -c "$PROBE" 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
  probe "$PYTHON" && exit 0
  echo "PYTHON=$PYTHON does not run, is older than $MINIMUM, or lacks the venv and ensurepip modules." >&2
  echo "Give another one, or leave PYTHON unset to have one looked for." >&2
  exit 1
fi

# 1. PATH: every entry of every name, since the first may be a shim that does not run. 3.12 and 3.13
#    come first because every dependency has wheels for them.
for name in python3.12 python3.13 python3 python3.14 python; do
  while read -r candidate; do
    probe "$candidate" && exit 0
  done < <(type -aP "$name")
done

# 2. pyenv, selected or not.
for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
  for candidate in "$root"/versions/3.1[2-9]*/bin/python; do
    [ -x "$candidate" ] && probe "$candidate" && exit 0
  done
done

# 3. uv: what it knows already, then what it can fetch.
if command -v uv >/dev/null 2>&1; then
  probe "$(uv python find ">=$MINIMUM" 2>/dev/null)" && exit 0
  echo "No Python >= $MINIMUM found; asking uv for one." >&2
  uv python install "$MINIMUM" >&2 && probe "$(uv python find "$MINIMUM" 2>/dev/null)" && exit 0
fi

# printf, not cat: PATH may hold nothing at all.
printf '%s\n' >&2 \
  "No usable Python >= $MINIMUM found on PATH, in pyenv or through uv. Install one, then repeat:" \
  "  Debian or Ubuntu   sudo apt-get install python3.12 python3.12-venv" \
  "  macOS              brew install python@3.12" \
  "  pyenv              pyenv install 3.12" \
  "  uv                 uv python install 3.12" \
  "or name one yourself: make env PYTHON=/path/to/python3.12"
exit 1
