/* class_map in C: see mask.py, which holds the plain numpy version this must equal bit for bit.
 *
 * Logits are read once, a row at a time, into a compact buffer (planes whose stride is a power of two would evict each
 * other from the cache). A cell is the square between four neighboring logits. Where its corners agree on the winner,
 * so does every pixel inside. Elsewhere only the classes survive that no corner's winner dominates at all four
 * corners; usually two or three are left to interpolate.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CLASSES 256
#define MAX_SIDE (1 << 20) /* of the logits; no size below can overflow */

/* Compiled once for each instruction set; the loader takes the best that the CPU has. benchmarks/kernels.py compiles
 * one of them at a time. On Arm, NEON is what every CPU has. */
#ifndef FAST
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif
#endif

typedef struct {
    const float *logits; /* [classes, h, w] */
    int classes, h, w;
    const int32_t *y0, *x0;  /* lower source index of every output row, column: ascending */
    const float *wy, *wx;    /* weight of the upper source */
    uint8_t *out;            /* [height, width] */
    float *margin;           /* [height, width] or NULL: the best logit less the second best */
    int height, width;
    int stride;              /* floats between the classes of a row buffer */
    float *row[2];           /* [classes, stride]: the upper and the lower logits row of the current cells */
    uint8_t *win[2];         /* [w]: their argmax */
    int *first;              /* [w + 1]: first output column of each cell column */
} Job;

/* Take class c where its logits are larger than the best so far. Inlined, so that it is compiled with its caller's set. */
static inline __attribute__((always_inline)) void keep_larger(const float *from, int c, int n, float *best, uint8_t *win) {
    for (int x = 0; x < n; x++) {
        int more = from[x] > best[x];
        best[x] = more ? from[x] : best[x];
        win[x] = more ? (uint8_t)c : win[x];
    }
}

/* Copy source row r into its buffer and take the argmax of every column; the lowest class wins a tie. */
FAST static void load_row(const Job *job, int r, float *best) {
    float *row = job->row[r & 1];
    uint8_t *win = job->win[r & 1];
    int w = job->w;
    size_t plane = (size_t)job->h * w;
    for (int c = 0; c < job->classes; c++) {
        float *to = row + (size_t)c * job->stride;
        memcpy(to, job->logits + c * plane + (size_t)r * w, w * sizeof(float));
        if (c == 0) {
            memcpy(best, to, w * sizeof(float));
            memset(win, 0, w);
            continue;
        }
        keep_larger(to, c, w, best, win);
    }
}

/* The classes that can win somewhere in the cell whose corner logits are q, ascending. Returns how many. */
static int survivors(int classes, const float q[4][MAX_CLASSES], const uint8_t corner[4], int *kept) {
    int n = 0;
    for (int k = 0; k < classes; k++) {
        int beaten = 0;
        for (int i = 0; i < 4 && !beaten; i++) {
            int j = corner[i];
            if (j == k) continue;
            if (j < k)
                beaten = q[0][j] >= q[0][k] && q[1][j] >= q[1][k] && q[2][j] >= q[2][k] && q[3][j] >= q[3][k];
            else
                beaten = q[0][j] > q[0][k] && q[1][j] > q[1][k] && q[2][j] > q[2][k] && q[3][j] > q[3][k];
        }
        if (!beaten) kept[n++] = k;
    }
    return n;
}

/* The classes that can be first or second somewhere in the cell: a class stays between its smallest and largest corner,
 * so the second best is nowhere below the second largest of the smallest corners. Returns how many. */
static int contenders(int classes, const float q[4][MAX_CLASSES], int *kept) {
    float first = -INFINITY, second = -INFINITY, top[MAX_CLASSES];
    for (int k = 0; k < classes; k++) {
        float low = fminf(fminf(q[0][k], q[1][k]), fminf(q[2][k], q[3][k]));
        top[k] = fmaxf(fmaxf(q[0][k], q[1][k]), fmaxf(q[2][k], q[3][k]));
        second = fmaxf(second, fminf(first, low));
        first = fmaxf(first, low);
    }
    int n = 0;
    for (int k = 0; k < classes; k++)
        if (top[k] >= second) kept[n++] = k;
    return n;
}

