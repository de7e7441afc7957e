# Sourced by the other scripts. The argument is a requirements file. Changes to the root of the repository, creates and
# activates a virtual environment in $VENV (default: .venv), and installs the package and the requirements, if the files
# have changed or the package is missing. The environment has the Python $PYTHON, or else the newest one that works.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

# Prints the version of a Python from 3.11 to 3.14 that can make environments. A program on the PATH may be a shim of
# pyenv that fails, and a Python of Debian may lack the module ensurepip.
python_version() {
  "$1" -c 'import ensurepip, sys, venv
version, kind = sys.version_info[:3], sys.version_info.releaselevel
if (3, 11) <= version < (3, 15) and kind == "final": print("%d.%d.%d" % version)' 2> /dev/null
}

# Prints "VERSION PROGRAM" of the newest Python. Newer ones get newer versions of JAX, which are faster on CPUs.
newest_python() {
  local program version
  for program in python3 python3.1{1,2,3,4} "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python3; do
    version=$(python_version "$program" || true)
    [ -z "$version" ] || echo "$version $program"
  done | sort --stable --version-sort --key=1,1 | tail -n 1
}

if [ ! -x "$venv/bin/python" ]; then
  if [ -n "${PYTHON:-}" ]; then
    chosen="$(python_version "$PYTHON" || true) $PYTHON"
  else
    chosen=$(newest_python)
  fi
  case $chosen in
    3.*) ;;
    *)
      found=$({ "${PYTHON:-python3}" --version || echo "${PYTHON:-python3}, which does not run"; } 2>&1 | tail -n 1)
      echo "error: found $found, expected a Python from 3.11 to 3.14 with ensurepip; set PYTHON to another Python" >&2
      exit 1
      ;;
  esac
  echo "Python ${chosen%% *} (${chosen#* }) is used; set PYTHON to another Python, and delete $venv, to change it" >&2
  "${chosen#* }" -m venv "$venv"
fi
# shellcheck disable=SC1091
. "$venv/bin/activate"
installed=$venv/${1//\//-}.installed
if ! cat requirements.txt requirements/*.txt requirements.lock "$1" | cmp -s - "$installed" ||
  [ ! -x "$venv/bin/dualmcmc" ]; then
  echo "installing dualmcmc_jax and $1 into $venv" >&2
  # Python compiles a module when it is first imported, unless this variable forbids to store the result.
  if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then compile=--compile; else compile=--no-compile; fi
  python -m pip install --quiet --disable-pip-version-check "$compile" -c requirements.lock -r "$1" -e .
  cat requirements.txt requirements/*.txt requirements.lock "$1" > "$installed"
fi
