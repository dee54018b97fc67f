#include "kv/prefix_tree.h"

#include "base/error.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#define BLOCK_BYTES (MQ_PAGE_TOKENS * sizeof(int32_t))
#define USES_MAX    16      /* more uses make a block worth no more */
#define FAR         16384.0 /* tokens before a block that double what it costs: attention */
#define NEAR_MAX    1024    /* children that are compared with a prompt to explain a miss */

struct mq_prefix_tree {
    mq_kv_pool *pool;
    uint32_t most, blocks;
    uint64_t seed; /* of the hashes: whoever sends prompts cannot choose which collide */
    double clock;
    mq_prefix_node **bucket; /* [bucket_count], a power of two */
    size_t bucket_count, node_count;
    mq_prefix_node **leaf; /* [leaf_count] a heap: the least worth is first */
    size_t leaf_count, leaf_room;
};

/* ---- life */

mq_status mq__prefix_tree_new(mq_kv_pool *pool, uint32_t most, mq_prefix_tree **out, mq_error *error)
{
    *out = NULL;
    mq_prefix_tree *tree = mq__alloc_zero(1, sizeof *tree);
    if (tree) {
        *tree = (mq_prefix_tree){.pool = pool, .most = most, .bucket_count = 1024};
        tree->bucket = mq__alloc_zero(tree->bucket_count, sizeof *tree->bucket);
        if (getrandom(&tree->seed, sizeof tree->seed, 0) < 0) tree->seed = (uint64_t)(uintptr_t)tree;
    }
    if (!tree || !tree->bucket) {
        mq__free(tree);
        return mq__fail(error, MQ_NO_MEMORY, "prefix cache: expected memory, got none");
    }
    *out = tree;
    return MQ_OK;
}

void mq__prefix_tree_free(mq_prefix_tree *tree)
{
    if (!tree) return;
    for (size_t i = 0; i < tree->bucket_count; i++) {
        for (mq_prefix_node *node = tree->bucket[i], *next; node; node = next) {
            next = node->bucket_next;
            if (node->block) mq__kv_release(tree->pool, node->block);
            mq__free(node);
        }
    }
    mq__free(tree->bucket);
    mq__free(tree->leaf);
    mq__free(tree);
}

uint32_t mq__prefix_blocks(const mq_prefix_tree *tree)
{
    return tree->blocks;
}

uint32_t mq__prefix_evictable(const mq_prefix_tree *tree)
{
    uint32_t count = 0;
    for (size_t i = 0; i < tree->bucket_count; i++) {
        for (const mq_prefix_node *node = tree->bucket[i]; node; node = node->bucket_next) {
            count += node->block && node->block->holders == 1;
        }
    }
    return count;
}

/* ---- nodes by what leads to them */

static uint64_t hash_child(const mq_prefix_tree *tree, const mq_prefix_node *parent, const int32_t *tokens)
{
    return XXH3_64bits_withSeed(tokens, BLOCK_BYTES, tree->seed ^ parent->hash);
}

static uint64_t hash_root(const mq_prefix_tree *tree, uint64_t owner, uint64_t plan)
{
    const uint64_t key[2] = {owner, plan};
    return XXH3_64bits_withSeed(key, sizeof key, tree->seed);
}

static mq_prefix_node *find_root(const mq_prefix_tree *tree, uint64_t owner, uint64_t plan)
{
    const uint64_t hash = hash_root(tree, owner, plan);
    mq_prefix_node *node = tree->bucket[hash & (tree->bucket_count - 1)];
    while (node && !(node->depth == 0 && node->owner == owner && node->plan == plan)) {
        node = node->bucket_next;
    }
    return node;
}

static mq_prefix_node *find_child(const mq_prefix_tree *tree, const mq_prefix_node *parent, const int32_t *tokens)
{
    const uint64_t hash = hash_child(tree, parent, tokens);
    mq_prefix_node *node = tree->bucket[hash & (tree->bucket_count - 1)];
    while (node && !(node->parent == parent && node->hash == hash && memcmp(node->tokens, tokens, BLOCK_BYTES) == 0)) {
        node = node->bucket_next;
    }
    return node;
}