/* Interpolate the surviving classes of one cell over its output pixels. */
FAST static void fill_cell(const Job *job, int c, int ya, int yb, const float q[4][MAX_CLASSES], int n, const int *kept) {
    int xa = job->first[c], xb = job->first[c + 1];
    for (int y = ya; y < yb; y++) {
        float b = job->wy[y], a = 1 - b;
        float left[MAX_CLASSES], right[MAX_CLASSES];
        for (int i = 0; i < n; i++) {
            int k = kept[i];
            left[i] = q[0][k] * a + q[2][k] * b;
            right[i] = q[1][k] * a + q[3][k] * b;
        }
        uint8_t *out = job->out + (size_t)y * job->width;
        for (int x = xa; x < xb; x++) {
            float wr = job->wx[x], wl = 1 - wr;
            float best = left[0] * wl + right[0] * wr, second = -INFINITY;
            int won = kept[0];
            for (int i = 1; i < n; i++) {
                float v = left[i] * wl + right[i] * wr;
                if (v > best) {
                    second = best;
                    best = v;
                    won = kept[i];
                } else if (v > second) {
                    second = v;
                }
            }
            out[x] = (uint8_t)won;
            if (job->margin) job->margin[(size_t)y * job->width + x] = best - second;
        }
    }
}

/* All cells between source rows r and r + 1 (or r alone, when there is no next): output rows ya to yb. */
static void fill_row(const Job *job, int r, int ya, int yb) {
    int below = r + 1 < job->h ? r + 1 : r;
    const uint8_t *top = job->win[r & 1], *low = job->win[below & 1];
    const float *upper = job->row[r & 1], *lower = job->row[below & 1];
    int cells = job->w > 1 ? job->w - 1 : 1;
    float q[4][MAX_CLASSES];
    int kept[MAX_CLASSES];
    for (int c = 0; c < cells; c++) {
        int d = c + 1 < job->w ? c + 1 : c;
        if (!job->margin && top[c] == top[d] && top[c] == low[c] && top[c] == low[d]) {
            int end = c; /* extend over the cells that agree on the same class */
            while (end + 1 < cells && top[end + 2] == top[c] && low[end + 2] == top[c]) end++;
            int xa = job->first[c], xb = job->first[end + 1];
            for (int y = ya; y < yb; y++) memset(job->out + (size_t)y * job->width + xa, top[c], xb - xa);
            c = end;
            continue;
        }
        if (job->first[c] == job->first[c + 1]) continue;
        for (int k = 0; k < job->classes; k++) {
            const float *u = upper + (size_t)k * job->stride, *l = lower + (size_t)k * job->stride;
            q[0][k] = u[c];
            q[1][k] = u[d];
            q[2][k] = l[c];
            q[3][k] = l[d];
        }
        uint8_t corner[4] = {top[c], top[d], low[c], low[d]};
        int n = job->margin ? contenders(job->classes, q, kept) : survivors(job->classes, q, corner, kept);
        fill_cell(job, c, ya, yb, q, n, kept);
    }
}

static void run(Job *job, float *best) {
    int cells = job->w > 1 ? job->w - 1 : 1;
    for (int c = 0, x = 0; c <= cells; c++) {
        while (x < job->width && job->x0[x] < c) x++;
        job->first[c] = c == cells ? job->width : x;
    }
    load_row(job, 0, best);
    for (int y = 0, loaded = 0; y < job->height;) {
        int r = job->y0[y], end = y;
        while (end < job->height && job->y0[end] == r) end++;
        int need = r + 1 < job->h ? r + 1 : r;
        if (loaded < r) load_row(job, r, best);
        if (loaded < need) load_row(job, need, best);
        loaded = need;
        fill_row(job, r, y, end);
        y = end;
    }
}

