/* The tree of KV blocks: what is shared, what goes first, and what it says about a miss. */
#include "unit_files.h"

#include "kernels/kernels.h"
#include "kv/prefix_tree.h"

#define PAGE   MQ_PAGE_TOKENS
#define BLOCKS 64

typedef struct fixture {
    mq_kv_layout layout;
    mq_kv_pool *pool;
    mq_prefix_tree *tree;
} fixture;

static fixture open_tree(uint32_t most)
{
    fixture f = {0};
    assert_int_equal(mq__kv_layout_new(&(mq_kv_shape){.kv_heads = 1, .head_dim = 2}, 1, &f.layout, NULL), MQ_OK);
    assert_int_equal(mq__kv_pool_new(&f.layout, BLOCKS, &f.pool, NULL), MQ_OK);
    assert_int_equal(mq__prefix_tree_new(f.pool, most, &f.tree, NULL), MQ_OK);
    return f;
}

static void close_tree(fixture *f)
{
    mq__prefix_tree_free(f->tree);
    assert_int_equal(mq__kv_available(f->pool), BLOCKS);
    mq__kv_pool_free(f->pool);
    mq__kv_layout_free(&f->layout);
}

/* Tokens of conversation `which` whose first `shared` tokens all conversations have. */
static void make_tokens(int32_t *tokens, uint32_t count, uint32_t shared, int32_t which)
{
    for (uint32_t i = 0; i < count; i++) {
        tokens[i] = (int32_t)i * 7 % 1000 + (i < shared ? 0 : 1000 * which);
    }
}

/* Adds a path of blocks that nobody else holds afterwards. */
static mq_prefix_node *add_path(fixture *f, uint64_t owner, const int32_t *tokens, uint32_t blocks, double weight)
{
    mq_kv_block *block[BLOCKS] = {NULL};
    mq_prefix_node *last;
    for (uint32_t b = 0; b < blocks; b++) {
        block[b] = mq__kv_take(f->pool, 1);
        if (!block[b]) fail_msg("no block is free for %u of %u", b, blocks);
    }
    (void)mq__prefix_add(f->tree, owner, 1, tokens, block, blocks, weight, &last);
    for (uint32_t b = 0; b < blocks; b++) {
        mq__kv_release(f->pool, block[b]);
    }
    return last;
}

static uint32_t found(fixture *f, uint64_t owner, const int32_t *tokens, uint32_t count, mq_prefix_miss *miss)
{
    const mq_prefix_node *node = mq__prefix_find(f->tree, owner, 1, tokens, count, miss);
    return node ? node->depth : 0;
}

static void test_branches_share(void **state)
{
    (void)state;
    fixture f = open_tree(BLOCKS);
    int32_t a[6 * PAGE], b[6 * PAGE];
    mq_prefix_miss miss;
    make_tokens(a, 6 * PAGE, 2 * PAGE + 10, 1);
    make_tokens(b, 6 * PAGE, 2 * PAGE + 10, 2);
    (void)add_path(&f, 0, a, 5, 1);
    assert_int_equal(found(&f, 0, a, 6 * PAGE, &miss), 5);
    assert_int_equal(miss.at, 5 * PAGE);
    assert_int_equal(miss.token, -1);
    assert_int_equal(found(&f, 0, a, 5 * PAGE - 1, NULL), 4); /* whole blocks only */
    assert_int_equal(found(&f, 0, b, 6 * PAGE, &miss), 2);
    assert_int_equal(miss.at, 2 * PAGE + 10); /* inside the block */
    assert_int_equal(miss.token, a[2 * PAGE + 10]);
    (void)add_path(&f, 0, b, 5, 1);
    assert_int_equal(mq__prefix_blocks(f.tree), 8); /* 2 shared, 3 each */
    assert_int_equal(found(&f, 0, b, 6 * PAGE, NULL), 5);
    assert_int_equal(found(&f, 1, a, 6 * PAGE, &miss), 0); /* another owner */
    assert_int_equal(miss.token, -1);
    assert_null(mq__prefix_find(f.tree, 0, 2, a, 6 * PAGE, NULL)); /* another plan */
    close_tree(&f);
}

