# Sourced by the other scripts, with the requirements file as its argument. Makes a virtual environment in .venv at the
# repository's root unless one is active, installs what the file asks for if that has changed, and goes to the root.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $("$python" --version 2>&1) found, expected Python 3.11 or later; name one with PYTHON=..." >&2
    exit 1
  }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  # shellcheck disable=SC1091
  . .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/.dualmcmc_$(cat requirements.txt "$1" | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
  echo "installing $1 into $VIRTUAL_ENV"
  python -m pip install --quiet --disable-pip-version-check -r "$1"
  touch "$stamp"
fi
