#!/bin/sh
# aarch64.sh FOLDER BUNDLE [CPU [FILE]]
#
# Replays BUNDLE's golden samples with the aarch64 wheels of onnxruntime and OpenVINO, in QEMU's emulation of CPU, and
# exits as `perceiver-deploy validate BUNDLE --golden --json` does. With FILE, `perceiver-deploy run BUNDLE FILE --json`
# follows. FOLDER keeps QEMU, Debian's Python and the wheels; nothing is installed on this machine, and root is not
# needed. $PYTHON (python3) is an interpreter with pip.
#
# QEMU is Debian 13's 10.0: Debian 12's 7.2 crashes in both runtimes. The default CPU has no dot-product instructions.
set -eu
if [ $# -lt 2 ] || [ $# -gt 4 ]; then
    echo "usage: $0 FOLDER BUNDLE [CPU [FILE]]" >&2
    exit 2
fi
SUITE=trixie
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
bundle=$2
cpu=${3:-cortex-a72}
file=${4:-}
python=${PYTHON:-python3}
tree=$folder/tree
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -e "$folder/complete" ]; then
    for tool in apt-get dpkg-deb; do
        if ! command -v $tool > /dev/null; then
            echo "$tool is not here: this script works on Debian." >&2
            exit 5
        fi
    done
    . /etc/os-release
    mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' | sed -n "s/^${VERSION_CODENAME:-none} //p" | head -n 1)
    if [ -z "$mirror" ]; then
        echo "apt's sources do not name a mirror of $ID ${VERSION_CODENAME:-}; $SUITE's packages are taken from it." >&2
        exit 5
    fi
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/here" "$work/there"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" > "$work/sources.list"
    : > "$work/status"
    for hook in Pre-Invoke Post-Invoke Post-Invoke-Success; do
        echo "#clear APT::Update::$hook;" # they are for the system's lists
    done > "$work/apt.conf"
    apt() {
        apt-get --quiet --config-file="$work/apt.conf" --option=APT::Architectures::="$(dpkg --print-architecture)" \
            --option=APT::Architectures::=arm64 --option=Dir::Etc::SourceList="$work/sources.list" \
            --option=Dir::Etc::SourceParts=/dev/null --option=Dir::State="$work/state" \
            --option=Dir::State::status="$work/status" --option=Dir::Cache="$work/cache" \
            --option=Acquire::Languages=none --option=APT::Sandbox::User=root --option=Acquire::Retries=3 "$@"
    }
    apt update >&2
    packages=$(apt --simulate --no-install-recommends install python3:arm64 libstdc++6:arm64 base-files:arm64 |
        sed -n 's/^Inst \([^ ]*\).*/\1/p' | sed -n 's/:arm64$//p' | sed 's/$/:arm64/')
    (cd "$work/here" && apt download qemu-user >&2)
    (cd "$work/there" && apt download $packages >&2)
    rm -rf "$folder/qemu" "$tree"
    mkdir -p "$tree/usr/lib" "$tree/usr/bin" "$tree/usr/sbin"
    ln -s usr/lib usr/bin usr/sbin "$tree" # as every Debian has them, before packages are unpacked through them
    dpkg-deb --extract "$work"/here/*.deb "$folder/qemu"
    for package in "$work"/there/*.deb; do
        dpkg-deb --extract "$package" "$tree"
    done
    touch "$folder/complete"
fi

interpreter=$(readlink "$tree/usr/bin/python3") # python3.13
version=${interpreter#python}
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$ROOT"
tags=$(for minor in $(seq 17 41); do echo "--platform manylinux_2_${minor}_aarch64"; done) # 2.41 is trixie's C library
rm -rf "$folder/site"
"$python" -m pip install --quiet --target "$folder/site" --only-binary=:all: --python-version "$version" \
    --implementation cp --abi "cp$(echo "$version" | tr -d .)" --abi abi3 --abi none --platform manylinux2014_aarch64 $tags \
    "$(echo "$work"/*.whl)[cpu]" >&2

emulated() {
    "$folder/qemu/usr/bin/qemu-aarch64" -L "$tree" -cpu "$cpu" -E PYTHONHOME="$tree/usr" -E PYTHONPATH="$folder/site" \
        -E ORT_DISABLE_TELEMETRY=1 -E XDG_CACHE_HOME="$work/cache" "$tree/usr/bin/$interpreter" "$@"
}
emulated -c 'import platform, numpy, onnxruntime, openvino
print(platform.machine(), "Python", platform.python_version(), "numpy", numpy.__version__, "onnxruntime",
      onnxruntime.__version__, "OpenVINO", openvino.__version__)' >&2
emulated -m perceiver_deploy.cli validate "$bundle" --golden --json
if [ -n "$file" ]; then
    emulated -m perceiver_deploy.cli run "$bundle" "$file" --json
fi
