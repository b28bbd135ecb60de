#!/usr/bin/env bash
# The device side on aarch64, by emulation: what it computes, never how fast. Needs Debian with apt, root, and qemu-user.
# Python and the C library come from Debian's arm64 packages, everything else from aarch64 wheels; the C kernels are
# compiled across, alone and into a wheel. Run it with `make test-arm`; nothing outside build/arm is changed but apt's list of architectures.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
arm=$PWD/build/arm
mkdir -p "$arm/debs" "$arm/root" "$arm/site" "$arm/wheels"

dpkg --add-architecture arm64
apt-get update -qq
command -v qemu-aarch64 aarch64-linux-gnu-gcc >/dev/null ||
    apt-get install -y -qq --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
(
    cd "$arm/debs"
    apt-get download -qq python3.11-minimal:arm64 libpython3.11-{minimal,stdlib,dev}:arm64 libpython3.11:arm64 \
        libc6:arm64 libstdc++6:arm64 libgcc-s1:arm64 libgomp1:arm64 zlib1g:arm64 libexpat1:arm64 libssl3:arm64 \
        libffi8:arm64 libbz2-1.0:arm64 liblzma5:arm64 libuuid1:arm64 libsqlite3-0:arm64 2>/dev/null
)
for package in "$arm"/debs/*.deb; do dpkg -x "$package" "$arm/root"; done

tags=(--platform manylinux2014_aarch64)
for glibc in 17 24 26 27 28 31 34 35 36; do tags+=(--platform "manylinux_2_${glibc}_aarch64"); done
"$python" -m pip download -q -d "$arm/wheels" --only-binary=:all: --python-version 3.11 --implementation cp \
    --abi cp311 --abi abi3 --abi none "${tags[@]}" \
    'numpy>=1.26' 'opencv-python-headless>=4.10' 'typer>=0.15' 'rich>=13' 'msgspec>=0.19' 'openvino>=2026.1' \
    'onnx>=1.19' pytest pytest-timeout hypothesis
for wheel in "$arm"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$arm/site"; done

for kernel in _mask _motion; do
    aarch64-linux-gnu-gcc -O3 -ffp-contract=off -fPIC -shared -std=c11 -I "$arm/root/usr/include/python3.11" \
        -I "$arm/root/usr/include" "edgeseg/$kernel.c" -o "edgeseg/$kernel.cpython-311-aarch64-linux-gnu.so"
done
trap 'rm -f edgeseg/*.cpython-311-aarch64-linux-gnu.so' EXIT

# The wheel for aarch64: stable ABI, and no symbol of a C library newer than manylinux_2_17 allows.
CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" _PYTHON_HOST_PLATFORM=linux-aarch64 \
    CFLAGS="-fPIC -I$arm/root/usr/include/python3.11 -I$arm/root/usr/include" \
    "$python" setup.py -q build -b "$arm/build" bdist_wheel -d "$arm/dist" -p manylinux_2_17_aarch64 >/dev/null
rm -rf "$arm/wheel"
"$python" -m zipfile -e "$arm"/dist/edgeseg-*-cp311-abi3-manylinux_2_17_aarch64.whl "$arm/wheel"
if aarch64-linux-gnu-objdump -T "$arm"/wheel/edgeseg/*.abi3.so | grep -o 'GLIBC_[0-9.]*' | grep -v GLIBC_2.17; then
    exit 1
fi

on_arm() { qemu-aarch64 -cpu cortex-a76 -L "$arm/root" -E "PYTHONPATH=$PWD:$arm/site" \
    "$arm/root/usr/bin/python3.11" -B "$@"; }

on_arm -c 'import platform; from edgeseg import mask; assert platform.machine() == "aarch64" and mask.compiled()'
(cd "$arm/wheel" && on_arm -c 'from edgeseg import mask; assert mask.compiled() and "abi3" in mask._mask.__file__')
# One test starts a second interpreter, which is not emulated.
on_arm -m pytest -p no:cacheprovider tests/core/test_mask.py tests/core/test_motion.py tests/core/test_spec.py \
    --deselect tests/core/test_motion.py::test_it_works_without_the_kernel
for bundle in models/street/street-fp32 models/street/street-int8 models/camvid/camvid-fp16; do
    on_arm -m edgeseg verify "$bundle"
done
# Known to be refused: OpenVINO on Arm rounds INT8 otherwise (docs/jetson.md).
on_arm -m edgeseg verify models/camvid/camvid-int8 || echo "refused, as known"
