#!/usr/bin/env python3
"""Runs a segmentation bundle on a Jetson whose Python is older than edgeseg needs: 3.6 (JetPack 4.6) or 3.8 (5.x).

    ./build.sh                                              # once: builds the engine with trtexec on this board, into
                                                            # ~/.cache/edgeseg/runner ($EDGESEG_CACHE/runner)
    python3 runner.py --check                               # digests and golden frames
    python3 runner.py --source 0 --sink out.jsonl           # a camera; FILE, rtsp://..., or a GStreamer pipeline
    python3 runner.py --source in.mp4 --sink out.mp4 --sink masks/

It needs numpy, OpenCV and TensorRT as JetPack installs them, and nothing else: CUDA is called through ctypes. It is one
file, so that it can be copied alone. `edgeseg run` has more: several cameras, RTSP output, metrics, a fallback policy.
"""

import argparse
import binascii
import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import signal
import sys
import time

import cv2
import numpy as np

FITS = ("stretch", "letterbox", "crop", "pad")
INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}
HERE = os.path.dirname(os.path.abspath(__file__))


class RunnerError(Exception):
    """What happened and what to try; the program exits with 2."""


# --- the bundle ----


class Bundle(object):
    """`manifest`, `plan` and `files` (content by name), read once and checked: what is used is what was checked.

    RunnerError where a file differs from its digest, or the manifest does not list it.
    """

    OWN = ("bundle.json", "bundle.sig", "model.sig")

    def __init__(self, folder):
        try:
            text = read(os.path.join(folder, "bundle.json"))
            self.manifest = json.loads(text.decode("utf-8"))
            entries = dict((str(name), str(entry["sha256"])) for name, entry in self.manifest["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunnerError("%s is not a bundle: %s. Copy it again." % (folder, error))
        self.text, self.digest = text, hashlib.sha256(text).hexdigest()
        try:
            self.signature = read(os.path.join(folder, "bundle.sig"))
        except OSError:
            self.signature = None
        self.files = dict((name, self._read(folder, name, entries[name])) for name in sorted(entries))
        for place, _, found in os.walk(folder):
            for name in [os.path.relpath(os.path.join(place, one), folder) for one in found]:
                if name not in entries and name not in self.OWN:
                    raise RunnerError("%s holds %s, which its manifest does not list. Remove it." % (folder, name))
        try:
            self.plan = json.loads(self.files["plan.json"].decode("utf-8"))
        except (ValueError, KeyError) as error:
            raise RunnerError("%s is not a bundle for this runner: %s. Copy it again." % (folder, error))

    @staticmethod
    def _read(folder, name, digest):
        path = os.path.normpath(os.path.join(folder, name))
        real = os.path.join(os.path.realpath(folder), "")
        inside = path.startswith(os.path.join(os.path.normpath(folder), ""))
        if os.path.isabs(name) or not inside or not os.path.realpath(path).startswith(real):
            raise RunnerError("The bundle names a file outside itself: %s. Do not use it." % name)
        try:
            data = read(path)
        except OSError:
            data = None
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise RunnerError("%s is missing or differs from its digest. Copy the bundle again." % name)
        return data


def read(path):
    with open(path, "rb") as file:
        return file.read()


def cache_folder():
    """Where build.sh puts engines: $EDGESEG_CACHE/runner, else $XDG_CACHE_HOME/edgeseg/runner, in ~/.cache."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(os.environ.get("EDGESEG_CACHE") or os.path.join(own, "edgeseg"), "runner")


def find_engine(bundle):
    """The content of the engine that build.sh made of this bundle, from a folder of this user alone; its digest must
    be the one recorded then, since engines are executable."""
    folder = os.path.join(cache_folder(), bundle.digest[:40])
    path = os.path.join(folder, "model.engine")
    try:
        for place in (cache_folder(), folder):
            status = os.stat(place)
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise RunnerError("%s can be written by other users, and engines are executed. Remove it." % place)
        engine, recorded = read(path), read(path + ".key").decode("ascii", "replace").split()
    except OSError:
        raise RunnerError("There is no engine of this bundle yet. Build it on this board: ./build.sh")
    if len(recorded) != 2 or hashlib.sha256(engine).hexdigest() != recorded[1]:
        raise RunnerError("%s is not the engine that build.sh wrote. Remove it and run ./build.sh again." % path)
    return engine


# --- signatures ----


class Ed25519(object):
    """Verifying signatures (RFC 8032), since old boards have no library for it. Points are x, y, z, x y / z."""

    P = 2**255 - 19
    ORDER = 2**252 + 27742317777372353535851937790883648493
    D = -121665 * pow(121666, P - 2, P) % P
    PREFIX = binascii.unhexlify("302a300506032b6570032100")  # of a public key in DER (RFC 8410)

    def __init__(self, pem):
        lines = re.findall(r"-----BEGIN PUBLIC KEY-----([\sA-Za-z0-9+/=]+)-----END PUBLIC KEY-----", pem)
        data = binascii.a2b_base64(lines[0]) if lines else b""
        self.key = data[len(self.PREFIX) :]
        self.point = self.decode(self.key) if data.startswith(self.PREFIX) and len(self.key) == 32 else None
        if self.point is None:
            raise RunnerError("The key is no public Ed25519 key. Expected the .pub.pem file of edgeseg keygen.")

    def verifies(self, signature, message):
        s = int.from_bytes(signature[32:], "little")
        digest = hashlib.sha512(signature[:32] + self.key + message).digest()
        x, y, z, t = self.point
        negative = (-x % self.P, y, z, -t % self.P)
        base = self.decode(binascii.unhexlify("58" + "66" * 31))
        times = int.from_bytes(digest, "little") % self.ORDER
        found = self.add(self.multiply(s, base), self.multiply(times, negative))
        return s < self.ORDER and self.encode(found) == signature[:32]

    def add(self, a, b):
        x1, y1, z1, t1 = a
        x2, y2, z2, t2 = b
        e = (y1 - x1) * (y2 - x2) % self.P
        f = (y1 + x1) * (y2 + x2) % self.P
        g = 2 * t1 * t2 * self.D % self.P
        h = 2 * z1 * z2 % self.P
        e, f, g, h = f - e, h - g, h + g, f + e
        return e * f % self.P, g * h % self.P, f * g % self.P, e * h % self.P

    def multiply(self, times, point):
        total = (0, 1, 1, 0)
        while times:
            if times & 1:
                total = self.add(total, point)
            point, times = self.add(point, point), times >> 1
        return total

    def decode(self, data):
        """The point of 32 bytes, None if they are none."""
        y = int.from_bytes(data, "little")
        sign, y = y >> 255, y & (2**255 - 1)
        square = (y * y - 1) * pow(self.D * y * y + 1, self.P - 2, self.P) % self.P
        x = pow(square, (self.P + 3) // 8, self.P)
        if (x * x - square) % self.P:
            x = x * pow(2, (self.P - 1) // 4, self.P) % self.P
        if y >= self.P or (x * x - square) % self.P or (not x and sign):
            return None
        x = self.P - x if x & 1 != sign else x
        return x, y, 1, x * y % self.P

    def encode(self, point):
        x, y, z, _ = point
        inverse = pow(z, self.P - 2, self.P)
        return (y * inverse % self.P | (x * inverse % self.P & 1) << 255).to_bytes(32, "little")


def require_signature(bundle, key, name=None, min_version=None):
    """RunnerError unless the bundle, as it was read, is signed with the key, and as that name and no older version."""
    if bundle.signature is None:
        raise RunnerError("The bundle is not signed. Sign it: edgeseg sign BUNDLE --key private.pem")
    found = re.match(rb"([0-9a-f]{128})\n?(?:([0-9]{1,18}) ([^\n]{1,400})\n?)?\Z", bundle.signature)
    if not found:
        raise RunnerError("bundle.sig is not a signature. Copy the bundle again.")
    message = bundle.text
    if found.group(2):
        line = bundle.signature.split(b"\n")[1]
        message = b"edgeseg bundle signature, version and name:\n" + line + b"\n" + message
    if not Ed25519(read(key).decode("ascii", "replace")).verifies(binascii.unhexlify(found.group(1)), message):
        raise RunnerError("The bundle is not signed with this key, or was altered after signing. Do not use it.")
    if name is not None and found.group(3) != name.encode("utf-8"):
        raise RunnerError("The bundle was not signed as %s: it is another one." % name)
    if min_version is not None and int(found.group(2) or -1) < min_version:
        raise RunnerError("The bundle was not signed as version %d or newer: it is out of date." % min_version)


# --- CUDA and TensorRT ----


class Cuda(object):
    """The few calls of the CUDA runtime that inference needs, through ctypes."""

    MAPPED = 2  # cudaHostAllocMapped: CPU and GPU of a Jetson share one memory, so nothing has to be copied

    def __init__(self):
        names = ["libcudart.so", ctypes.util.find_library("cudart")]
        names += ["/usr/local/cuda/lib64/libcudart.so"]
        for name in names:
            try:
                self.lib = ctypes.CDLL(name or "")
                break
            except OSError:
                continue
        else:
            raise RunnerError("libcudart.so was not found. Install CUDA: sudo apt install nvidia-cuda")

    def call(self, name, *arguments):
        status = getattr(self.lib, name)(*arguments)
        if status:
            raise RunnerError("CUDA failed in %s with error %d. Look at: tegrastats" % (name, status))

    def shared(self, shape, kind):
        """(numpy array, GPU address) of memory that CPU and GPU share."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        host, device = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cudaHostAlloc", ctypes.byref(host), ctypes.c_size_t(size), ctypes.c_uint(self.MAPPED))
        self.call("cudaHostGetDevicePointer", ctypes.byref(device), host, ctypes.c_uint(0))
        memory = (ctypes.c_uint8 * size).from_address(host.value)
        return np.frombuffer(memory, kind).reshape(shape), device.value

    def stream(self):
        handle = ctypes.c_void_p()
        self.call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value

    def wait(self, stream):
        self.call("cudaStreamSynchronize", ctypes.c_void_p(stream))


class Engine(object):
    """frame (uint8 [H, W, 3], resized) -> logits (float32 [C, h, w]). TensorRT 8.2 to 8.6, one frame at a time."""

    def __init__(self, data):
        try:
            import tensorrt
        except ImportError as error:
            raise RunnerError(
                "TensorRT's Python bindings are missing (%s): sudo apt install python3-libnvinfer" % error
            )
        self.cuda = Cuda()
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self.engine = runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise RunnerError("TensorRT %s cannot load the engine. Run ./build.sh again." % tensorrt.__version__)
        self.context = self.engine.create_execution_context()
        self.names = hasattr(self.context, "set_tensor_address")  # 8.5 and later; older releases number their bindings
        self.stream = self.cuda.stream()
        self.addresses = []
        for index in range(2):
            name, shape, kind = self._about(index, tensorrt)
            array, address = self.cuda.shared(shape, kind)
            self.addresses.append(address)
            if name == "frame":
                self.frame = array
            else:
                self.logits = array
            if self.names:
                self.context.set_tensor_address(name, address)

    def _about(self, index, tensorrt):
        if self.names:
            name = self.engine.get_tensor_name(index)
            shape, kind = self.engine.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        else:
            name = self.engine.get_binding_name(index)
            shape, kind = self.engine.get_binding_shape(index), self.engine.get_binding_dtype(index)
        return name, tuple(shape), tensorrt.nptype(kind)

    def __call__(self, frame):
        self.frame[0] = frame  # casts to float where the board's TensorRT has no uint8 inputs
        if self.names:
            good = self.context.execute_async_v3(self.stream)
        else:
            good = self.context.execute_async_v2(self.addresses, self.stream)
        if not good:
            raise RunnerError("TensorRT could not run the engine. Run ./build.sh again; look at: dmesg | tail")
        self.cuda.wait(self.stream)
        return self.logits[0]


# --- logits to class map ----


def axis(size, small, upsample):
    """For each of `size` outputs: the lower source index, and the weight of the next one."""
    out = np.arange(size, dtype=np.float64)
    if upsample == "align_corners":
        at = out * ((small - 1) / float(size - 1)) if size > 1 else out
    elif upsample == "asymmetric":
        at = out * (small / float(size))
    else:
        at = (out + 0.5) * (small / float(size)) - 0.5
    at = at.clip(0, small - 1)
    low = np.minimum(at.astype(np.int32), max(small - 2, 0))
    return low, (at - low).astype(np.float32)


def class_map(logits, height, width, upsample):
    """Argmax of the bilinear upsample: cells whose corners agree are filled; only the others are interpolated."""
    _, h, w = logits.shape
    win = logits.argmax(0).astype(np.uint8)
    if upsample == "none" or (h, w) == (height, width):
        return win
    y, wy = axis(height, h, upsample)
    x, wx = axis(width, w, upsample)
    below, right = np.minimum(y + 1, h - 1), np.minimum(x + 1, w - 1)
    corners = [win[np.ix_(a, b)] for a in (y, below) for b in (x, right)]
    out = corners[0].copy()
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    at_y, at_x = np.nonzero(mixed)
    a, b = wy[at_y], wx[at_x]
    top, low, left, far = y[at_y], below[at_y], x[at_x], right[at_x]
    left_edge = logits[:, top, left] * (1 - a) + logits[:, low, left] * a
    right_edge = logits[:, top, far] * (1 - a) + logits[:, low, far] * a
    out[at_y, at_x] = (left_edge * (1 - b) + right_edge * b).argmax(0)
    return out


def place(fit, size, width, height):
    """The box (left, top, width, height) of a frame that is seen, and the box of the input that it fills; as
    edgeseg/fit.py does it."""
    across, down = size[0] / float(width), size[1] / float(height)
    if fit == "stretch":
        return (0, 0, width, height), (0, 0) + size
    if fit == "crop":
        scale = max(across, down)
        w, h = min(width, round(size[0] / scale)), min(height, round(size[1] / scale))
        w, h = max(1, w), max(1, h)
        return ((width - w) // 2, (height - h) // 2, w, h), (0, 0) + size
    scale = min(across, down) if fit == "letterbox" else min(across, down, 1.0)
    w = max(1, min(size[0], round(width * scale)))
    h = max(1, min(size[1], round(height * scale)))
    corner = ((size[0] - w) // 2, (size[1] - h) // 2) if fit == "letterbox" else (0, 0)
    return (0, 0, width, height), corner + (w, h)


def inside(box):
    """The slices of a box in an array."""
    left, top, width, height = box
    return slice(top, top + height), slice(left, left + width)


class Segmenter(object):
    """Frame of any size -> class map of the network's size."""

    def __init__(self, folder, engine=None, check=lambda bundle: None):
        bundle = Bundle(folder)
        check(bundle)
        try:
            spec = bundle.manifest["spec"]
            self.size = (int(spec["width"]), int(spec["height"]))
            self.fit = str(spec.get("fit", "stretch"))
            self.interpolation = INTERPOLATIONS[spec.get("interpolation", "linear")]
            self.pad_color = tuple(int(v) for v in spec.get("pad_color", (114, 114, 114)))[::-1]
            if self.fit not in FITS:
                raise ValueError("fit %r" % self.fit)
            self.upsample = bundle.manifest["upsample"]
            self.classes, self.palette = list(spec["classes"]), np.array(spec["palette"], np.uint8)
            self.minimum_agreement = float(bundle.plan["golden_agreement"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunnerError("%s is not a bundle for this runner: %r. Copy it again." % (folder, error))
        self.golden = dict((name, data) for name, data in bundle.files.items() if name.startswith("golden/"))
        self.engine = engine or Engine(find_engine(bundle))

    def __call__(self, image):
        """The class map [H, W] at the network's size."""
        return class_map(self.engine(self.entry(image)), self.size[1], self.size[0], self.upsample)

    def entry(self, image):
        """The frame as the network's input."""
        seen, filled = place(self.fit, self.size, image.shape[1], image.shape[0])
        part = np.ascontiguousarray(image[inside(seen)])
        if part.shape[1::-1] != filled[2:]:
            part = cv2.resize(part, filled[2:], interpolation=self.interpolation)
        if filled[2:] == self.size:
            return part
        out = np.empty((self.size[1], self.size[0], 3), np.uint8)
        out[:] = self.pad_color
        out[inside(filled)] = part
        return out

    def check(self):
        """The smallest agreement with a golden class map; RunnerError below the plan's limit."""
        names = sorted(name for name in self.golden if name.endswith(".mask.png"))
        if not names:
            raise RunnerError("The bundle has no golden frames. Compile it again.")
        shares = []
        for name in names:
            frame = self._decoded(name.replace(".mask.png", ".png"), cv2.IMREAD_COLOR)
            truth = self._decoded(name, cv2.IMREAD_UNCHANGED)
            if truth.shape != self.size[::-1]:
                raise RunnerError("%s has another size than the network. Copy the bundle again." % name)
            shares.append(float((self(frame) == truth).mean()))
        if min(shares) < self.minimum_agreement:
            raise RunnerError(
                "A golden frame agrees on %.2f %% of pixels only, expected %.2f %%. Run: ./build.sh --again"
                % (100 * min(shares), 100 * self.minimum_agreement)
            )
        return min(shares)

    def _decoded(self, name, flags):
        data = self.golden.get(name)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise RunnerError("%s cannot be decoded. Copy the bundle again." % name)
        return image

    def overlay(self, image, classmap):
        """The frame with half-transparent class colors."""
        seen, filled = place(self.fit, self.size, image.shape[1], image.shape[0])
        part = np.ascontiguousarray(classmap[inside(filled)])
        large = cv2.resize(part, seen[2:], interpolation=cv2.INTER_NEAREST)
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette[:, ::-1]
        out = image.copy()
        out[inside(seen)] = cv2.addWeighted(np.ascontiguousarray(image[inside(seen)]), 0.5, table[large], 0.5, 0)
        return out


# --- sources and sinks ----


class Source(object):
    """Frames of a file until it ends, or of a camera until stopped: it is reopened after growing pauses."""

    def __init__(self, uri, stopped):
        self.uri, self.stopped = uri, stopped
        self.live = uri.isdigit() or "://" in uri or " ! " in uri or uri.startswith("/dev/")

    def __iter__(self):
        pause = 0.5
        while not self.stopped():
            capture = self._open()
            good = capture.isOpened()
            while good and not self.stopped():
                good, frame = capture.read()
                if good:
                    pause = 0.5
                    yield frame
            capture.release()
            if not self.live:
                return
            if not self.stopped():
                print("%s cannot be opened; trying again in %.1f s" % (hide(self.uri), pause), file=sys.stderr)
                time.sleep(pause)
                pause = min(2 * pause, 30.0)

    def _open(self):
        if self.uri.isdigit():
            return cv2.VideoCapture(int(self.uri))
        if " ! " in self.uri:
            return cv2.VideoCapture(self.uri, cv2.CAP_GSTREAMER)
        if not self.live and not os.path.isfile(self.uri):
            raise RunnerError("Source %s does not exist." % self.uri)
        return cv2.VideoCapture(self.uri)


def hide(uri):
    """A URI without its password."""
    before, at, after = uri.rpartition("@")
    return uri if not at else before.split("://")[0] + "://..@" + after


class VideoSink(object):
    def __init__(self, path, segmenter):
        self.path, self.segmenter, self.writer = path, segmenter, None

    def write(self, index, image, classmap, milliseconds):
        if self.writer is None:
            self.writer = cv2.VideoWriter(self.path, cv2.VideoWriter_fourcc(*"mp4v"), 25.0, image.shape[1::-1])
            if not self.writer.isOpened():
                raise RunnerError("%s cannot be written. Is its folder missing, or the disk full?" % self.path)
        self.writer.write(self.segmenter.overlay(image, classmap))

    def close(self):
        if self.writer is not None:
            self.writer.release()


class FolderSink(object):
    def __init__(self, path, segmenter):
        self.path = path
        if not os.path.isdir(path):
            os.makedirs(path)

    def write(self, index, image, classmap, milliseconds):
        if not cv2.imwrite(os.path.join(self.path, "%06d.png" % index), classmap):
            raise RunnerError("%s cannot be written. Is the disk full?" % self.path)

    def close(self):
        pass


class LinesSink(object):
    def __init__(self, path, segmenter):
        self.classes = segmenter.classes
        self.file = open(path, "w")

    def write(self, index, image, classmap, milliseconds):
        share = np.bincount(classmap.ravel(), minlength=len(self.classes)) / float(classmap.size)
        areas = {name: round(float(s), 5) for name, s in zip(self.classes, share) if s > 0}
        self.file.write(json.dumps({"frame": index, "ms": round(milliseconds, 3), "areas": areas}) + "\n")
        self.file.flush()

    def close(self):
        self.file.close()


def open_sink(uri, segmenter):
    if uri.endswith(".jsonl"):
        return LinesSink(uri, segmenter)
    if uri.endswith((".mp4", ".avi", ".mkv")):
        return VideoSink(uri, segmenter)
    if uri.endswith("/"):
        return FolderSink(uri, segmenter)
    raise RunnerError("Sink %s is not known. Expected FILE.mp4, FILE.jsonl or FOLDER/." % uri)


# --- the program ----


def run(segmenter, source, sinks, limit, stopped):
    """Run until the source ends; {frames, seconds, fps, p50_ms, p99_ms}, percentiles over the last 10 000 frames."""
    times = []
    count, begin = 0, time.time()
    for image in Source(source, stopped):
        started = time.time()
        classmap = segmenter(image)
        milliseconds = 1000 * (time.time() - started)
        for sink in sinks:
            sink.write(count, image, classmap, milliseconds)
        times = (times + [milliseconds])[-10000:]
        count += 1
        if limit and count >= limit:
            break
    seconds = time.time() - begin
    p50, p99 = np.percentile(times, (50, 99)) if times else (0.0, 0.0)
    fps = count / seconds if seconds else 0.0
    return {"frames": count, "seconds": seconds, "fps": fps, "p50_ms": float(p50), "p99_ms": float(p99)}


def _check_signature(bundle, options):
    if options.require_signature:
        require_signature(bundle, options.require_signature, options.bundle_name, options.min_version)
    elif options.bundle_name is not None or options.min_version is not None:
        raise RunnerError("A name or version without --require-signature KEY.")


def main(arguments=None, engine=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=HERE, help="the bundle's folder [default: this file's]")
    parser.add_argument("--source", help="camera number, file, URI or GStreamer pipeline")
    parser.add_argument("--sink", action="append", default=[], help="FILE.mp4, FILE.jsonl or FOLDER/; repeatable")
    parser.add_argument("--frames", type=int, default=0, help="stop after this many frames")
    parser.add_argument("--check", action="store_true", help="compare the golden frames and stop")
    parser.add_argument("--require-signature", metavar="KEY", help="public key; refuse what its owner did not sign")
    parser.add_argument("--bundle-name", metavar="NAME", help="with it: refuse what was not signed under this name")
    parser.add_argument("--min-version", metavar="N", type=int, help="with it: refuse what was signed as an older one")
    options = parser.parse_args(arguments)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    sinks = []
    try:
        segmenter = Segmenter(options.bundle, engine, lambda bundle: _check_signature(bundle, options))
        agreement = segmenter.check()  # before the first camera frame, always
        if options.check or not options.source:
            print(json.dumps({"golden_agreement": agreement}))
            return 0
        sinks = [open_sink(uri, segmenter) for uri in options.sink]
        print(json.dumps(run(segmenter, options.source, sinks, options.frames, lambda: bool(stop))))
        return 0
    except (RunnerError, OSError) as error:
        print("Error: %s" % error, file=sys.stderr)
        return 2
    finally:
        for sink in sinks:
            sink.close()


if __name__ == "__main__":
    sys.exit(main())
