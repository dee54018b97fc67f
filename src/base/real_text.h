/* How doubles are written. */
#ifndef MQ_BASE_REAL_TEXT_H
#define MQ_BASE_REAL_TEXT_H

#include <stddef.h>

#define MQ_REAL_BYTES 40
/* Python's repr(float): the fewest digits that read back as the same number. Its bytes; in the C locale only. */
size_t mq__real_print(double value, char text[MQ_REAL_BYTES]);

#endif
