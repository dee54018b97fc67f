/* Grammars as small programs over bytes: rules that call each other, so that a stack is all the memory they need. */
#ifndef MQ_GRAMMAR_H
#define MQ_GRAMMAR_H

#include "mixquant.h"

typedef enum mq_op {
    MQ_OP_SET,    /* a byte of set `a` */
    MQ_OP_SPLIT,  /* go on at `a`, or at `b` */
    MQ_OP_JUMP,   /* go on at `a` */
    MQ_OP_CALL,   /* rule `a`, then the next one */
    MQ_OP_RETURN, /* the rule's end; of rule 0: the text's */
    MQ_OP_FAIL
} mq_op;

typedef struct mq_instruction {
    mq_op op;
    uint32_t a, b;
} mq_instruction;

typedef struct mq_byte_set {
    uint32_t bits[8];
} mq_byte_set;

/* Owns its arrays. Appending remembers failures: `failed` is asked once, at the end. */
typedef struct mq_grammar {
    mq_instruction *code;
    size_t code_count, code_room;
    mq_byte_set *set;
    size_t set_count, set_room;
    uint32_t *rule; /* where each begins */
    size_t rule_count, rule_room;
    /* [code_count], filled by mq__grammar_finish: how many rules have to wait for each other from there to the rule's end, at least;
     * MQ_NEVER: it is not reached. */
    uint32_t *need;
    bool failed;  /* no memory */
    bool too_big; /* more than MQ_GRAMMAR_MOST instructions */
} mq_grammar;

enum { MQ_GRAMMAR_MOST = 200000 };
#define MQ_NEVER UINT32_MAX

void mq__grammar_free(mq_grammar *g);
uint32_t mq__grammar_here(const mq_grammar *g);                             /* where the next instruction goes */
uint32_t mq__grammar_emit(mq_grammar *g, mq_op op, uint32_t a, uint32_t b); /* returns where it stands */
uint32_t mq__grammar_rule(mq_grammar *g);                                   /* a new rule that begins nowhere yet */
void mq__grammar_begin(mq_grammar *g, uint32_t rule);                       /* it begins here */
void mq__grammar_set(mq_grammar *g, const mq_byte_set *set);                /* a byte of it */
void mq__grammar_byte(mq_grammar *g, uint8_t low, uint8_t high);            /* a byte in [low, high] */
void mq__grammar_text(mq_grammar *g, const char *bytes, size_t count);
void mq__grammar_end(mq_grammar *g);                        /* the rule's end */
uint32_t mq__grammar_choice(mq_grammar *g);                 /* what follows, or... */
void mq__grammar_otherwise(mq_grammar *g, uint32_t choice); /* ... what follows here */
void mq__grammar_land(mq_grammar *g, uint32_t jump);        /* a jump, written as to 0, leads here */
/* A chain of choices: those of the same way out, each linked to the one before (MQ_NEVER: none); it leads here. */
uint32_t mq__grammar_chain(mq_grammar *g, uint32_t chain);
void mq__grammar_close_chain(mq_grammar *g, uint32_t chain);
void mq__set_add(mq_byte_set *set, unsigned low, unsigned high);
bool mq__set_has(const mq_byte_set *set, uint8_t byte);
/* Any text that does not hold `end`, then `end`. */
void mq__grammar_until(mq_grammar *g, const char *end, size_t count);
/* Fills `need`. False: rule 0 has no end, nothing satisfies it. Sets `failed` without memory. */
bool mq__grammar_finish(mq_grammar *g);

#endif
