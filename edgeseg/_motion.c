/* Motion of blocks and warped class maps in C: see motion/field.py and motion/warp.py, which hold the plain numpy
 * versions that these must equal bit for bit. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIDE (1 << 20)
#define COLUMNS 6 /* of a block: left, top, right, bottom, dx, dy */

#ifndef FAST /* see _mask.c */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif
#endif

/* `value` as an integer from low to high; low where it is no number. */
static int limited(float value, int low, int high) { return !(value > low) ? low : value > high ? high : (int)value; }

/* Add what each block says of the cells that it covers, weighted by the area it covers of them. */
static void add_blocks(const float *blocks, Py_ssize_t n, int cell, int gh, int gw, double *sums, double *weights) {
    for (const float *b = blocks; n-- > 0; b += COLUMNS) {
        int x0 = limited(b[0], 0, gw * cell), y0 = limited(b[1], 0, gh * cell);
        int x1 = limited(b[2], 0, gw * cell), y1 = limited(b[3], 0, gh * cell);
        for (int cy = y0 / cell; cy * cell < y1; cy++) {
            int down = (y1 < (cy + 1) * cell ? y1 : (cy + 1) * cell) - (y0 > cy * cell ? y0 : cy * cell);
            for (int cx = x0 / cell; cx * cell < x1; cx++) {
                int across = (x1 < (cx + 1) * cell ? x1 : (cx + 1) * cell) - (x0 > cx * cell ? x0 : cx * cell);
                double area = (double)down * across;
                size_t at = (size_t)cy * gw + cx;
                sums[2 * at] += area * b[4];
                sums[2 * at + 1] += area * b[5];
                weights[at] += area;
            }
        }
    }
}

static PyObject *blocks(PyObject *self, PyObject *args) {
    Py_buffer rows, sums, weights;
    int cell, gh, gw;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*iiiw*w*", &rows, &cell, &gh, &gw, &sums, &weights)) return NULL;
    int sane = cell > 0 && cell <= MAX_SIDE && gh > 0 && gw > 0 && (int64_t)gh * cell <= MAX_SIDE &&
               (int64_t)gw * cell <= MAX_SIDE && rows.len % (COLUMNS * 4) == 0 &&
               weights.len == (Py_ssize_t)8 * gh * gw && sums.len == 2 * weights.len;
    if (sane) add_blocks(rows.buf, rows.len / (COLUMNS * 4), cell, gh, gw, sums.buf, weights.buf);
    Py_buffer *all[] = {&rows, &sums, &weights};
    for (int i = 0; i < 3; i++) PyBuffer_Release(all[i]);
    if (!sane) {
        PyErr_SetString(PyExc_ValueError, "blocks: sizes of blocks, sums and weights do not fit");
        return NULL;
    }
    Py_RETURN_NONE;
}

typedef struct {
    const uint8_t *from; /* [height, width] */
    uint8_t *out;        /* [height, width] */
    const float *field;  /* [gh, gw, 2]: where a pixel's content was, less where it is (x, y) */
    int height, width, gh, gw;
    const int32_t *y0, *x0; /* lower grid index of every row, column: ascending */
    const float *wy, *wx;   /* weight of the upper one */
    float *line[2][2];      /* [width]: dx and dy of a grid row, for every column; the rows of odd and even number */
    int *first;             /* [gw + 1]: first column of each cell of the grid */
    uint8_t *flat;          /* [gw]: whether the four corners of a cell say the same */
    int32_t *at;            /* [width]: where to read */
} Job;

static inline int rounded(float v) { /* floor(v + 0.5), in a form that is vectorized */
    int t = (int)(v += 0.5f);
    return t - (v < (float)t);
}

/* Grid row g for every column of pixels. Equal neighbors give exactly their value. */
static void load_line(const Job *job, int g) {
    const float *row = job->field + (size_t)2 * g * job->gw;
    float *dx = job->line[g & 1][0], *dy = job->line[g & 1][1];
    for (int c = 0; c < job->gw; c++) {
        int d = c + 1 < job->gw ? c + 1 : c;
        float x = row[2 * c], y = row[2 * c + 1], across = row[2 * d] - x, down = row[2 * d + 1] - y;
        for (int i = job->first[c]; i < job->first[c + 1]; i++) {
            dx[i] = x + across * job->wx[i];
            dy[i] = y + down * job->wx[i];
        }
    }
}

static void find_flat(const Job *job, int lower, int upper) {
    const float *a = job->field + (size_t)2 * lower * job->gw, *b = job->field + (size_t)2 * upper * job->gw;
    for (int c = 0; c < job->gw; c++) {
        int d = c + 1 < job->gw ? c + 1 : c;
        job->flat[c] = a[2 * c] == a[2 * d] && a[2 * c] == b[2 * c] && a[2 * c] == b[2 * d] &&
                       a[2 * c + 1] == a[2 * d + 1] && a[2 * c + 1] == b[2 * c + 1] && a[2 * c + 1] == b[2 * d + 1];
    }
}

/* Columns xa to xb of row y, each from where the field says. */
FAST static void move(const Job *job, int y, int xa, int xb) {
    int lower = job->y0[y], upper = lower + 1 < job->gh ? lower + 1 : lower;
    int last = job->width - 1, bottom = job->height - 1, width = job->width;
    float b = job->wy[y];
    const float *x0 = job->line[lower & 1][0], *x1 = job->line[upper & 1][0];
    const float *y0 = job->line[lower & 1][1], *y1 = job->line[upper & 1][1];
    int32_t *at = job->at;
    for (int x = xa; x < xb; x++) {
        int sx = x + rounded(x0[x] + (x1[x] - x0[x]) * b), sy = y + rounded(y0[x] + (y1[x] - y0[x]) * b);
        sx = sx < 0 ? 0 : sx > last ? last : sx;
        sy = sy < 0 ? 0 : sy > bottom ? bottom : sy;
        at[x] = sy * width + sx;
    }
    uint8_t *out = job->out + (size_t)y * width;
    for (int x = xa; x < xb; x++) out[x] = job->from[at[x]];
}

