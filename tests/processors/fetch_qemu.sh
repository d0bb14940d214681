#!/bin/sh
# Puts QEMU's user emulation of x86-64 into FOLDER/usr, from Debian's packages and without installing them. It is needed
# where the processor does not let CPUID be masked (mask.c).
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
folder=$1
if [ -e "$folder/complete" ]; then
    exit 0
fi
for tool in apt-get dpkg-deb; do
    if ! command -v $tool > /dev/null; then
        echo "$tool is not here: this script works on Debian. Elsewhere, put qemu-x86_64 on the PATH." >&2
        exit 5
    fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get --quiet --option=APT::Sandbox::User=root download qemu-user >&2)
mkdir -p "$folder"
dpkg-deb --extract "$work"/qemu-user_*.deb "$folder"
touch "$folder/complete"
