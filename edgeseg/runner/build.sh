#!/bin/sh
# Builds this bundle's TensorRT engine on the board itself, into a folder of yours alone below ~/.cache/edgeseg/runner
# ($EDGESEG_CACHE/runner): ./build.sh, or ./build.sh --again to build it anew.
# Needs trtexec, which JetPack installs (/usr/src/tensorrt/bin), and a few minutes. Run it again after a JetPack update.
set -eu
umask 077
bundle=$(cd "$(dirname "$0")" && pwd)
cache=${EDGESEG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgeseg}/runner
id=$(sha256sum "$bundle/bundle.json" | cut -c1-40)
out=$cache/$id
mkdir -p "$out"
for place in "$cache" "$out"; do
    if [ -n "$(find "$place" -prune \( ! -user "$(id -u)" -o -perm /022 \))" ]; then
        echo "$place can be written by other users, and engines are executed. Remove it, or set EDGESEG_CACHE." >&2
        exit 2
    fi
    chmod 700 "$place"
done
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
    echo "trtexec was not found. Install it: sudo apt install libnvinfer-bin" >&2
    exit 2
fi

# A value of plan.json, which is written one key a line.
plan() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$out/plan.json"; }

# Two builds at once would only disturb each other; the second one waits and finds the engine built.
exec 9>"$out/.build.lock"
flock 9
# Copies, so that what is checked is what is built, whatever happens to the bundle meanwhile.
for name in bundle.json model.onnx plan.json; do
    cp "$bundle/$name" "$out/$name"
    digest=$(sha256sum "$out/$name" | cut -d' ' -f1)
    case $name in bundle.json) known=$(echo "$digest" | cut -c1-40 | grep -c "^$id$" || true) ;;
        *) known=$(tr -d ' \n' <"$out/bundle.json" | grep -c "\"$name\":{\"sha256\":\"$digest\"" || true) ;; esac
    if [ "$known" != 1 ]; then
        echo "$name differs from its digest in bundle.json. Copy the bundle again." >&2
        exit 2
    fi
done
if [ "${1:-}" = --again ]; then rm -f "$out/model.engine" "$out/model.engine.key"; fi
key=$({ sha256sum "$out/model.onnx" "$out/plan.json" | cut -d' ' -f1; dpkg-query -W -f '${Version}\n' 'libnvinfer[0-9]*' 2>/dev/null || true
    cat /etc/nv_tegra_release 2>/dev/null || true; } | sha256sum | cut -d' ' -f1)
if [ -f "$out/model.engine" ] && [ "$(sed -n 1p "$out/model.engine.key" 2>/dev/null)" = "$key" ] &&
    [ "$(sha256sum "$out/model.engine" | cut -d' ' -f1)" = "$(sed -n 2p "$out/model.engine.key")" ]; then
    echo "The engine is up to date: $out/model.engine"
    exit 0
fi

set -- "--onnx=$out/model.onnx" "--saveEngine=$out/model.engine.tmp"
case $(plan precision) in
    fp16) set -- "$@" --fp16 ;;
    int8) set -- "$@" --int8 --fp16 ;;
    fp32) ;;
    *) echo "plan.json has an unknown precision; expected fp32, fp16 or int8. Compile the bundle again." >&2; exit 2 ;;
esac
help=$("$trtexec" --help 2>&1 || true)
workspace=$(plan workspace_mb)
case $help in
    *--memPoolSize*) set -- "$@" "--memPoolSize=workspace:$workspace" ;;
    *) set -- "$@" "--workspace=$workspace" ;; # before TensorRT 8.4
esac
case $help in
    *--skipInference*) set -- "$@" --skipInference ;;
    *--buildOnly*) set -- "$@" --buildOnly ;;
esac
core=$(plan dla)
if [ "$core" != -1 ]; then
    set -- "$@" "--useDLACore=$core" --allowGPUFallback
fi
set -- "$@" "--timingCacheFile=$out/timing.cache"

trap 'rm -f "$out/model.engine.tmp" "$out/model.onnx"' EXIT INT TERM
echo "$trtexec $*"
if ! "$trtexec" "$@" >"$out/build.log" 2>&1; then
    tail -n 20 "$out/build.log" >&2
    echo "trtexec failed; its whole output is in $out/build.log" >&2
    exit 1
fi
printf '%s\n%s\n' "$key" "$(sha256sum "$out/model.engine.tmp" | cut -d' ' -f1)" >"$out/model.engine.key.tmp"
mv "$out/model.engine.tmp" "$out/model.engine"
mv "$out/model.engine.key.tmp" "$out/model.engine.key"
echo "Wrote $out/model.engine. Now: python3 $bundle/runner.py --check"
