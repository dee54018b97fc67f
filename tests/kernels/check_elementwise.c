/* Elementwise slots: exact, every length around the vector widths, aliased outputs, extreme values. */
#include "checkasm.h"
#include "kernels/ref/math_ref.h"

/* Normal values, with zeros, tiny, huge, infinite and NaN ones among them when `wild`. */
static float *values(size_t n, bool wild)
{
    static const uint32_t special[] = {0,          0x80000000, 1,          0x807fffff, 0x00800000, 0x7f7fffff,
                                       0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00001, 0xffc12345, 0x7f801000};
    float *x = checkasm_floats(n);
    checkasm_fill_normal(x, n, 2);
    for (size_t i = 0; wild && i < n; i++) {
        if (checkasm_below(3) == 0) {
            x[i] = mq__float_of(special[checkasm_below(sizeof special / sizeof special[0])]);
        } else if (checkasm_below(2) == 0) {
            x[i] = mq__float_of((uint32_t)checkasm_random());
        }
    }
    return x;
}

static size_t next_length(size_t n)
{
    return n < 70 ? n + 1 : n < 200 ? n + 29 : n * 3 + 1;
}

static void check_rmsnorm(void)
{
    for (size_t n = 1; n < 6000; n = next_length(n)) {
        checkasm_case("n=%zu", n);
        const float *x = values(n, false), *w = values(n, false);
        float *expected = checkasm_floats(n), *got = checkasm_floats(n), *same = checkasm_copy(x, n * 4, 4);
        checkasm.ref->rmsnorm(expected, x, w, n, 1e-6f);
        checkasm.tested->rmsnorm(got, x, w, n, 1e-6f);
        checkasm_same_f32(expected, got, 1, n, n);
        checkasm.tested->rmsnorm(same, same, w, n, 1e-6f);
        checkasm_same_f32(expected, same, 1, n, n);
    }
}

static void check_norm_rope(void)
{
    for (size_t width = 2; width <= 260; width += 2) {
        for (int with_norm = 0; with_norm < 2; with_norm++) {
            const size_t heads = 1 + checkasm_below(4), n = heads * width;
            const size_t rotary = checkasm_below(2) ? width : 2 * checkasm_below((uint32_t)width / 2 + 1);
            checkasm_case("heads=%zu width=%zu rotary=%zu norm=%d", heads, width, rotary, with_norm);
            float *expected = values(n, false), *got = checkasm_copy(expected, n * 4, 4);
            const float *w = with_norm ? values(width, false) : NULL;
            float *c = checkasm_floats(width / 2), *s = checkasm_floats(width / 2);
            for (size_t i = 0; i < width / 2; i++) {
                const float angle = checkasm_uniform(-3, 3);
                c[i] = cosf(angle);
                s[i] = sinf(angle);
            }
            checkasm.ref->norm_rope(expected, heads, width, rotary, w, 1e-6f, c, s);
            checkasm.tested->norm_rope(got, heads, width, rotary, w, 1e-6f, c, s);
            checkasm_same_f32(expected, got, 1, n, n);
        }
    }
}

/* The exponential itself against double precision: at most 2 ulp inside its range. */
static void check_exp(void)
{
    double worst = 0;
    for (double x = (double)MQ_EXP_LOW; x <= (double)MQ_EXP_HIGH; x += 0.00137) {
        const double truth = exp((double)(float)x);
        const double ulp = truth * 0x1p-23;
        const double error = fabs((double)mq__exp_f32((float)x) - truth) / ulp;
        worst = error > worst ? error : worst;
    }
    checkasm_true(worst <= 2, "the polynomial exp is off by more than 2 ulp");
    checkasm_true(mq__exp_f32(0) == 1.0f, "exp(0) is not 1");
}

typedef void gated_fn(float *y, const float *gate, const float *up, size_t n);

