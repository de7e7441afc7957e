# Sourced by the other scripts. The argument is a requirements file. Changes to the root of the repository, creates and
# activates a virtual environment in $VENV (default: .venv), and installs the package and the requirements, if the file
# has changed or the package is missing.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}
if [ ! -x "$venv/bin/python" ]; then
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: found $("$python" --version 2>&1), expected Python 3.11 or later; set PYTHON to another Python" >&2
    exit 1
  }
  "$python" -m venv "$venv"
fi
# shellcheck disable=SC1091
. "$venv/bin/activate"
installed=$venv/${1//\//-}.installed
if ! cat requirements.txt "$1" | cmp -s - "$installed" || [ ! -x "$venv/bin/dualmcmc" ]; then
  echo "installing dualmcmc_jax and $1 into $venv" >&2
  python -m pip install --quiet --disable-pip-version-check -r "$1" -e .
  cat requirements.txt "$1" > "$installed"
fi