static void grow_buckets(mq_prefix_tree *tree)
{
    const size_t count = 2 * tree->bucket_count;
    mq_prefix_node **bucket = mq__alloc_zero(count, sizeof *bucket);
    if (!bucket) return; /* longer chains do as well */
    for (size_t i = 0; i < tree->bucket_count; i++) {
        for (mq_prefix_node *node = tree->bucket[i], *next; node; node = next) {
            next = node->bucket_next;
            node->bucket_next = bucket[node->hash & (count - 1)];
            bucket[node->hash & (count - 1)] = node;
        }
    }
    mq__free(tree->bucket);
    tree->bucket = bucket;
    tree->bucket_count = count;
}

static void link_node(mq_prefix_tree *tree, mq_prefix_node *node, uint64_t hash)
{
    if (tree->node_count >= tree->bucket_count) grow_buckets(tree);
    mq_prefix_node **bucket = &tree->bucket[hash & (tree->bucket_count - 1)];
    node->hash = hash;
    node->bucket_next = *bucket;
    *bucket = node;
    tree->node_count++;
    mq_prefix_node *parent = node->parent;
    if (!parent) return;
    node->next = parent->first_child;
    if (node->next) node->next->previous = node;
    parent->first_child = node;
}

static void unlink_node(mq_prefix_tree *tree, mq_prefix_node *node)
{
    mq_prefix_node **at = &tree->bucket[node->hash & (tree->bucket_count - 1)];
    while (*at != node) {
        at = &(*at)->bucket_next;
    }
    *at = node->bucket_next;
    tree->node_count--;
    if (node->previous)
        node->previous->next = node->next;
    else if (node->parent)
        node->parent->first_child = node->next;
    if (node->next) node->next->previous = node->previous;
}

/* ---- the heap of leaves */

static void place_leaf(mq_prefix_tree *tree, size_t at, mq_prefix_node *node)
{
    tree->leaf[at] = node;
    node->heap_at = at + 1;
}

/* Moves the leaf at a place to where its worth belongs. */
static void sift_leaf(mq_prefix_tree *tree, size_t at)
{
    mq_prefix_node *node = tree->leaf[at];
    for (; at > 0 && tree->leaf[(at - 1) / 2]->worth > node->worth; at = (at - 1) / 2) {
        place_leaf(tree, at, tree->leaf[(at - 1) / 2]);
    }
    for (size_t child; (child = 2 * at + 1) < tree->leaf_count; at = child) {
        if (child + 1 < tree->leaf_count && tree->leaf[child + 1]->worth < tree->leaf[child]->worth) child++;
        if (tree->leaf[child]->worth >= node->worth) break;
        place_leaf(tree, at, tree->leaf[child]);
    }
    place_leaf(tree, at, node);
}

/* Room for a leaf more, so that adding one cannot fail. */
static bool leaf_room(mq_prefix_tree *tree)
{
    if (tree->leaf_count < tree->leaf_room) return true;
    const size_t room = tree->leaf_room ? 2 * tree->leaf_room : 256;
    mq_prefix_node **leaf = mq__realloc(tree->leaf, room * sizeof *leaf);
    if (!leaf) return false;
    tree->leaf = leaf;
    tree->leaf_room = room;
    return true;
}

static void add_leaf(mq_prefix_tree *tree, mq_prefix_node *node)
{
    assert(tree->leaf_count < tree->leaf_room);
    place_leaf(tree, tree->leaf_count++, node);
    sift_leaf(tree, tree->leaf_count - 1);
}

static void remove_leaf(mq_prefix_tree *tree, mq_prefix_node *node)
{
    if (!node->heap_at) return;
    const size_t at = node->heap_at - 1;
    mq_prefix_node *last = tree->leaf[--tree->leaf_count];
    node->heap_at = 0;
    if (last == node) return;
    place_leaf(tree, at, last);
    sift_leaf(tree, at);
}

/* ---- worth */

