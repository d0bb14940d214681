#!/bin/sh
# Puts a program with the libraries that are not installed into FOLDER/usr, from Debian's packages and without installing
# them. The tests of HTML reports look for chromium (115 MB) in build/chromium, those of other processors for qemu-user in
# build/qemu.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: $0 FOLDER PACKAGE" >&2
    exit 2
fi
folder=$1
if [ -e "$folder/complete" ]; then
    exit 0
fi
for tool in apt-get dpkg-deb; do
    if ! command -v $tool > /dev/null; then
        echo "$tool is not here: this script works on Debian. Elsewhere, put what $2 has on the PATH." >&2
        exit 5
    fi
done
packages=$(apt-get --simulate --no-install-recommends install "$2" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get --quiet --option=APT::Sandbox::User=root download $packages >&2)
mkdir -p "$folder"
for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
touch "$folder/complete"
