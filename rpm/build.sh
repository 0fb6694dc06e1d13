#!/usr/bin/env bash
# Build binary and source RPMs: rpm/build.sh OUT [SPEC ...], all specs if none is named.
#
# Wheels are fetched first, as pinned in constraints.txt, and packed as sources: rpmbuild itself needs no
# network. PYTHON names the interpreter whose wheels are taken, PIP_FLAGS goes to pip.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:?usage: rpm/build.sh OUT [SPEC ...]}")
shift
specs=("$@")
[ ${#specs[@]} -gt 0 ] || specs=(cortexd neurond neurond-runtime-cpu)
python=${PYTHON:-.venv/bin/python}

command -v rpmbuild >/dev/null || {
    echo "cannot build RPMs: rpmbuild is not installed (Debian: apt-get install rpm; Fedora: dnf install rpm-build)" >&2
    exit 1
}

top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
mkdir -p "$top/SOURCES" "$top/SPECS" "$out"
version=$("$python" -c 'import cortex_core; print(cortex_core.__version__)')

git rev-parse --is-inside-work-tree >/dev/null 2>&1 || {
    echo "cannot build RPMs: the sources are taken from git, and this is no git checkout" >&2
    exit 1
}
git ls-files -z |
    tar --null --files-from=- --transform "s,^,cortex-fleet-$version/," -czf "$top/SOURCES/cortex-fleet-$version.tar.gz"
cp rpm/bundled.inc "$top/SOURCES/"
for users in etc/sysusers.d/*.conf; do
    cp "$users" "$top/SOURCES/$(basename "$users" .conf).sysusers"
done

# fetch_wheels NAME EXTRA: the wheels of the project's dependencies and of EXTRA, as NAME.tar
fetch_wheels() {
    echo "fetching wheels for $2"
    "$python" - "$2" >"$top/$1.txt" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"][sys.argv[1]]))
PY
    # shellcheck disable=SC2086
    "$python" -m pip wheel --quiet --disable-pip-version-check ${PIP_FLAGS:-} \
        -c constraints.txt -r "$top/$1.txt" -w "$top/$1"
    tar -C "$top" -cf "$top/SOURCES/$1.tar" "$1"
    rm -rf "${top:?}/$1"
}

flags=(--define "_topdir $top" --define "_sourcedir $top/SOURCES" --define "_rpmdir $out"
    --define "_srcrpmdir $out" --nodeps)
if [ "$(rpm --eval '%{?_unitdir}')" = "" ]; then
    flags+=(--load rpm/macros.debian)
fi
for spec in "${specs[@]}"; do
    case $spec in
        cortexd) fetch_wheels wheels-gateway gateway ;;
        neurond-runtime-cpu) fetch_wheels wheels-node-cpu node ;;
    esac
    echo "building $spec"
    # The version goes into the spec, so that the source RPM can be built again without this script.
    { echo "%global project_version $version"; cat "rpm/$spec.spec"; } >"$top/SPECS/$spec.spec"
    rpmbuild -ba --quiet "${flags[@]}" "$top/SPECS/$spec.spec"
done
find "$out" -name '*.rpm' -newer "$top/SOURCES/bundled.inc" -printf '%s %p\n'
