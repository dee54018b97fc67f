/* How stages are cut for the threads: nothing is lost or done twice, and no thread has much more than its share, counted for
 * 1 to 64 threads over the shapes of Qwen3 models. */
#include "unit_files.h"

#include "base/pool.h"
#include "kernels/kernels.h"
#include "model/share.h"

enum { MOST_THREADS = 64 };

static void every_part_has_one_owner(void **state)
{
    (void)state;
    enum { UNITS = 40 };
    uint32_t seed = 1;
    for (int round = 0; round < 400; round++) {
        const bool causal = round % 2;
        double unit[UNITS], total = 0;
        const uint32_t window =
            round % 4 == 3 ? 1 + (seed >> 12) % 3000 : 0; /* of some: none of tiles, or of their part */
        uint32_t count[UNITS], first[UNITS], next[UNITS] = {0};
        for (int i = 0; i < UNITS; i++) {
            seed = seed * 1664525u + 1013904223u;
            first[i] = (seed >> 8) % (window ? 4000 : 40000);
            count[i] = 1 + (seed >> 16) % 300;
            unit[i] = causal ? mq__causal_cost(first[i], count[i], window) : 0.1 + first[i] / 7.0;
            total += unit[i];
        }
        const int threads = 1 + round % MOST_THREADS;
        for (int t = 0; t < threads; t++) {
            const mq_share share = mq__share(total, t, threads);
            double at = 0;
            for (int i = 0; i < UNITS; at += unit[i++]) {
                uint32_t p0, p1;
                if (causal ? !mq__share_causal(share, at, first[i], count[i], window, &p0, &p1)
                           : !mq__share_parts(share, at, unit[i], count[i], &p0, &p1)) {
                    continue;
                }
                assert_int_equal(p0, next[i]);
                next[i] = p1;
            }
        }
        for (int i = 0; i < UNITS; i++) {
            assert_int_equal(next[i], count[i]);
        }
    }
}

/* Every unit of every output of a group belongs to one thread, whatever the sizes: of products and of placement alike. */
static void every_unit_has_one_owner(void **state)
{
    (void)state;
    static const size_t groups[][3] = {{64, 32, 32}, {96, 96, 0}, {1, 1, 1}, {4748, 0, 0}, {0, 5, 3}};
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        const size_t total = groups[g][0] + groups[g][1] + groups[g][2];
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            size_t next[3] = {0};
            for (int t = 0; t < threads; t++) {
                size_t begin, end, base = 0, u0, u1;
                mq__partition(total, t, threads, &begin, &end);
                for (int i = 0; i < 3; base += groups[g][i++]) {
                    if (!mq__group_part(base, groups[g][i], begin, end, &u0, &u1)) continue;
                    assert_int_equal(u0, next[i]);
                    next[i] = u1;
                }
            }
            for (int i = 0; i < 3; i++) {
                assert_int_equal(next[i], groups[g][i]);
            }
        }
    }
}

/* A thread's parts together are its partition, which is where its weights are placed, and are cut at multiples of the grain. */
static void parts_are_cut_out_of_shares(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 7, 32, 128, 608, 4748};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            for (int each = 1; each <= 12; each++) {
                const size_t grain = each % 2 ? 4 : 10;
                for (int t = 0; t < threads; t++) {
                    size_t own, own_end;
                    mq__partition(counts[c], t, threads, &own, &own_end);
                    size_t next = own, begin, end;
                    for (int i = 0; i < each; i++, next = end) {
                        mq__part_units(counts[c], t * each + i, threads * each, each, grain, &begin, &end);
                        assert_int_equal(begin, next);
                        assert_true(end >= begin && (end == own_end || (end - own) % grain == 0));
                    }
                    assert_int_equal(next, own_end);
                }
            }
        }
    }
}

/* One thread has one part; of few units nobody has several. */
static void parts_are_not_small(void **state)
{
    (void)state;
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        for (size_t units = 0; units < 5000; units += 37) {
            const int each = mq__parts_each(units, 4, threads);
            assert_true(each >= 1 && each <= MQ_POOL_EACH && (threads > 1 || each == 1));
            assert_true(each == 1 || units >= 4 * (size_t)(each * threads));
        }
    }
    assert_true(mq__parts_each(128, 4, 2) > 4);
}