static void check_gated(gated_fn *reference, gated_fn *tested)
{
    for (size_t n = 1; n < 4000; n = next_length(n)) {
        for (int wild = 0; wild < 2; wild++) {
            checkasm_case("n=%zu wild=%d", n, wild);
            const float *gate = values(n, false), *up = values(n, false);
            float *expected = checkasm_floats(n), *got = checkasm_floats(n), *same = checkasm_copy(gate, n * 4, 4);
            for (size_t i = 0; wild && i < n; i++) {
                same[i] *= 60; /* both ends of the exponential */
            }
            gate = checkasm_copy(same, n * 4, 4);
            reference(expected, gate, up, n);
            tested(got, gate, up, n);
            checkasm_same_f32(expected, got, 1, n, n);
            tested(same, same, up, n);
            checkasm_same_f32(expected, same, 1, n, n);
        }
    }
}

/* The definition against the formula in double. */
static void check_gelu(void)
{
    const float one = 1;
    for (int i = -2000; i <= 2000; i++) {
        const float x = (float)i / 200;
        const double exact = (double)x / 2 * (1 + tanh(sqrt(2 / M_PI) * ((double)x + 0.044715 * pow((double)x, 3))));
        float y;
        checkasm.ref->geglu(&y, &x, &one, 1);
        checkasm_true(fabs((double)y - exact) <= 6e-6 * fabs(exact) + 1e-14, "gelu");
    }
}

static void check_f32_to_bf16(void)
{
    for (size_t n = 1; n < 2000; n = next_length(n)) {
        checkasm_case("n=%zu", n);
        const float *x = values(n, true);
        uint16_t *expected = checkasm_halves(n), *got = checkasm_halves(n);
        checkasm.ref->f32_to_bf16(expected, x, n);
        checkasm.tested->f32_to_bf16(got, x, n);
        checkasm_same_bytes(expected, got, n * 2);
    }
}

static void check_dense_to_f32(void)
{
    for (int type = MQ_DENSE_BF16; type <= MQ_DENSE_F32; type++) {
        const size_t size = type == MQ_DENSE_F32 ? 4 : 2;
        for (size_t n = 1; n < 2000; n = next_length(n)) {
            checkasm_case("type=%d n=%zu", type, n);
            void *x = checkasm_buffer(n * size, size);
            checkasm_fill_bytes(x, n * size);
            float *expected = checkasm_floats(n), *got = checkasm_floats(n);
            checkasm.ref->dense_to_f32(expected, x, (mq_dense_type)type, n);
            checkasm.tested->dense_to_f32(got, x, (mq_dense_type)type, n);
            checkasm_same_f32(expected, got, 1, n, n);
        }
    }
    checkasm_case("all halves");
    uint16_t *all = checkasm_halves(65536);
    float *expected = checkasm_floats(65536), *got = checkasm_floats(65536);
    for (size_t i = 0; i < 65536; i++) {
        all[i] = (uint16_t)i;
    }
    checkasm.ref->dense_to_f32(expected, all, MQ_DENSE_F16, 65536);
    checkasm.tested->dense_to_f32(got, all, MQ_DENSE_F16, 65536);
    checkasm_same_f32(expected, got, 1, 65536, 65536);
}

static void check_machine(void)
{
    if (checkasm_slot("burn_fma")) {
        const uint64_t few = checkasm.tested->burn_fma(10), many = checkasm.tested->burn_fma(1000);
        checkasm_true(few > 0 && many > 50 * few, "the count of multiply-adds does not follow the rounds");
    }
    if (checkasm_slot("read_stream")) {
        for (size_t bytes = 256, i = 0; bytes < 20000; i++, bytes = i % MQ_READ_WAYS ? bytes : bytes * 3) {
            const mq_read_way way = (mq_read_way)(i % MQ_READ_WAYS);
            checkasm_case("bytes=%zu way=%d", bytes, way);
            uint8_t *data = checkasm_aligned(bytes);
            checkasm_fill_bytes(data, bytes);
            const uint64_t sum = checkasm.tested->read_stream(data, bytes, way);
            bool moves = true;
            for (int change = 0; change < 40; change++) { /* any byte counts; the last one for certain */
                uint8_t *at = data + (change ? checkasm_below(bytes) : bytes - 1);
                *at ^= 16;
                moves = moves && checkasm.tested->read_stream(data, bytes, way) != sum;
                *at ^= 16;
            }
            checkasm_true(moves, "a changed byte does not change the checksum");
        }
    }
}