static PyObject *class_map(PyObject *self, PyObject *args) {
    Py_buffer logits, y0, wy, x0, wx, out, margin;
    Job job = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "y*iiiy*y*y*y*w*z*", &logits, &job.classes, &job.h, &job.w, &y0, &wy, &x0, &wx, &out,
                          &margin))
        return NULL;
    job.height = (int)(y0.len / 4);
    job.width = (int)(x0.len / 4);
    int sane = job.classes > 0 && job.classes <= MAX_CLASSES && job.h > 0 && job.h <= MAX_SIDE && job.w > 0 &&
               job.w <= MAX_SIDE && wy.len == y0.len &&
               wx.len == x0.len && out.len == (Py_ssize_t)job.height * job.width &&
               logits.len == (Py_ssize_t)4 * job.classes * job.h * job.w &&
               (!margin.buf || (margin.len == 4 * out.len && !margin.readonly));
    job.logits = logits.buf;
    job.y0 = y0.buf;
    job.wy = wy.buf;
    job.x0 = x0.buf;
    job.wx = wx.buf;
    job.out = out.buf;
    job.margin = margin.buf;
    for (int y = 0; sane && y < job.height; y++)
        sane = job.y0[y] >= (y ? job.y0[y - 1] : 0) && job.y0[y] < job.h;
    for (int x = 0; sane && x < job.width; x++)
        sane = job.x0[x] >= (x ? job.x0[x - 1] : 0) && job.x0[x] < job.w;
    job.stride = job.w + 16;
    size_t floats = (size_t)job.classes * job.stride;
    char *memory = sane ? malloc((2 * floats + job.w) * sizeof(float) + 2 * (size_t)job.w + (job.w + 1) * sizeof(int) + 8) : NULL;
    if (memory) {
        job.row[0] = (float *)memory;
        job.row[1] = job.row[0] + floats;
        float *best = job.row[1] + floats;
        job.first = (int *)(best + job.w);
        job.win[0] = (uint8_t *)(job.first + job.w + 1);
        job.win[1] = job.win[0] + job.w;
        Py_BEGIN_ALLOW_THREADS
        run(&job, best);
        Py_END_ALLOW_THREADS
        free(memory);
    }
    Py_buffer *all[] = {&logits, &y0, &wy, &x0, &wx, &out, &margin};
    for (int i = 0; i < 7; i++) PyBuffer_Release(all[i]);
    if (!sane) {
        PyErr_SetString(PyExc_ValueError, "class_map: sizes of logits, indices, weights and output do not fit");
        return NULL;
    }
    if (!memory) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

#define CHUNK 2048 /* pixels whose best logit stays in the first-level cache */

FAST static void argmax_chunk(const float *logits, int classes, size_t plane, int n, uint8_t *win) {
    float best[CHUNK];
    memcpy(best, logits, n * sizeof(float));
    memset(win, 0, n);
    for (int c = 1; c < classes; c++) keep_larger(logits + c * plane, c, n, best, win);
}

static PyObject *argmax(PyObject *self, PyObject *args) {
    Py_buffer logits, out;
    int classes;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*iw*", &logits, &classes, &out)) return NULL;
    size_t plane = (size_t)out.len;
    int sane = classes > 0 && classes <= MAX_CLASSES && (size_t)logits.len / 4 / classes == plane &&
               (size_t)logits.len % (4 * (size_t)classes) == 0;
    if (sane) {
        Py_BEGIN_ALLOW_THREADS
        for (size_t at = 0; at < plane; at += CHUNK) {
            int n = plane - at < CHUNK ? (int)(plane - at) : CHUNK;
            argmax_chunk((const float *)logits.buf + at, classes, plane, n, (uint8_t *)out.buf + at);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&logits);
    PyBuffer_Release(&out);
    if (!sane) {
        PyErr_SetString(PyExc_ValueError, "argmax: sizes of logits and output do not fit");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"argmax", argmax, METH_VARARGS, "argmax(logits, classes, out)"},
    {"class_map", class_map, METH_VARARGS, "class_map(logits, classes, h, w, y0, wy, x0, wx, out, margin or None)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_mask", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__mask(void) { return PyModule_Create(&module); }