static void set_worth(mq_prefix_tree *tree, mq_prefix_node *node)
{
    const double cost = 1 + (double)node->depth * MQ_PAGE_TOKENS / FAR;
    node->worth = tree->clock + node->weight * cost * (1 + node->uses);
    if (node->heap_at) sift_leaf(tree, node->heap_at - 1);
}

void mq__prefix_use(mq_prefix_tree *tree, mq_prefix_node *node)
{
    for (; node && node->depth; node = node->parent) {
        if (node->uses < USES_MAX) node->uses++;
        set_worth(tree, node);
    }
}

/* ---- finding */

static uint32_t same_tokens(const int32_t *a, const int32_t *b, uint32_t count)
{
    uint32_t n = 0;
    while (n < count && a[n] == b[n]) {
        n++;
    }
    return n;
}

/* Among the children of the deepest node the one that goes on longest like the prompt's next tokens. */
static void explain_miss(const mq_prefix_node *node, const int32_t *tokens, uint32_t count, mq_prefix_miss *miss)
{
    const uint32_t from = node->depth * MQ_PAGE_TOKENS;
    const uint32_t left = count - from < MQ_PAGE_TOKENS ? count - from : MQ_PAGE_TOKENS;
    uint32_t seen = 0;
    *miss = (mq_prefix_miss){from, -1};
    for (const mq_prefix_node *child = node->first_child; child && seen < NEAR_MAX; child = child->next, seen++) {
        const uint32_t same = same_tokens(child->tokens, tokens + from, left);
        if (same == left || (miss->token >= 0 && from + same <= miss->at)) continue;
        *miss = (mq_prefix_miss){from + same, child->tokens[same]};
    }
}

mq_prefix_node *mq__prefix_find(mq_prefix_tree *tree, uint64_t owner, uint64_t plan, const int32_t *tokens,
                                uint32_t count, mq_prefix_miss *miss)
{
    mq_prefix_node *node = find_root(tree, owner, plan);
    if (miss) *miss = (mq_prefix_miss){0, -1};
    if (!node) return NULL;
    while ((node->depth + 1) * (uint64_t)MQ_PAGE_TOKENS <= count) {
        mq_prefix_node *child = find_child(tree, node, tokens + (size_t)node->depth * MQ_PAGE_TOKENS);
        if (!child) break;
        node = child;
    }
    if (miss) explain_miss(node, tokens, count, miss);
    return node->depth ? node : NULL;
}

void mq__prefix_path(const mq_prefix_node *node, mq_kv_block **block)
{
    for (; node && node->depth; node = node->parent) {
        block[node->depth - 1] = node->block;
    }
}

/* ---- giving back */

static void drop_leaf(mq_prefix_tree *tree, mq_prefix_node *node)
{
    mq_prefix_node *parent = node->parent;
    remove_leaf(tree, node);
    unlink_node(tree, node);
    mq__kv_release(tree->pool, node->block);
    tree->blocks--;
    if (node->worth > tree->clock) tree->clock = node->worth;
    mq__free(node);
    /* The leaf that went has left a place in the heap. */
    if (parent->depth && !parent->first_child) add_leaf(tree, parent);
}

/* The leaf that is least worth among those that nobody else holds: mostly the heap's first. NULL: there is none. */
static mq_prefix_node *least_leaf(const mq_prefix_tree *tree)
{
    mq_prefix_node *least = NULL;
    for (size_t i = 0; i < tree->leaf_count; i++) {
        mq_prefix_node *node = tree->leaf[i];
        if (node->block->holders > 1 || (least && node->worth >= least->worth)) continue;
        least = node;
        if (i == 0) break;
    }
    return least;
}

static uint32_t evict_leaves(mq_prefix_tree *tree, uint32_t blocks)
{
    uint32_t given = 0;
    for (mq_prefix_node *node; given < blocks && (node = least_leaf(tree)); given++) {
        drop_leaf(tree, node);
    }
    return given;
}

