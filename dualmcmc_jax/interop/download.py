"""How are weights downloaded? Once, over an encrypted connection, and only up to a size.

The header of a file is checked before the file is stored. Nothing in a file is executed.
"""

import http.client
import logging
import re
import urllib.parse
import urllib.request
from pathlib import Path

from dualmcmc_jax.data import cache
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.interop import weights_file

MAX_BYTES = 4 * 10**9
"""Largest size of a file. That of configs/cifar10.py has about 400 MB."""
TIMEOUT = 30
"""Seconds after which a server that does not respond counts as unreachable."""
_FILE = "model.safetensors"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger(__name__)


def from_hub(argument: str, name: str) -> Path:
    """Return the model.safetensors of hf:OWNER/NAME in the cache of huggingface_hub.

    If the Hub cannot be reached, the file of an earlier download is used.

    Args:
      argument: the caller's name of this argument, for error messages.
      name: hf:OWNER/NAME.

    Raises:
      ValueError: the name has another form, the package huggingface_hub is missing, the repository has no such file or
        cannot be reached, or the file is too large or holds no weights.
    """
    repository = name.removeprefix("hf:")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{argument}: found {name!r}, expected hf:OWNER/NAME")
    try:
        import huggingface_hub as hub
    except ImportError as error:
        way_out = "install it by: pip install 'dualmcmc_jax[hub]'"
        raise ValueError(f"{argument}: found no package huggingface_hub, which {name} needs; {way_out}") from error
    try:
        size = hub.get_hf_file_metadata(hub.hf_hub_url(repository, _FILE), timeout=TIMEOUT).size
        fits = size is not None and size <= MAX_BYTES
        path = hub.hf_hub_download(repository, _FILE, etag_timeout=TIMEOUT) if fits else None
    except Exception as error:  # huggingface_hub and httpx have no common base class
        path = hub.try_to_load_from_cache(repository, _FILE)
        if not isinstance(path, str):
            raise _unreachable(argument, name, error) from error
        _log.warning("%s: found %s unreachable (%s); the file in %s is used", argument, name, first_line(error), path)
    if path is None:
        raise _too_large(argument, name, size)
    weights_file.read_config(Path(path))
    return Path(path)


def from_address(argument: str, address: str) -> Path:
    """Return the file at an https address in the cache folder.

    A file is downloaded once. If the server's file changes later, the first one is still used. An http address is
    accepted if its server is this machine, because nobody else can then change what the server sends.

    Args:
      argument: the caller's name of this argument, for error messages.
      address: the address of a model.safetensors file.

    Raises:
      ValueError: the address is not encrypted, the server cannot be reached, or its answer is too large, incomplete, or
        no file of weights.
    """
    parts = urllib.parse.urlsplit(address)
    is_local = parts.scheme == "http" and parts.hostname in _THIS_MACHINE
    if not (parts.scheme == "https" and parts.hostname) and not is_local:
        raise ValueError(f"{argument}: found {address}, expected an https address of a {_FILE} file")

    def write(path: Path) -> None:
        handlers = [_Redirects(argument), *([urllib.request.ProxyHandler({})] if is_local else [])]
        try:
            _fetch(argument, address, path, urllib.request.build_opener(*handlers))
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(argument, address, error) from error
        try:
            weights_file.read_config(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), address)) from error

    return cache.file("weights", address, write)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to other https addresses only."""

    def __init__(self, argument: str):
        self._argument = argument

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https://"):
            found = f"{req.full_url}, which leads to {newurl}"
            raise ValueError(f"{self._argument}: found {found}, expected one that leads to https addresses only")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(argument: str, address: str, path: Path, opener: urllib.request.OpenerDirector) -> None:
    """Write what an address holds to a file, at most MAX_BYTES."""
    request = urllib.request.Request(address, headers={"User-Agent": "dualmcmc_jax"})
    with opener.open(request, timeout=TIMEOUT) as response, path.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        received = 0
        while chunk := response.read(2**20):
            received += len(chunk)
            if max(received, size or 0) > MAX_BYTES:
                raise _too_large(argument, address, size)
            file.write(chunk)
    if size not in (None, received):
        raise http.client.IncompleteRead(b"", size - received)


def _too_large(argument: str, name: str, size: int | None) -> ValueError:
    found = f"a file of {size / 1e6:,.0f} MB" if size else "a file of unknown size"
    return ValueError(f"{argument}: found {found} at {name}, expected at most {MAX_BYTES / 1e6:,.0f} MB")


def _unreachable(argument: str, name: str, error: Exception) -> ValueError:
    return ValueError(f"{argument}: found {name} unreachable ({first_line(error)}), expected a server with a {_FILE}")
