/* Answers in LaTeX as MATH and AIME have them: what is boxed, and whether two of them say the same. */
#ifndef MQ_EVAL_MATH_ANSWER_H
#define MQ_EVAL_MATH_ANSWER_H

#include <stdbool.h>

/* What the last complete \boxed{...} (or \fbox{...}) of a text holds; owned, NULL: there is none. */
char *mq__math_boxed(const char *text);

/* Whether two answers are equal: numbers and expressions by value ("\frac12" is "0.5"; with letters, at several points), sets and
 * lists in any order, tuples and intervals in theirs with their brackets, anything else as text without what is only typesetting.
 * Units behind a number do not count. */
bool mq__math_equal(const char *a, const char *b);

/* ---- math_value.c */

/* The value of an expression without typesetting; letters stand for numbers of their own, which `point` chooses. False: it is no
 * expression, or its value is no finite number. */
bool mq__math_value(const char *plain, int point, double *value);

#endif
