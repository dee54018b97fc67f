#include "base/real_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t mq__real_print(double value, char text[MQ_REAL_BYTES])
{
    if (isnan(value)) return (size_t)snprintf(text, MQ_REAL_BYTES, "nan");
    if (isinf(value)) return (size_t)snprintf(text, MQ_REAL_BYTES, value < 0 ? "-inf" : "inf");
    char digits[MQ_REAL_BYTES];
    int precision = 0;
    for (; precision < 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    const char *const mark = strchr(digits, 'e');
    const int exponent = atoi(mark + 1);
    if (exponent < -4 || exponent >= 16) {
        const int mantissa = (int)(mark - digits);
        return (size_t)snprintf(text, MQ_REAL_BYTES, "%.*se%c%02d", mantissa, digits, exponent < 0 ? '-' : '+',
                                abs(exponent));
    }
    const int decimals = precision - exponent > 1 ? precision - exponent : 1;
    return (size_t)snprintf(text, MQ_REAL_BYTES, "%.*f", decimals, value);
}
