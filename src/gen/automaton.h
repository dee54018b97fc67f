/* A grammar read byte by byte: a deterministic automaton that is made as it is walked. A state is a set of places in the grammar's code,
 * each with the rules that wait for its end. */
#ifndef MQ_AUTOMATON_H
#define MQ_AUTOMATON_H

#include "gen/grammar.h"

typedef struct mq_automaton mq_automaton;

enum { MQ_DEAD = 0 }; /* the state in which nothing may follow */

/* The grammar is borrowed. */
mq_status mq__automaton_new(const mq_grammar *grammar, mq_automaton **automaton, mq_error *error);
void mq__automaton_free(mq_automaton *automaton);
uint32_t mq__automaton_start(mq_automaton *a, uint32_t rule); /* the state at a rule's beginning */
/* The state after a byte; MQ_DEAD also when memory or bounds end it. */
uint32_t mq__automaton_step(mq_automaton *a, uint32_t state, uint8_t byte);
bool mq__automaton_is_final(const mq_automaton *a, uint32_t state);
/* Something of the caller's, kept with a state; the automaton frees it. */
uint32_t **mq__automaton_mask(mq_automaton *a, uint32_t state);
/* Forgets all states but one when there are many; returns its new number. Between walks. */
uint32_t mq__automaton_trim(mq_automaton *a, uint32_t state);
/* The state of another automaton of the same grammar, as one of this one's. Between walks. */
uint32_t mq__automaton_adopt(mq_automaton *a, const mq_automaton *from, uint32_t state);
/* The one byte that can follow, or -1: several can, or none, or the text may end here. */
int mq__automaton_forced(const mq_automaton *a, uint32_t state);

#endif
