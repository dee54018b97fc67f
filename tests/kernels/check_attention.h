/* The benchmarks of check_attention.c, in a file of their own. */
#ifndef MQ_CHECK_ATTENTION_H
#define MQ_CHECK_ATTENTION_H

void checkasm_bench_attention(void);

#endif