/* Mean of the threads' work over the most that one has. */
static double efficiency(const double *work, int threads)
{
    double sum = 0, most = 0;
    for (int t = 0; t < threads; t++) {
        sum += work[t];
        most = work[t] > most ? work[t] : most;
    }
    return sum / threads / most;
}

/* The keys that each thread's rows see, of a chunk of `rows` rows at position `first`. */
static double prefill_efficiency(uint32_t first, uint32_t rows, uint32_t kv_heads, uint32_t tile, uint32_t window,
                                 int threads)
{
    double work[MOST_THREADS] = {0};
    for (int t = 0; t < threads; t++) {
        const mq_share share = mq__share(kv_heads * mq__causal_cost(first, rows, window), t, threads);
        double at = 0;
        for (uint32_t row = 0; row < rows; row += tile) {
            const uint32_t count = rows - row < tile ? rows - row : tile;
            for (uint32_t g = 0, r0, r1; g < kv_heads; g++, at += mq__causal_cost(first + row, count, window)) {
                if (!mq__share_causal(share, at, first + row, count, window, &r0, &r1)) continue;
                work[t] += mq__causal_cost(first + row + r0, r1 - r0, window);
            }
        }
    }
    return efficiency(work, threads);
}

static double decode_efficiency(uint32_t depth, uint32_t kv_heads, int threads)
{
    double work[MOST_THREADS] = {0};
    for (int t = 0; t < threads; t++) {
        const mq_share share = mq__share(depth, t, threads);
        double at = 0;
        for (uint32_t key = 0, keys, g0, g1; key < depth; key += keys, at += keys) {
            keys = depth - key < MQ_SPAN_TOKENS ? depth - key : MQ_SPAN_TOKENS;
            if (mq__share_parts(share, at, keys, kv_heads, &g0, &g1)) work[t] += (double)keys * (g1 - g0);
        }
    }
    return efficiency(work, threads);
}

static double linear_efficiency(size_t features, size_t rows, int threads)
{
    double work[MOST_THREADS] = {0};
    const size_t panels = (features + 31) / 32, pieces = mq__row_pieces(panels, rows, threads);
    for (int t = 0; t < threads; t++) {
        size_t begin, end;
        mq__partition(panels * pieces, t, threads, &begin, &end);
        work[t] = (double)(end - begin);
    }
    return efficiency(work, threads);
}

static void attention_is_shared_evenly(void **state)
{
    (void)state;
    static const uint32_t firsts[] = {0, 1536, 7680, 32256}, tiles[] = {56, 112, 224, 256, 448};
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        const double least = threads <= 4 ? 0.99 : threads <= 16 ? 0.96 : 0.83;
        for (size_t f = 0; f < 4; f++) {
            for (size_t t = 0; t < 5; t++) {
                assert_true(prefill_efficiency(firsts[f], 512, 8, tiles[t], 0, threads) >= least);
                assert_true(prefill_efficiency(firsts[f], 512, 8, tiles[t], 1024, threads) >= least);
            }
        }
        /* at depth 4096 there are 64 units; an odd number of threads leaves some with one more than others */
        assert_true(decode_efficiency(4096, 8, threads) >= (threads <= 16 ? 0.85 : 0.5));
        assert_true(decode_efficiency(32768, 8, threads) >= 0.9);
    }
    assert_true(decode_efficiency(4096, 8, 64) > 0.999);
}

static void linear_layers_are_shared_evenly(void **state)
{
    (void)state;
    static const size_t features[] = {1024, 2560, 4096, 6144, 2 * 3072, 2 * 9728, 2 * 12288};
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
            assert_true(linear_efficiency(features[i], 2048, threads) >= 0.9);
            assert_true(linear_efficiency(features[i], 512, threads) >= (threads <= 32 ? 0.82 : 0.67));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_has_one_owner),    cmocka_unit_test(every_unit_has_one_owner),
        cmocka_unit_test(parts_are_cut_out_of_shares), cmocka_unit_test(parts_are_not_small),
        cmocka_unit_test(attention_is_shared_evenly),  cmocka_unit_test(linear_layers_are_shared_evenly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