static void test_path_is_in_order(void **state)
{
    (void)state;
    fixture f = open_tree(BLOCKS);
    int32_t a[4 * PAGE];
    mq_kv_block *block[4], *path[4];
    mq_prefix_node *last;
    make_tokens(a, 4 * PAGE, 0, 1);
    for (int i = 0; i < 4; i++) {
        block[i] = mq__kv_take(f.pool, 1);
    }
    assert_true(mq__prefix_add(f.tree, 0, 1, a, block, 4, 1, &last));
    assert_int_equal(last->depth, 4);
    mq__prefix_path(last, path);
    for (int i = 0; i < 4; i++) {
        assert_ptr_equal(path[i], block[i]);
        assert_int_equal(block[i]->holders, 2);
        mq__kv_release(f.pool, block[i]);
    }
    close_tree(&f);
}

static void test_leaves_go_first_and_held_ones_stay(void **state)
{
    (void)state;
    fixture f = open_tree(BLOCKS);
    int32_t a[8 * PAGE];
    make_tokens(a, 8 * PAGE, 0, 1);
    mq_prefix_node *last = add_path(&f, 0, a, 8, 1);
    assert_int_equal(mq__prefix_evictable(f.tree), 8);
    assert_int_equal(mq__prefix_evict(f.tree, 3), 3);
    assert_int_equal(found(&f, 0, a, 8 * PAGE, NULL), 5);
    last = mq__prefix_find(f.tree, 0, 1, a, 8 * PAGE, NULL);
    mq_kv_block *held[5];
    mq__prefix_path(last, held);
    for (int i = 0; i < 5; i++) {
        mq__kv_hold(held[i]); /* as a running sequence does: the leaf and all before it stay */
    }
    assert_int_equal(mq__prefix_evict(f.tree, 1), 0);
    assert_int_equal(found(&f, 0, a, 8 * PAGE, NULL), 5);
    for (int i = 0; i < 5; i++) {
        mq__kv_release(f.pool, held[i]);
    }
    assert_int_equal(mq__prefix_evict(f.tree, 100), 5);
    assert_int_equal(mq__prefix_blocks(f.tree), 0);
    close_tree(&f);
}

/* A sequence has blocks of its own for tokens that the tree has, as it could not begin there: the tree keeps one of each, its own where
 * that has more, and what only the tree holds can go though the sequence goes on behind it. */
static void test_second_blocks(void **state)
{
    (void)state;
    fixture f = open_tree(BLOCKS);
    int32_t a[8 * PAGE];
    float snapshot;
    mq_kv_block *own[6];
    mq_prefix_node *last;
    make_tokens(a, 8 * PAGE, 0, 1);
    (void)add_path(&f, 0, a, 4, 1);
    mq__prefix_path(mq__prefix_find(f.tree, 0, 1, a, 8 * PAGE, NULL), own);
    mq_kv_block *with_state = own[2];
    with_state->state = &snapshot;
    for (int i = 0; i < 6; i++) {
        own[i] = mq__kv_take(f.pool, 1);
    }
    assert_true(mq__prefix_add(f.tree, 0, 1, a, own, 6, 1, &last));
    assert_int_equal(mq__prefix_blocks(f.tree), 6);
    assert_int_equal(mq__kv_available(f.pool), BLOCKS - 7); /* its own, and the one with a snapshot */
    assert_int_equal(mq__prefix_evictable(f.tree), 1);
    with_state->state = NULL;
    assert_int_equal(mq__prefix_evict(f.tree, 2), 1);
    assert_int_equal(mq__kv_available(f.pool), BLOCKS - 6);
    assert_int_equal(found(&f, 0, a, 8 * PAGE, NULL), 2);
    assert_true(mq__prefix_add(f.tree, 0, 1, a, own, 6, 1, &last));
    for (int i = 0; i < 6; i++) {
        mq__kv_release(f.pool, own[i]);
    }
    assert_int_equal(found(&f, 0, a, 8 * PAGE, NULL), 6);
    close_tree(&f);
}

