/* NVFP4 as code against its published vectors and against slow definitions of the same thing. */
#include "base/halffloat.h"
#include "format/nvfp4.h"
#include "unit_files.h"

#define BLOCK MQ_NVFP4_VALUES

/* Three blocks of BF16 whose codes and scales are known. */
static const uint16_t golden[48] = {
    0x3bcb, 0xbc00, 0x3be5, 0xbc81, 0x3a2e, 0xb9d9, 0x3b86, 0xbbaa, 0xbc1f, 0xbba5, 0x3c55, 0xbc56,
    0xbc05, 0x3bbc, 0x3c3e, 0x3ca0, 0x3e9a, 0xbd12, 0x3d20, 0x3e01, 0xbe80, 0x3e51, 0x3e5d, 0x3ef6,
    0xbe2f, 0xbd5f, 0x3e55, 0x3e76, 0xbea8, 0xbef8, 0x3e91, 0xbeeb, 0x3f16, 0xbfc3, 0x3ead, 0x3dbb,
    0xbf1e, 0xbff4, 0x3f60, 0x3fa6, 0x40e8, 0x4035, 0x4000, 0xbf29, 0x3f9d, 0xc010, 0x3f26, 0x3e97,
};

static void assert_hex(const uint8_t *bytes, size_t count, const char *expected)
{
    char text[256];
    for (size_t i = 0; i < count; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    assert_string_equal(text, expected);
}

static void check_golden(mq_nvfp4_rule rule, const char *scales_hex, const char *nibbles_hex)
{
    uint8_t nibbles[24], scales[3];
    const float amax = mq__weights_amax(golden, MQ_WEIGHT_BF16, 48);
    assert_true(amax == 7.25f);
    mq__nvfp4_quantize_row(rule, mq__nvfp4_scale(rule, amax), golden, MQ_WEIGHT_BF16, 48, nibbles, scales);
    assert_hex(scales, 3, scales_hex);
    assert_hex(nibbles, 24, nibbles_hex);
}

static void test_golden_blocks(void **state)
{
    (void)state;
    const mq_nvfp4_scale ct = mq__nvfp4_scale(MQ_NVFP4_RTN, 7.25f), mo = mq__nvfp4_scale(MQ_NVFP4_MODELOPT, 7.25f);
    assert_int_equal(mq__f32_bits(ct.divisor), 0x43b9611a);
    assert_int_equal(mq__f32_bits(mo.multiplier), 0x3b30c30c);
    check_golden(MQ_NVFP4_RTN, "3a5f7e", "c4e480b2bde63c7596315d759c55fef5b101b9214793c201");
    /* The last but one value of the second block is a tie of 3.5 by true division: ModelOpt rounds it to 4. */
    check_golden(MQ_NVFP4_MODELOPT, "3a5f7e", "c4e480b2bde63c7596315d759c55fef6b101b9214793c201");
    /* 4, 4 and 6 are chosen. */
    check_golden(MQ_NVFP4_FOUR_SIX, "385d78", "b3d380a2acd52b6494213c649b43ede4b101b9214793c201");
}

static void test_golden_ties(void **state)
{
    (void)state;
    static const float x[BLOCK] = {0, 0.1f, -0.25f, 0.5f, 0.75f, -1, 1.25f, 1.5f, 1.75f, 2, 2.5f, -3, 3.5f, 4, 5, 6};
    uint8_t nibbles[8], scale;
    mq__nvfp4_quantize_row(MQ_NVFP4_RTN, (mq_nvfp4_scale){1, 1}, x, MQ_WEIGHT_F32, BLOCK, nibbles, &scale);
    assert_int_equal(scale, 0x38);
    assert_hex(nibbles, 8, "0018a23244d46676");
    mq__nvfp4_quantize_row(MQ_NVFP4_MODELOPT, (mq_nvfp4_scale){1, 1}, x, MQ_WEIGHT_F32, BLOCK, nibbles, &scale);
    assert_hex(nibbles, 8, "0018a23244d46676");
}

static void test_golden_four_over_six(void **state)
{
    (void)state;
    static const float x[BLOCK] = {10, 20, 30, 40, 9, 19, 31, 39, 11, 21, 29, 38, 10, 20, 30, 40};
    const mq_nvfp4_scale scale = mq__nvfp4_scale(MQ_NVFP4_FOUR_SIX, 40);
    uint8_t nibbles[8], byte;
    float back[BLOCK], sse = 0;
    assert_true(scale.divisor == 1536.0f / 40);
    mq__nvfp4_quantize_row(MQ_NVFP4_FOUR_SIX, scale, x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
    mq__nvfp4_dequantize_row(nibbles, &byte, scale.multiplier, BLOCK, back);
    for (int i = 0; i < BLOCK; i++) {
        assert_float_equal(back[i], 10.0f * (float)(i % 4 + 1), 1e-4);
        sse += (back[i] - x[i]) * (back[i] - x[i]);
    }
    assert_float_equal(sse, 11.0f, 1e-3);
}

/* The value of an E4M3 byte by the definition of the format. */
static double e4m3_value(unsigned byte)
{
    const double sign = byte & 0x80 ? -1 : 1, mantissa = byte & 7;
    const int exponent = (int)(byte >> 3 & 15);
    return sign * (exponent == 0 ? mantissa * pow(2, -9) : (1 + mantissa / 8) * pow(2, exponent - 7));
}

static void test_e4m3_table(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        const float value = mq__e4m3_decode((uint8_t)byte);
        if ((byte & 0x7f) == 0x7f) {
            assert_true(isnan(value));
            assert_int_equal(mq__e4m3_encode(value) & 0x7f, 0x7f);
            continue;
        }
        assert_true((double)value == e4m3_value(byte));
        assert_int_equal(mq__e4m3_encode(value), byte);
        if (byte >= 0x7e) continue;
        /* Halfway between neighbours: to the even code; next to it: to the nearer. */
        const double middle = (e4m3_value(byte) + e4m3_value(byte + 1)) / 2;
        assert_int_equal(mq__e4m3_encode((float)middle), byte % 2 ? byte + 1 : byte);
        assert_int_equal(mq__e4m3_encode(nextafterf((float)middle, 0)), byte);
        assert_int_equal(mq__e4m3_encode(nextafterf((float)middle, 1000)), byte + 1);
    }
    assert_int_equal(mq__e4m3_encode(0x1p-9f), 0x01);
    assert_int_equal(mq__e4m3_encode(0x1p-10f), 0x00);
    assert_int_equal(mq__e4m3_encode(1.5f * 0x1p-9f), 0x02);
    assert_int_equal(mq__e4m3_encode(1.1875f), 0x3a);
    assert_int_equal(mq__e4m3_encode(440.0f), 0x7e);
    assert_int_equal(mq__e4m3_encode(1e30f), 0x7e);
    assert_int_equal(mq__e4m3_encode(-INFINITY), 0xfe);
}

static void test_e2m1_table(void **state)
{
    (void)state;
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    static const struct {
        float tie;
        unsigned code;
    } ties[] = {{0.25f, 0}, {0.75f, 2}, {1.25f, 2}, {1.75f, 4}, {2.5f, 4}, {3.5f, 6}, {5.0f, 6}};
    for (unsigned code = 0; code < 16; code++) {
        const float value = mq__e2m1_decode(code);
        assert_true(fabsf(value) == values[code & 7]);
        assert_int_equal(signbit(value) != 0, code >> 3); /* the sign of zero as well */
        assert_int_equal(mq__e2m1_encode(value), code);
    }
    for (size_t i = 0; i < sizeof ties / sizeof ties[0]; i++) {
        assert_int_equal(mq__e2m1_encode(ties[i].tie), ties[i].code);
        assert_int_equal(mq__e2m1_encode(-ties[i].tie), ties[i].code | 8);
        assert_int_equal(mq__e2m1_encode(nextafterf(ties[i].tie, 0)), i);
        assert_int_equal(mq__e2m1_encode(nextafterf(ties[i].tie, 10)), i + 1);
    }
    assert_int_equal(mq__e2m1_encode(1e30f), 7);
    assert_int_equal(mq__e2m1_encode(-INFINITY), 15);
}

static void test_zero_blocks(void **state)
{
    (void)state;
    static const struct {
        mq_nvfp4_rule rule;
        uint8_t scale;
    } expected[] = {{MQ_NVFP4_RTN, 0x20}, {MQ_NVFP4_MODELOPT, 0x38}, {MQ_NVFP4_FOUR_SIX, 0}, {MQ_NVFP4_SWEEP, 0x20}};
    static const uint16_t zeros[BLOCK];
    for (int i = 0; i < 4; i++) {
        /* All of the tensor is zero, and one block of it is. */
        for (int amax = 0; amax < 2; amax++) {
            const mq_nvfp4_scale scale = mq__nvfp4_scale(expected[i].rule, (float)amax);
            uint8_t nibbles[8], byte = 0xff;
            float back[BLOCK];
            assert_true(isfinite(scale.divisor) && isfinite(scale.multiplier));
            assert_true(scale.divisor > 0 && scale.multiplier > 0);
            if (amax == 0) assert_true(scale.divisor == 1 && scale.multiplier == 1);
            mq__nvfp4_quantize_row(expected[i].rule, scale, zeros, MQ_WEIGHT_BF16, BLOCK, nibbles, &byte);
            if (expected[i].rule != MQ_NVFP4_FOUR_SIX) assert_int_equal(byte, expected[i].scale);
            assert_hex(nibbles, 8, "0000000000000000");
            mq__nvfp4_dequantize_row(nibbles, &byte, scale.multiplier, BLOCK, back);
            for (int k = 0; k < BLOCK; k++) {
                assert_true(back[k] == 0);
            }
        }
    }
}

/* A block whose scale underflows: compressed-tensors gives it 0.125, which makes all of it zero, with signs kept. */
static void test_underflowing_block(void **state)
{
    (void)state;
    float x[BLOCK] = {1e-9f, -1e-9f};
    uint8_t nibbles[8], byte;
    mq__nvfp4_quantize_row(MQ_NVFP4_RTN, mq__nvfp4_scale(MQ_NVFP4_RTN, 1000), x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
    assert_int_equal(byte, 0x20);
    assert_hex(nibbles, 8, "8000000000000000");
}

static double random_unit(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) / 9007199254740992.0 * 2 - 1;
}

/* Blocks of many kinds: bell-shaped, flat, few values, with an outlier, tiny, huge. */
static void random_block(uint64_t *seed, float x[BLOCK])
{
    const int kind = (int)((random_unit(seed) + 1) * 3);
    const double size = pow(10, random_unit(seed) * (kind == 4 ? 6 : 1.5));
    for (int i = 0; i < BLOCK; i++) {
        double v = random_unit(seed);
        if (kind == 0) v = (v + random_unit(seed) + random_unit(seed)) / 2;
        if (kind == 2) v = round(v * 3) / 3;
        if (kind == 3 && i == 5) v *= 12;
        if (kind == 5) v = i ? 5.0 / 6 : 1;
        x[i] = (float)(v * size);
    }
}

/* Squared error of the best codes under one scale byte, by trying all codes in double. */
static double best_error(const float x[BLOCK], uint8_t byte, float multiplier)
{
    double sum = 0;
    const double step = e4m3_value(byte) * (double)multiplier;
    for (int i = 0; i < BLOCK; i++) {
        double best = INFINITY;
        for (unsigned code = 0; code < 16; code++) {
            best = fmin(best, fabs((double)mq__e2m1_decode(code) * step - (double)x[i]));
        }
        sum += best * best;
    }
    return sum;
}

/* What FP32 arithmetic adds to the length of an error vector. */
static double rounding_of(float amax)
{
    return 5e-7 * (double)amax;
}

static double error_of(mq_nvfp4_rule rule, mq_nvfp4_scale scale, const float x[BLOCK])
{
    uint8_t nibbles[8], byte;
    float back[BLOCK];
    double sum = 0;
    mq__nvfp4_quantize_row(rule, scale, x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
    mq__nvfp4_dequantize_row(nibbles, &byte, scale.multiplier, BLOCK, back);
    for (int i = 0; i < BLOCK; i++) {
        sum += ((double)back[i] - (double)x[i]) * ((double)back[i] - (double)x[i]);
    }
    return sum;
}

static void test_sweep_is_the_optimum(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 3000; round++) {
        float x[BLOCK], amax = 0;
        random_block(&seed, x);
        for (int i = 0; i < BLOCK; i++) {
            amax = fmaxf(amax, fabsf(x[i]));
        }
        /* The block may be the largest of its tensor or far smaller. */
        const float of_tensor = amax * (float)pow(2, round % 3 == 0 ? 0 : (random_unit(&seed) + 1) * 10);
        const mq_nvfp4_scale scale = mq__nvfp4_scale(MQ_NVFP4_SWEEP, of_tensor);
        double best = INFINITY;
        for (unsigned byte = 1; byte <= 0x7e; byte++) {
            best = fmin(best, best_error(x, (uint8_t)byte, scale.multiplier));
        }
        const double sweep = error_of(MQ_NVFP4_SWEEP, scale, x), rtn = error_of(MQ_NVFP4_RTN, scale, x);
        assert_true(sqrt(sweep) <= sqrt(best) + rounding_of(amax));
        assert_true(sqrt(sweep) <= sqrt(rtn) + rounding_of(amax));
    }
}

/* Four-over-Six takes the better of its two candidates. */
static void test_four_six_takes_the_better(void **state)
{
    (void)state;
    uint64_t seed = 12;
    int fours = 0;
    for (int round = 0; round < 3000; round++) {
        float x[BLOCK], amax = 0;
        random_block(&seed, x);
        for (int i = 0; i < BLOCK; i++) {
            amax = fmaxf(amax, fabsf(x[i]));
        }
        const mq_nvfp4_scale scale = mq__nvfp4_scale(MQ_NVFP4_FOUR_SIX, amax * (round % 2 ? 1.0f : 3.7f));
        const float relative = amax / 6.0f * scale.divisor;
        const uint8_t six = mq__e4m3_encode(relative), four = mq__e4m3_encode(relative * 1.5f);
        uint8_t nibbles[8], byte;
        mq__nvfp4_quantize_row(MQ_NVFP4_FOUR_SIX, scale, x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
        assert_true(byte == six || byte == four);
        const double error_six = best_error(x, six, scale.multiplier),
                     error_four = best_error(x, four, scale.multiplier);
        assert_true(sqrt(error_of(MQ_NVFP4_FOUR_SIX, scale, x)) <=
                    sqrt(fmin(error_six, error_four)) + rounding_of(amax));
        fours += byte == four;
    }
    assert_in_range(fours, 300, 2700); /* both happen */
}

/* Every code is the nearest one (a tie apart), whatever the rule. */
static void test_codes_are_nearest(void **state)
{
    (void)state;
    uint64_t seed = 13;
    for (int round = 0; round < 4000; round++) {
        const mq_nvfp4_rule rule = (mq_nvfp4_rule)(round % 4);
        float x[BLOCK], amax = 0, back[BLOCK];
        uint8_t nibbles[8], byte;
        random_block(&seed, x);
        for (int i = 0; i < BLOCK; i++) {
            amax = fmaxf(amax, fabsf(x[i]));
        }
        const mq_nvfp4_scale scale = mq__nvfp4_scale(rule, amax * 1.3f);
        mq__nvfp4_quantize_row(rule, scale, x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
        mq__nvfp4_dequantize_row(nibbles, &byte, scale.multiplier, BLOCK, back);
        const double step = e4m3_value(byte) * (double)scale.multiplier;
        for (int i = 0; i < BLOCK; i++) {
            double best = INFINITY;
            for (unsigned code = 0; code < 16; code++) {
                best = fmin(best, fabs((double)mq__e2m1_decode(code) * step - (double)x[i]));
            }
            assert_true(fabs((double)back[i] - (double)x[i]) <= best + 1e-6 * step);
        }
    }
}

static void test_width_not_multiple_of_block(void **state)
{
    (void)state;
    for (size_t width = 1; width < 48; width++) {
        uint8_t nibbles[24], scales[3], padded_nibbles[24], padded_scales[3];
        uint16_t padded[48] = {0}, *exact = malloc(width * sizeof *exact); /* reading past its end is noticed */
        float back[48] = {0};
        memcpy(padded, golden, width * sizeof *padded);
        memcpy(exact, golden, width * sizeof *exact);
        const mq_nvfp4_scale scale = mq__nvfp4_scale(MQ_NVFP4_RTN, 7.25f);
        const size_t blocks = mq__nvfp4_blocks(width);
        assert_int_equal(blocks, (width + 15) / 16);
        memset(nibbles, 0xaa, sizeof nibbles);
        mq__nvfp4_quantize_row(MQ_NVFP4_RTN, scale, exact, MQ_WEIGHT_BF16, width, nibbles, scales);
        mq__nvfp4_quantize_row(MQ_NVFP4_RTN, scale, padded, MQ_WEIGHT_BF16, blocks * BLOCK, padded_nibbles,
                               padded_scales);
        assert_memory_equal(nibbles, padded_nibbles, blocks * 8);
        assert_memory_equal(scales, padded_scales, blocks);
        if (blocks < 3) assert_int_equal(nibbles[blocks * 8], 0xaa);
        back[width] = 77;
        mq__nvfp4_dequantize_row(nibbles, scales, scale.multiplier, width, back);
        assert_true(back[width] == 77);
        free(exact);
    }
}

/* BF16, F16 and F32 rows of equal values give equal codes. */
static void test_source_types_agree(void **state)
{
    (void)state;
    uint16_t bf16[BLOCK], f16[BLOCK];
    float f32[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        const int value = i * 3 - 20; /* exact in all three, as value/16 */
        f32[i] = (float)value / 16;
        bf16[i] = mq__f32_to_bf16(f32[i]);
        int exponent;
        const double mantissa = frexp(fabs((double)f32[i]), &exponent);
        f16[i] = value == 0 ? 0 : (uint16_t)(((exponent + 14) << 10) + (int)((mantissa * 2 - 1) * 1024));
        if (value < 0) f16[i] = (uint16_t)(f16[i] | 0x8000);
        assert_true(mq__bf16_to_f32(bf16[i]) == f32[i] && mq__f16_to_f32(f16[i]) == f32[i]);
    }
    for (int rule = 0; rule < 4; rule++) {
        const mq_nvfp4_scale scale = mq__nvfp4_scale((mq_nvfp4_rule)rule, 25.0f / 16);
        uint8_t nibbles[3][8], scales[3];
        mq__nvfp4_quantize_row((mq_nvfp4_rule)rule, scale, bf16, MQ_WEIGHT_BF16, BLOCK, nibbles[0], &scales[0]);
        mq__nvfp4_quantize_row((mq_nvfp4_rule)rule, scale, f16, MQ_WEIGHT_F16, BLOCK, nibbles[1], &scales[1]);
        mq__nvfp4_quantize_row((mq_nvfp4_rule)rule, scale, f32, MQ_WEIGHT_F32, BLOCK, nibbles[2], &scales[2]);
        assert_memory_equal(nibbles[0], nibbles[1], 8);
        assert_memory_equal(nibbles[0], nibbles[2], 8);
        assert_true(scales[0] == scales[1] && scales[0] == scales[2]);
    }
    assert_true(mq__weights_amax(bf16, MQ_WEIGHT_BF16, BLOCK) == 25.0f / 16);
    assert_true(mq__weights_amax(f16, MQ_WEIGHT_F16, BLOCK) == 25.0f / 16);
    assert_true(mq__weights_amax(f32, MQ_WEIGHT_F32, BLOCK) == 25.0f / 16);
}

static void test_amax_reports_what_is_not_finite(void **state)
{
    (void)state;
    static const uint16_t bf16[] = {0x7f80, 0xff80, 0x7fc0, 0xff81}, f16[] = {0x7c00, 0xfc00, 0x7e00, 0xfc01};
    static const float f32[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 4; i++) {
        const uint16_t b[3] = {0x3f80, bf16[i], 0}, h[3] = {0x3c00, f16[i], 0};
        assert_true(isnan(mq__weights_amax(b, MQ_WEIGHT_BF16, 3)));
        assert_true(isnan(mq__weights_amax(h, MQ_WEIGHT_F16, 3)));
    }
    for (size_t i = 0; i < 3; i++) {
        const float f[3] = {1, f32[i], 0};
        assert_true(isnan(mq__weights_amax(f, MQ_WEIGHT_F32, 3)));
    }
    assert_true(mq__weights_amax(f32, MQ_WEIGHT_F32, 0) == 0);
}

/* The extremes of a tensor's size neither divide by zero nor lose their sign or finiteness. */
static void test_extreme_tensor_scales(void **state)
{
    (void)state;
    static const float sizes[] = {0x1p-149f, 1e-38f, 1e-30f, 1.0f, 1e30f, 3.3e38f};
    for (int rule = 0; rule < 4; rule++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            const mq_nvfp4_scale scale = mq__nvfp4_scale((mq_nvfp4_rule)rule, sizes[i]);
            float x[BLOCK] = {0}, back[BLOCK];
            uint8_t nibbles[8], byte;
            assert_true(isfinite(scale.divisor) && scale.divisor > 0);
            assert_true(isfinite(scale.multiplier) && scale.multiplier > 0);
            x[0] = sizes[i];
            x[1] = -sizes[i];
            mq__nvfp4_quantize_row((mq_nvfp4_rule)rule, scale, x, MQ_WEIGHT_F32, BLOCK, nibbles, &byte);
            assert_true(mq__nvfp4_scales_are_valid(&byte, 1));
            mq__nvfp4_dequantize_row(nibbles, &byte, scale.multiplier, BLOCK, back);
            if (sizes[i] >= 1e-30f) assert_true(fabsf(back[0] / sizes[i] - 1) < 0.07f && back[1] == -back[0]);
            assert_true(isfinite(back[0]));
        }
    }
}

static void test_scales_are_checked(void **state)
{
    (void)state;
    uint8_t scales[40];
    memset(scales, 0x7e, sizeof scales);
    assert_true(mq__nvfp4_scales_are_valid(scales, sizeof scales));
    for (size_t at = 0; at < sizeof scales; at += 13) {
        static const uint8_t bad[] = {0x7f, 0xff, 0x80, 0xb8};
        for (size_t i = 0; i < sizeof bad; i++) {
            scales[at] = bad[i];
            assert_false(mq__nvfp4_scales_are_valid(scales, sizeof scales));
        }
        scales[at] = 0;
        assert_true(mq__nvfp4_scales_are_valid(scales, sizeof scales));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_blocks),
        cmocka_unit_test(test_golden_ties),
        cmocka_unit_test(test_golden_four_over_six),
        cmocka_unit_test(test_e4m3_table),
        cmocka_unit_test(test_e2m1_table),
        cmocka_unit_test(test_zero_blocks),
        cmocka_unit_test(test_underflowing_block),
        cmocka_unit_test(test_sweep_is_the_optimum),
        cmocka_unit_test(test_four_six_takes_the_better),
        cmocka_unit_test(test_codes_are_nearest),
        cmocka_unit_test(test_width_not_multiple_of_block),
        cmocka_unit_test(test_source_types_agree),
        cmocka_unit_test(test_amax_reports_what_is_not_finite),
        cmocka_unit_test(test_extreme_tensor_scales),
        cmocka_unit_test(test_scales_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