/* Columns xa to xb of row y, all from the same offset: copy what is inside, repeat the border. */
static void copy(const Job *job, int y, int xa, int xb, float x, float y_moved) {
    int dx = rounded(x), sy = y + rounded(y_moved), last = job->width - 1;
    sy = sy < 0 ? 0 : sy >= job->height ? job->height - 1 : sy;
    const uint8_t *from = job->from + (size_t)sy * job->width;
    uint8_t *out = job->out + (size_t)y * job->width;
    while (xa < xb && xa + dx < 0) out[xa++] = from[0];
    while (xa < xb && xb - 1 + dx > last) out[--xb] = from[last];
    if (xa < xb) memcpy(out + xa, from + xa + dx, xb - xa);
}

static void warp_row(const Job *job, int y) {
    const float *row = job->field + (size_t)2 * job->y0[y] * job->gw;
    for (int c = 0; c < job->gw;) {
        int end = c + 1;
        if (job->flat[c]) { /* flat neighbors share a side, hence the value */
            while (end < job->gw && job->flat[end]) end++;
            copy(job, y, job->first[c], job->first[end], row[2 * c], row[2 * c + 1]);
        } else {
            while (end < job->gw && !job->flat[end]) end++;
            move(job, y, job->first[c], job->first[end]);
        }
        c = end;
    }
}

static void warp_all(const Job *job) {
    for (int c = 0, x = 0; c <= job->gw; c++) {
        while (x < job->width && job->x0[x] < c) x++;
        job->first[c] = c == job->gw ? job->width : x;
    }
    for (int y = 0, loaded = -1; y < job->height; y++) {
        int lower = job->y0[y], upper = lower + 1 < job->gh ? lower + 1 : lower;
        if (y == 0 || lower != job->y0[y - 1]) {
            if (loaded < lower) load_line(job, lower);
            if (loaded < upper) load_line(job, upper);
            loaded = upper;
            find_flat(job, lower, upper);
        }
        warp_row(job, y);
    }
}

static int ascending(const int32_t *index, int n, int limit) {
    for (int i = 0; i < n; i++)
        if (index[i] < (i ? index[i - 1] : 0) || index[i] >= limit) return 0;
    return 1;
}

static PyObject *warp(PyObject *self, PyObject *args) {
    Py_buffer from, field, y0, wy, x0, wx, out;
    Job job = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*iiy*y*y*y*w*", &from, &field, &job.gh, &job.gw, &y0, &wy, &x0, &wx, &out)) return NULL;
    job.height = (int)(y0.len / 4);
    job.width = (int)(x0.len / 4);
    int sane = job.height > 0 && job.height <= MAX_SIDE && job.width > 0 && job.width <= MAX_SIDE &&
               (int64_t)job.height * job.width < INT32_MAX && job.gh > 0 && job.gh <= MAX_SIDE && job.gw > 0 &&
               job.gw <= MAX_SIDE && field.len == (Py_ssize_t)8 * job.gh * job.gw && wy.len == y0.len && wx.len == x0.len &&
               from.len == (Py_ssize_t)job.height * job.width && out.len == from.len && out.buf != from.buf &&
               ascending(y0.buf, job.height, job.gh) && ascending(x0.buf, job.width, job.gw);
    job.from = from.buf;
    job.out = out.buf;
    job.field = field.buf;
    job.y0 = y0.buf;
    job.wy = wy.buf;
    job.x0 = x0.buf;
    job.wx = wx.buf;
    for (Py_ssize_t i = 0; sane && i < (Py_ssize_t)2 * job.gh * job.gw; i++)
        sane = fabsf(job.field[i]) <= MAX_SIDE; /* no NaN either */
    char *memory = sane ? malloc((size_t)job.width * (4 * sizeof(float) + sizeof(int32_t)) +
                                 ((size_t)job.gw + 1) * sizeof(int) + job.gw)
                        : NULL;
    if (memory) {
        for (int i = 0; i < 4; i++) job.line[i / 2][i % 2] = (float *)memory + (size_t)i * job.width;
        job.at = (int32_t *)((float *)memory + (size_t)4 * job.width);
        job.first = (int *)(job.at + job.width);
        job.flat = (uint8_t *)(job.first + job.gw + 1);
        Py_BEGIN_ALLOW_THREADS
        warp_all(&job);
        Py_END_ALLOW_THREADS
        free(memory);
    }
    Py_buffer *all[] = {&from, &field, &y0, &wy, &x0, &wx, &out};
    for (int i = 0; i < 7; i++) PyBuffer_Release(all[i]);
    if (!sane) {
        PyErr_SetString(PyExc_ValueError, "warp: sizes of class map, field, indices and output do not fit");
        return NULL;
    }
    if (!memory) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"blocks", blocks, METH_VARARGS, "blocks(blocks, cell, gh, gw, sums, weights)"},
    {"warp", warp, METH_VARARGS, "warp(classmap, field, gh, gw, y0, wy, x0, wx, out)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_motion", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__motion(void) { return PyModule_Create(&module); }
