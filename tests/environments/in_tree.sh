#!/bin/sh
# in_tree.sh FOLDER COMMAND...
#
# Runs COMMAND in the Debian tree in FOLDER, with the machine's /proc, /sys and /dev (runtimes ask them for processors),
# name servers and certificates. The mounts are in a namespace of their own and end with the command.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 FOLDER COMMAND..." >&2
    exit 2
fi
folder=$1
shift
cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
exec unshare --mount sh -euc '
    folder=$1
    shift
    for place in proc sys dev; do
        mount --rbind "/$place" "$folder/$place"
    done
    exec chroot "$folder" "$@"
' sh "$folder" "$@"
