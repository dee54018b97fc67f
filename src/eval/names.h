/* Names and numbers that the bundled model never saw: those whose CRC-32 is a multiple of 8 (tools/train/world.py). */
#ifndef MQ_EVAL_NAMES_H
#define MQ_EVAL_NAMES_H

#include "eval/eval.h"

bool mq__eval_is_held(const char *text);

/* One to three syllables with a capital, held out. */
void mq__eval_held_name(mq_eval_random *random, char name[32]);

#endif
