/* The 8-bit dot product of AVX-VNNI. With MQ_VNNI_EVEX (the tests) in the encoding of AVX-512 VNNI. */
#ifndef MQ_KERNELS_AVXVNNI_H
#define MQ_KERNELS_AVXVNNI_H

#include <immintrin.h>

#ifdef MQ_VNNI_EVEX
#define VPDPBUSD "vpdpbusd"
#else
#define VPDPBUSD "%{vex%} vpdpbusd"
#endif

/* t += four products of unsigned x and signed w in each lane; the intrinsic makes gcc 12 copy and spill t. */
static inline __attribute__((always_inline)) __m256i dot4_avxvnni(__m256i t, __m256i x, __m256i w)
{
    __asm__(VPDPBUSD " %2, %1, %0" : "+x"(t) : "x"(x), "x"(w));
    return t;
}

#endif
