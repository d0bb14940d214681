#!/bin/sh
# fetch_dependencies.sh FOLDER [SUITE]
#
# Puts what the C++ library is built with into FOLDER/usr, from Debian's packages and without installing them:
# the C header of onnxruntime, nlohmann-json, stb (for an example) and GoogleTest's sources (for the tests).
# Then: cmake -DCMAKE_PREFIX_PATH=FOLDER/usr ...
#
# Runs on Debian and needs no root. Elsewhere, install nlohmann-json and give CMake the folder of onnxruntime's official
# release as OnnxRuntime_ROOT.
set -eu
SUITE=${2:-trixie} # the first release of Debian that has onnxruntime (1.21); forky has 1.23, which loads plugins
PACKAGES="libonnxruntime-dev nlohmann-json3-dev libstb-dev googletest"

if [ $# -ne 1 ] && [ $# -ne 2 ]; then
    echo "usage: $0 FOLDER [SUITE]" >&2
    exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
if [ "$(cat "$folder/complete" 2> /dev/null)" = "$SUITE $PACKAGES" ]; then
    exit 0
fi

for tool in apt-get dpkg-deb; do
    if ! command -v $tool > /dev/null; then
        echo "$tool is not here: this script works on Debian. Elsewhere, set OnnxRuntime_ROOT (see docs/embedding.md)." >&2
        exit 5
    fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. /etc/os-release
mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' | sed -n "s/^${VERSION_CODENAME:-none} //p" | head -n 1)
if [ -z "$mirror" ]; then
    echo "apt's sources do not name a mirror of $ID ${VERSION_CODENAME:-}; $SUITE's packages are taken from it." >&2
    exit 5
fi
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" > "$work/sources.list"
: > "$work/status"
for hook in Pre-Invoke Post-Invoke Post-Invoke-Success; do
    echo "#clear APT::Update::$hook;" # they are for the system's lists
done > "$work/apt.conf"
apt() {
    apt-get --quiet --config-file="$work/apt.conf" \
        --option=Dir::Etc::SourceList="$work/sources.list" --option=Dir::Etc::SourceParts=/dev/null \
        --option=Dir::State="$work/state" --option=Dir::State::status="$work/status" --option=Dir::Cache="$work/cache" \
        --option=Acquire::Languages=none --option=APT::Sandbox::User=root "$@" >&2
}
apt update
(cd "$work" && apt download $PACKAGES)
for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
echo "$SUITE $PACKAGES" > "$folder/complete"
