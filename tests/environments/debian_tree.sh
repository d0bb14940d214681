#!/bin/sh
# debian_tree.sh SUITE FOLDER
#
# Makes a small Debian of SUITE (trixie, forky, ...) with its Python in FOLDER, once, from the mirror that apt uses.
# Exit code 5: something needed is not here (root, debootstrap, the mirror), with the reason on stderr.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: $0 SUITE FOLDER" >&2
    exit 2
fi
suite=$1
folder=$2
missing() {
    echo "$1" >&2
    exit 5
}
if [ "$(id -u)" != 0 ]; then
    missing "root is needed to make and enter a Debian tree."
fi
if [ -d "$folder" ]; then
    exit 0
fi
command -v debootstrap > /dev/null || missing "debootstrap is not here. Install it with: apt-get install debootstrap"
. /etc/os-release
mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' | sed -n "s/^${VERSION_CODENAME:-none} //p" | head -n 1)
if [ -z "$mirror" ]; then
    missing "apt's sources do not name a mirror of $ID ${VERSION_CODENAME:-}; $suite is taken from it."
fi
wget --quiet --spider --timeout=30 --tries=2 "$mirror/dists/$suite/InRelease" || missing "the network: $mirror has no $suite."

script=/usr/share/debootstrap/scripts/$suite
if [ ! -e "$script" ]; then
    script=/usr/share/debootstrap/scripts/sid # an older debootstrap does not know the newest names
fi
mkdir -p "$(dirname "$folder")"
rm -rf --one-file-system "$folder.partial"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$suite" "$folder.partial" "$mirror" "$script" >&2
rm -rf "$folder.partial/var/cache/apt/archives" "$folder.partial/var/lib/apt/lists"
mv "$folder.partial" "$folder"
