/* FP8 rows: each value is the nearest of all that E4M3 and the row's scale can say, found by trying every one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/halffloat.h"
#include "format/fp8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 200 };

static uint32_t state_of_random = 1;

static float random_value(void)
{
    state_of_random = state_of_random * 1664525u + 1013904223u;
    const float unit = (float)(state_of_random >> 8) * 0x1p-24f - 0.5f;
    return ldexpf(unit, -(int)(state_of_random % 14)); /* of many magnitudes: subnormal ones, too */
}

/* The values of E4M3 by its definition: no function of the library. */
static double e4m3_value(int code)
{
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const double magnitude = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return code & 0x80 ? -magnitude : magnitude;
}

static void check_row(const float *x, const float *y, size_t width)
{
    float amax = 0;
    for (size_t i = 0; i < width; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
    }
    const double scale = (double)(amax / 448.0f);
    for (size_t i = 0; i < width; i++) {
        double best = INFINITY;
        bool is_one = false;
        for (int code = 0; code < 256; code++) {
            if ((code & 0x7f) == 0x7f) continue; /* NaN */
            best = fmin(best, fabs(e4m3_value(code) * scale - (double)x[i]));
            is_one = is_one || (float)(e4m3_value(code) * scale) == y[i];
        }
        const double error = fabs((double)y[i] - (double)x[i]);
        if (!is_one || error > best + fabs((double)x[i]) * 1e-6) {
            fail_msg("%zu: %g became %g, scale %g, off by %g, at best %g, %d", i, x[i], y[i], scale, error, best,
                     is_one);
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    float x[WIDTH], y[WIDTH];
    for (int row = 0; row < 50; row++) {
        for (int i = 0; i < WIDTH; i++) {
            x[i] = random_value() * ldexpf(1, row - 25);
        }
        mq__fp8_round(y, x, WIDTH);
        check_row(x, y, WIDTH);
        float again[WIDTH];
        memcpy(again, x, sizeof again);
        mq__fp8_round(again, again, WIDTH);
        assert_memory_equal(again, y, sizeof y);
    }
    const float ties[] = {448, 17, 19, 21, 23, -17, -19, 1.0f / 1024, 3.0f / 1024, 0}; /* the scale is 1 */
    const float even[] = {448, 16, 20, 20, 24, -16, -20, 0, 4.0f / 1024, 0};
    mq__fp8_round(y, ties, 10);
    for (int i = 0; i < 10; i++) {
        assert_true(y[i] == even[i]);
    }
}

static void test_odd_rows(void **state)
{
    (void)state;
    const float zeros[4] = {0}, infinite[] = {1.5f, INFINITY, 1.0625f}, nan[] = {1.5f, NAN, 1.03f};
    float y[4];
    mq__fp8_round(y, zeros, 4);
    assert_memory_equal(y, zeros, sizeof y);
    mq__fp8_round(y, infinite, 3);
    assert_memory_equal(y, infinite, sizeof infinite);
    mq__fp8_round(y, nan, 3);
    assert_true(y[0] == 1.5f && isnan(y[1]) && y[2] == 1.03f);
    const float tiny[] = {1e-45f, -1e-45f};
    mq__fp8_round(y, tiny, 2);
    assert_true(isfinite(y[0]) && isfinite(y[1]));
    const float huge[] = {3e38f, -1e38f};
    mq__fp8_round(y, huge, 2);
    check_row(huge, y, 2);
}

static void test_weights(void **state)
{
    (void)state;
    float x[WIDTH], y[WIDTH], wanted[WIDTH];
    uint16_t half[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        half[i] = mq__f32_to_bf16(random_value());
        x[i] = mq__bf16_to_f32(half[i]);
    }
    mq__fp8_round(wanted, x, WIDTH);
    mq__fp8_round_weights(y, half, MQ_WEIGHT_BF16, WIDTH);
    assert_memory_equal(y, wanted, sizeof y);
    mq__fp8_round_weights(y, x, MQ_WEIGHT_F32, WIDTH);
    assert_memory_equal(y, wanted, sizeof y);
    const uint16_t f16[] = {0x3c00, 0xbc00, 0x4000}; /* 1, -1, 2 */
    mq__fp8_round_weights(y, f16, MQ_WEIGHT_F16, 3);
    assert_true(y[0] == 1 && y[1] == -1 && y[2] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
