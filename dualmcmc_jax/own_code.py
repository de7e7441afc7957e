"""Code of the user: networks, objectives and data sources that a config names by MODULE:NAME or FILE.py:NAME.

A config may come from someone else, such as that of a workdir, of a weights file or of a repository. Code is therefore
never imported because a config names it. The user must name it, too: on the command line or in a config file that is
given there (`permit`), or by passing the object itself to `dualmcmc_jax.load` (`given`).
"""

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

_NAME = re.compile(r"([A-Za-z_][\w.]*|.*\.py):([A-Za-z_]\w*)")
_PERMITTED: ContextVar[frozenset[str]] = ContextVar("permitted", default=frozenset())
_GIVEN: ContextVar[Mapping[str, Any]] = ContextVar("given", default=MappingProxyType({}))
_PACKAGE = f"{Path(__file__).parent}/"


def is_name(text: Any) -> bool:
    """Return whether a text has the form MODULE:NAME or FILE.py:NAME."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text))


def same(first: Any, second: Any) -> bool:
    """Return whether two names may mean the same code: equal names in modules or files of equal names.

    The code may have moved to another folder.
    """
    if not (is_name(first) and is_name(second)):
        return False
    (place, name), (other_place, other_name) = (_NAME.fullmatch(text).groups() for text in (first, second))
    stem = lambda place: Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return name == other_name and stem(place) == stem(other_place)


def objects(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the part after the colon of those values that name code of the user."""
    return {key: _NAME.fullmatch(value)[2] for key, value in values.items() if is_name(value)}


def permit(names: Collection[str]) -> None:
    """Let this process import the code of these names, and of no others."""
    _PERMITTED.set(frozenset(names))


@contextlib.contextmanager
def given(objects: Mapping[str, Any]) -> Iterator[None]:
    """Use objects in place of the code that a config names, within the context.

    Args:
      objects: objects by the name of a config field, such as "energy.kind".
    """
    token = _GIVEN.set(objects)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def find(field: str, name: str, *, argument: str = "") -> Any:
    """Return the object that a config field names. Import its module, if the user has named it.

    Args:
      field: name of the config field, such as "energy.kind".
      name: value of the field.
      argument: the argument of `dualmcmc_jax.load` that takes such an object, for the error message; "" for none.

    Raises:
      ValueError: only a stored config names the code, the import failed, or the module has no such object.
    """
    if field in _GIVEN.get():
        return _GIVEN.get()[field]
    if name not in _PERMITTED.get():
        way_out = f"--config.{field}={name}" + (f", or {argument}=... in Python" if argument else "")
        raise ValueError(f"{field}: found your code {name!r}, which runs only if you name it now, expected {way_out}")
    place, attribute = _NAME.fullmatch(name).groups()
    module = _module(field, place)
    if not hasattr(module, attribute):
        shown = getattr(module, "__file__", None) or place
        raise ValueError(f"{field}: found no {attribute} in {shown}, expected its definition")
    return getattr(module, attribute)


def problem(error: Exception | SystemExit) -> str:
    """Return the type, the first line and the place of an error that code of the user raised."""
    frames = traceback.extract_tb(error.__traceback__)
    is_library = lambda name: name.startswith((_PACKAGE, "<frozen")) or re.search(r"/(site|dist)-packages/", name)
    own = [frame for frame in frames if not is_library(frame.filename)]
    if isinstance(error, SyntaxError):
        place = f" in {error.filename}, line {error.lineno}"
    else:
        place = f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""
    message = getattr(error, "msg", None) or str(error)
    return f"{type(error).__name__} ({(message.splitlines() or [''])[0]}){place}"


def _module(field: str, place: str) -> ModuleType:
    """Import a module by its name or its file. Modules beside it, or in the current folder, can be imported, too."""
    is_file = place.endswith(".py")
    path = Path(place).expanduser().resolve()
    if is_file and not path.is_file():
        raise ValueError(f"{field}: found no file {place}, expected a Python file")
    with _first_in_path(str(path.parent if is_file else Path.cwd())):
        try:
            return _of_file(path) if is_file else importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name != place:
                raise ValueError(f"{field}: found {problem(error)}, expected code that can be imported") from error
            places = f"in {Path.cwd()} or among the installed packages"
            raise ValueError(f"{field}: found no module {place} {places}, expected MODULE:NAME") from error
        except (Exception, SystemExit) as error:
            raise ValueError(f"{field}: found {problem(error)}, expected code that can be imported") from error


def _of_file(path: Path) -> ModuleType:
    """Import a file, once. Its name in sys.modules cannot be that of another module."""
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@contextlib.contextmanager
def _first_in_path(folder: str) -> Iterator[None]:
    """Look for modules in a folder first within the context, and last from then on."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