/* A leaf that others hold, behind a block that they do not: its sequence has one of its own for the same tokens. NULL: there is none. */
static mq_prefix_node *leaf_behind_own(const mq_prefix_tree *tree)
{
    for (size_t i = 0; i < tree->leaf_count; i++) {
        for (const mq_prefix_node *node = tree->leaf[i]; node->depth; node = node->parent) {
            if (node->block->holders == 1) return tree->leaf[i];
        }
    }
    return NULL;
}

/* Leaves that others hold bring nothing but the way to what stands before them; they come back when their sequences grow or end. */
uint32_t mq__prefix_evict(mq_prefix_tree *tree, uint32_t blocks)
{
    uint32_t given = evict_leaves(tree, blocks);
    for (mq_prefix_node *node; given < blocks && (node = leaf_behind_own(tree));) {
        drop_leaf(tree, node);
        given += evict_leaves(tree, blocks - given);
    }
    return given;
}

/* ---- adding */

static mq_prefix_node *new_root(mq_prefix_tree *tree, uint64_t owner, uint64_t plan)
{
    mq_prefix_node *node = mq__alloc_zero(1, sizeof *node);
    if (!node) return NULL;
    node->owner = owner;
    node->plan = plan;
    link_node(tree, node, hash_root(tree, owner, plan));
    return node;
}

/* A child for a block, which the tree holds from now on. NULL: no memory, or the bound is reached and nothing can go. */
static mq_prefix_node *new_child(mq_prefix_tree *tree, mq_prefix_node *parent, const int32_t *tokens,
                                 mq_kv_block *block, double weight)
{
    /* The parent must not go to make room for its child. */
    const bool was_leaf = parent->heap_at != 0;
    remove_leaf(tree, parent);
    mq_prefix_node *node = NULL;
    if (tree->blocks < tree->most || evict_leaves(tree, 1)) {
        node = leaf_room(tree) ? mq__alloc(sizeof *node + BLOCK_BYTES) : NULL;
    }
    if (!node) {
        if (was_leaf && !parent->heap_at) add_leaf(tree, parent);
        return NULL;
    }
    remove_leaf(tree, parent); /* it is one again if its last child made room */
    *node = (mq_prefix_node){.parent = parent, .block = block, .depth = parent->depth + 1, .weight = weight};
    memcpy(node->tokens, tokens, BLOCK_BYTES);
    mq__kv_hold(block);
    tree->blocks++;
    link_node(tree, node, hash_child(tree, parent, tokens));
    set_worth(tree, node);
    add_leaf(tree, node);
    return node;
}

static void change_block(const mq_prefix_tree *tree, mq_prefix_node *node, mq_kv_block *block)
{
    mq__kv_hold(block);
    mq__kv_release(tree->pool, node->block);
    node->block = block;
}

static bool has_more(const mq_kv_block *a, const mq_kv_block *b)
{
    return (a->state && !b->state) || (a->window && !b->window);
}

/* Whether another block of the same tokens is to be in the place of the tree's own: it has a snapshot of recurrent state or a window part
 * which the own has not (any more); or nobody else holds the own, so that it would be there twice, and nothing is lost with it. */
static bool is_to_replace(const mq_kv_block *block, const mq_kv_block *own)
{
    return has_more(block, own) || (own->holders == 1 && !has_more(own, block));
}

bool mq__prefix_add(mq_prefix_tree *tree, uint64_t owner, uint64_t plan, const int32_t *tokens,
                    mq_kv_block *const *block, uint32_t blocks, double weight, mq_prefix_node **last)
{
    mq_prefix_node *node = find_root(tree, owner, plan);
    if (!node) node = new_root(tree, owner, plan);
    *last = node;
    for (uint32_t b = 0; node && b < blocks; b++) {
        const int32_t *next = tokens + (size_t)b * MQ_PAGE_TOKENS;
        mq_prefix_node *child = find_child(tree, node, next);
        if (!child) child = new_child(tree, node, next, block[b], weight);
        if (child && is_to_replace(block[b], child->block)) change_block(tree, child, block[b]);
        /* A normal request makes worth what it is that only a background one used until now. */
        if (child && weight > child->weight) {
            child->weight = weight;
            set_worth(tree, child);
        }
        node = child;
        if (child) *last = child;
    }
    return node != NULL;
}
