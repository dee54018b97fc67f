/* The prefix cache: full KV blocks of prompts and answers that were computed, as a tree. An edge is the 64 tokens of a block, a path from
 * a root the beginning of a prompt; conversations that branch share the blocks before the branch. A root stands for one owner
 * and one plan: nothing is shared across either.
 *
 * The tree holds its blocks like a sequence does. It gives them back leaf by leaf, the least worth first: worth is the clock at
 * the last use, plus what computing the block again costs times how often it was used (GreedyDual-Size-Frequency: the clock
 * rises to the worth of what was given back, so what is not used again grows old). Used by the engine's thread only. */
#ifndef MQ_PREFIX_TREE_H
#define MQ_PREFIX_TREE_H

#include "kv/kv_blocks.h"

typedef struct mq_prefix_tree mq_prefix_tree;
typedef struct mq_prefix_node mq_prefix_node;

struct mq_prefix_node {
    mq_prefix_node *parent;                        /* NULL: a root, which has no block */
    mq_prefix_node *first_child, *next, *previous; /* children are a list, in no order */
    mq_prefix_node *bucket_next;                   /* of the hash table */
    mq_kv_block *block;
    uint64_t owner, plan; /* of a root */
    uint64_t hash;
    uint32_t depth; /* blocks before this one and itself; 0: a root */
    uint32_t uses;
    double weight, worth;
    size_t heap_at; /* place among the leaves + 1; 0: it is none */
    int32_t tokens[];
};

/* The pool is borrowed. Holds at most `most` blocks. */
mq_status mq__prefix_tree_new(mq_kv_pool *pool, uint32_t most, mq_prefix_tree **tree, mq_error *error);
void mq__prefix_tree_free(mq_prefix_tree *tree);

uint32_t mq__prefix_blocks(const mq_prefix_tree *tree);
/* Blocks that nobody but the tree holds: what eviction can bring. */
uint32_t mq__prefix_evictable(const mq_prefix_tree *tree);

/* Where the tree's best candidate parts from a prompt: at token `at` it has `token`; -1: it ends there. */
typedef struct mq_prefix_miss {
    uint32_t at;
    int32_t token;
} mq_prefix_miss;

/* The deepest node whose path is a beginning of the `count` tokens; NULL: nothing is there. Changes nothing. miss may be NULL. */
mq_prefix_node *mq__prefix_find(mq_prefix_tree *tree, uint64_t owner, uint64_t plan, const int32_t *tokens,
                                uint32_t count, mq_prefix_miss *miss);
/* Notes that the path to a node was used: it is worth more from now on. */
void mq__prefix_use(mq_prefix_tree *tree, mq_prefix_node *node);
/* Adds the path of `blocks` full blocks; the tree holds those that it did not have, and in place of blocks which nobody else holds those
 * given, unless it has a snapshot or a window part that they have not. `weight` scales what they are worth: 1, or less. *last: the deepest
 * node on the path. False: memory or the bound ended it before the last block. */
bool mq__prefix_add(mq_prefix_tree *tree, uint64_t owner, uint64_t plan, const int32_t *tokens,
                    mq_kv_block *const *block, uint32_t blocks, double weight, mq_prefix_node **last);
/* Gives back at least `blocks` blocks to the pool, if that many are held by nobody else. Returns how many. */
uint32_t mq__prefix_evict(mq_prefix_tree *tree, uint32_t blocks);

/* The blocks of the path to a node, from the first: block[depth]. */
void mq__prefix_path(const mq_prefix_node *node, mq_kv_block **block);

#endif
