/* gzip bodies, within the bound of bodies: what grows beyond it is refused while it grows. */
#include "server/http.h"

#ifdef MQ_ZLIB
#include <string.h>
#include <zlib.h>

bool mq__inflate(const char *bytes, size_t count, size_t most, mq_buf *out, bool *too_large)
{
    z_stream z = {0};
    int code = Z_OK;
    char some[16384];
    *too_large = false;
    if (count > UINT32_MAX || inflateInit2(&z, 15 + 16) != Z_OK) return false;
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)count;
    while (code == Z_OK) {
        z.next_out = (Bytef *)some;
        z.avail_out = sizeof some;
        code = inflate(&z, Z_NO_FLUSH);
        const size_t made = sizeof some - z.avail_out;
        *too_large = made > most - out->len;
        if (*too_large || !mq__buf_append(out, some, made)) break;
        if (code == Z_OK && made == 0 && z.avail_in == 0) break; /* it is cut */
    }
    const bool whole = code == Z_STREAM_END && z.avail_in == 0 && !*too_large && !out->failed;
    inflateEnd(&z);
    return whole;
}
#else
bool mq__inflate(const char *bytes, size_t count, size_t most, mq_buf *out, bool *too_large)
{
    (void)bytes;
    (void)count;
    (void)most;
    (void)out;
    *too_large = false;
    return false;
}
#endif