static void check(void)
{
    if (checkasm_slot("rmsnorm")) {
        check_rmsnorm();
    }
    if (checkasm_slot("norm_rope")) {
        check_norm_rope();
    }
    if (checkasm_slot("swiglu")) {
        checkasm_case("exp");
        check_exp();
        check_gated(checkasm.ref->swiglu, checkasm.tested->swiglu);
    }
    if (checkasm_slot("geglu")) {
        checkasm_case("gelu");
        check_gelu();
        check_gated(checkasm.ref->geglu, checkasm.tested->geglu);
    }
    if (checkasm_slot("f32_to_bf16")) {
        check_f32_to_bf16();
    }
    if (checkasm_slot("dense_to_f32")) {
        check_dense_to_f32();
    }
    check_machine();
}

enum { BENCH_N = 3072 };
static float bench_x[BENCH_N], bench_w[BENCH_N], bench_y[BENCH_N];
static uint16_t bench_h[BENCH_N];
static float bench_cos[64], bench_sin[64];

static void bench_rmsnorm(void *context)
{
    (void)context;
    checkasm.tested->rmsnorm(bench_y, bench_x, bench_w, BENCH_N, 1e-6f);
}

static void bench_rope(void *context)
{
    (void)context;
    memcpy(bench_y, bench_x, sizeof bench_y); /* in place and repeated, values would fade into denormals */
    checkasm.tested->norm_rope(bench_y, BENCH_N / 128, 128, 128, bench_w, 1e-6f, bench_cos, bench_sin);
}

static void bench_swiglu(void *context)
{
    (void)context;
    checkasm.tested->swiglu(bench_y, bench_x, bench_w, BENCH_N);
}

static void bench_geglu(void *context)
{
    (void)context;
    checkasm.tested->geglu(bench_y, bench_x, bench_w, BENCH_N);
}

static void bench_narrow(void *context)
{
    (void)context;
    checkasm.tested->f32_to_bf16(bench_h, bench_x, BENCH_N);
}

static void bench_widen(void *context)
{
    (void)context;
    checkasm.tested->dense_to_f32(bench_y, bench_h, MQ_DENSE_BF16, BENCH_N);
}

static void bench(void)
{
    for (size_t i = 0; i < BENCH_N; i++) {
        bench_x[i] = (float)(i % 17) * 0.25f - 2;
        bench_w[i] = (float)(i % 5) * 0.125f + 1;
        bench_y[i] = 1;
    }
    for (size_t i = 0; i < 64; i++) {
        bench_cos[i] = 0.6f;
        bench_sin[i] = 0.8f;
    }
    checkasm_bench("rmsnorm", "n=3072", bench_rmsnorm, NULL, BENCH_N, CHECKASM_ITEMS);
    checkasm_bench("norm_rope", "24 heads of 128", bench_rope, NULL, BENCH_N, CHECKASM_ITEMS);
    checkasm_bench("swiglu", "n=3072", bench_swiglu, NULL, BENCH_N, CHECKASM_ITEMS);
    checkasm_bench("geglu", "n=3072", bench_geglu, NULL, BENCH_N, CHECKASM_ITEMS);
    checkasm_bench("f32_to_bf16", "n=3072", bench_narrow, NULL, BENCH_N, CHECKASM_ITEMS);
    checkasm_bench("dense_to_f32", "bf16 n=3072", bench_widen, NULL, BENCH_N, CHECKASM_ITEMS);
}

CHECKASM_SUITE(elementwise, check, bench)
