#!/bin/sh
# What this Jetson is, how edgeseg builds and runs on it, and what is missing or badly configured. Changes nothing.
# Exit 0: ready; 1: something to do, which is printed; 2: this is not a Jetson.
set -eu
root=${EDGESEG_ROOT:-} # a folder in place of /, for tests

release=$root/etc/nv_tegra_release
if [ ! -r "$release" ]; then
    echo "No $release: this is not a Jetson (or a container; run this on the board itself)." >&2
    exit 2
fi
# "# R36 (release), REVISION: 4.3, ..." -> 36.4
l4t=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9]*\).*/\1.\2/p' "$release")
case $l4t in
    32.[67]) jetpack=4.6 mode=runner python=3.6 ;;
    35.*) jetpack=5 mode=runner python=3.8 ;;
    36.[23]) jetpack=6.0 mode=native python=3.10 ;;
    36.*) jetpack=6.1 mode=native python=3.10 ;;
    38.*) jetpack=7 mode=native python=3.12 ;;
    *)
        echo "L4T ${l4t:-unknown} is not known here. Known: 32.6, 32.7 (JetPack 4.6), 35 (5), 36 (6), 38 (7)." >&2
        exit 2
        ;;
esac
board=$(tr -d '\0' <"$root/proc/device-tree/model" 2>/dev/null || echo "unknown board")
echo "board     $board"
echo "software  L4T $l4t, JetPack $jetpack, Python $python"
if [ $mode = native ]; then
    echo "mode      edgeseg itself: edgeseg build BUNDLE, then edgeseg run"
else
    echo "mode      Python $python is older than edgeseg needs: BUNDLE/build.sh, then BUNDLE/runner.py (or a container)"
fi

todo=0
need() { # need WHAT COMMAND-THAT-FIXES-IT
    echo "to do     $1: $2"
    todo=1
}
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

installed python3-libnvinfer || need "TensorRT's Python bindings are missing" "sudo apt install python3-libnvinfer"
if [ $mode = runner ]; then
    installed libnvinfer-bin || need "trtexec is missing" "sudo apt install libnvinfer-bin"
    python3 -c 'import cv2, numpy' 2>/dev/null || need "OpenCV for Python is missing" "sudo apt install python3-opencv"
fi
power=$(cat "$root/var/lib/nvpmodel/status" 2>/dev/null || echo unknown)
case $power in
    pmode:0*0) ;;
    *) need "power mode is $power, not the fastest" "sudo jetson/power.sh max (or choose on purpose: jetson/power.sh list)" ;;
esac
free=$(df -Pm "${root:-/}" | awk 'NR == 2 { print $4 }')
[ "$free" -ge 1024 ] || need "only $free MB are free" "free disk space: engines and their build take up to 1 GB"
id -nG | tr ' ' '\n' | grep -qx video || [ "$(id -u)" = 0 ] ||
    need "you are not in the group video" "sudo usermod -aG video $(id -un), then log in again"
exit $todo
