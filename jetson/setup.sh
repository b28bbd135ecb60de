#!/bin/sh
# Sets a Jetson up for edgeseg: setup.sh [--service] [--dry-run]
# JetPack 6 and 7: packages, a virtual environment in /opt/edgeseg that sees the system's TensorRT, with --service the
# systemd unit as well. JetPack 4.6 and 5: the packages that BUNDLE/build.sh and BUNDLE/runner.py need.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
service='' dry=''
for word; do
    case $word in
        --service) service=1 ;;
        --dry-run) dry=1 ;;
        *)
            echo "usage: setup.sh [--service] [--dry-run]" >&2
            exit 2
            ;;
    esac
done

do_() { # shows a command, and runs it unless --dry-run
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}

status=0
report=$("$here/check.sh") || status=$?
[ $status -ne 2 ] || exit 2
if [ -z "$dry" ] && [ "$(id -u)" != 0 ]; then
    echo "setup.sh installs packages: run it with sudo." >&2
    exit 2
fi
do_ apt-get update -qq
if echo "$report" | grep -q 'mode      edgeseg itself'; then
    do_ apt-get install -y --no-install-recommends python3-venv python3-dev gcc python3-libnvinfer libnvinfer-bin
    do_ python3 -m venv --system-site-packages /opt/edgeseg
    do_ /opt/edgeseg/bin/pip install "$here/..[tensorrt,camera,metrics]"
    do_ /opt/edgeseg/bin/edgeseg doctor --quick || true
else
    do_ apt-get install -y --no-install-recommends python3-libnvinfer libnvinfer-bin python3-opencv
    echo "Copy a bundle here (edgeseg compile --target ... on another machine), then: BUNDLE/build.sh"
fi
if [ -n "$service" ]; then
    id edgeseg >/dev/null 2>&1 || do_ useradd --system --groups video edgeseg
    do_ install -m 644 "$here/../deploy/edgeseg.service" /etc/systemd/system/edgeseg.service
    do_ install -D -m 644 "$here/edgeseg-jetson.conf" /etc/systemd/system/edgeseg.service.d/jetson.conf
    do_ systemctl daemon-reload
    echo "Write /etc/edgeseg/stream.toml, then: sudo systemctl enable --now edgeseg"
fi