/* Titles come and go beside a conversation that goes on: they displace each other. */
static void test_side_requests_do_not_displace(void **state)
{
    (void)state;
    fixture f = open_tree(24);
    int32_t session[20 * PAGE], side[4 * PAGE];
    make_tokens(session, 20 * PAGE, 0, 1);
    (void)add_path(&f, 0, session, 10, 1);
    for (int32_t turn = 0; turn < 10; turn++) {
        mq__prefix_use(f.tree, mq__prefix_find(f.tree, 0, 1, session, 20 * PAGE, NULL));
        (void)add_path(&f, 0, session, 11 + (uint32_t)turn, 1);
        for (int32_t i = 0; i < 5; i++) {
            make_tokens(side, 4 * PAGE, 0, 100 + 5 * turn + i);
            (void)add_path(&f, 0, side, 4, 1.0 / 16);
        }
        assert_int_equal(found(&f, 0, session, 20 * PAGE, NULL), 11 + turn);
        assert_true(mq__prefix_blocks(f.tree) <= 24);
    }
    close_tree(&f);
}

/* But what nobody comes back to grows old. */
static void test_old_sessions_go(void **state)
{
    (void)state;
    fixture f = open_tree(24);
    int32_t old[16 * PAGE], now[16 * PAGE];
    make_tokens(old, 16 * PAGE, 0, 1);
    mq_prefix_node *node = add_path(&f, 0, old, 16, 1);
    mq__prefix_use(f.tree, node);
    for (int32_t i = 2; i < 40; i++) {
        make_tokens(now, 16 * PAGE, 0, i);
        (void)add_path(&f, 0, now, 16, 1);
    }
    assert_true(found(&f, 0, now, 16 * PAGE, NULL) == 16);
    assert_true(found(&f, 0, old, 16 * PAGE, NULL) < 8);
    close_tree(&f);
}

static void test_bound_holds_and_a_parent_outlives_its_child(void **state)
{
    (void)state;
    fixture f = open_tree(3);
    int32_t a[8 * PAGE];
    make_tokens(a, 8 * PAGE, 0, 1);
    (void)add_path(&f, 0, a, 8, 1);
    assert_int_equal(mq__prefix_blocks(f.tree), 3);
    assert_int_equal(found(&f, 0, a, 8 * PAGE, NULL), 3);
    fixture none = open_tree(0);
    (void)add_path(&none, 0, a, 8, 1);
    assert_int_equal(mq__prefix_blocks(none.tree), 0);
    close_tree(&none);
    close_tree(&f);
}

/* Random adding, using and evicting against a plain list of what must be there. */
static void test_many_random_operations(void **state)
{
    (void)state;
    fixture f = open_tree(40);
    unsigned seed = 1;
    int32_t a[12 * PAGE];
    for (int round = 0; round < 3000; round++) {
        seed = seed * 1664525u + 1013904223u;
        const uint32_t which = seed >> 28, shared = (seed >> 20 & 7) * PAGE, blocks = 1 + (seed >> 16 & 7);
        make_tokens(a, 12 * PAGE, shared, (int32_t)which + 1);
        const mq_prefix_node *node = mq__prefix_find(f.tree, which & 1, 1, a, 12 * PAGE, NULL);
        for (const mq_prefix_node *at = node; at && at->depth; at = at->parent) {
            assert_memory_equal(at->tokens, a + (at->depth - 1) * PAGE, sizeof *a * PAGE);
            assert_true(at->block->holders > 0);
        }
        if (seed >> 12 & 1) (void)add_path(&f, which & 1, a, blocks, seed >> 13 & 1 ? 1 : 0.0625);
        if (seed >> 11 & 1) mq__prefix_use(f.tree, mq__prefix_find(f.tree, which & 1, 1, a, 12 * PAGE, NULL));
        if ((seed >> 8 & 7) == 0) (void)mq__prefix_evict(f.tree, seed >> 5 & 7);
        assert_true(mq__prefix_blocks(f.tree) <= 40);
        assert_int_equal(mq__prefix_evictable(f.tree), mq__prefix_blocks(f.tree));
        assert_int_equal(mq__kv_available(f.pool), BLOCKS - mq__prefix_blocks(f.tree));
    }
    close_tree(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_branches_share),
        cmocka_unit_test(test_path_is_in_order),
        cmocka_unit_test(test_leaves_go_first_and_held_ones_stay),
        cmocka_unit_test(test_second_blocks),
        cmocka_unit_test(test_side_requests_do_not_displace),
        cmocka_unit_test(test_old_sessions_go),
        cmocka_unit_test(test_bound_holds_and_a_parent_outlives_its_child),
        cmocka_unit_test(test_many_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
