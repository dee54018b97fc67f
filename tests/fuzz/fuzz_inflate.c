/* Bodies with Content-Encoding: gzip, as http_inflate.c takes them. An input's first byte says how much may come out: 16 bytes times a
 * power of two. */
#include "base/buf.h"
#include "fuzz.h"
#include "server/http.h"

#include <string.h>
#include <zlib.h>

/* The same by zlib alone and at once. Returns the bytes that came out, or -1: it is none, not whole, or more than fits. */
static long inflate_at_once(const fuzz_part *body, char *out, size_t most)
{
    z_stream z = {.next_in = (Bytef *)body->data, .avail_in = (uInt)body->bytes};
    FUZZ_CHECK(inflateInit2(&z, 15 + 16) == Z_OK);
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)most;
    const int code = inflate(&z, Z_FINISH);
    const long made = code == Z_STREAM_END && z.avail_in == 0 ? (long)z.total_out : -1;
    inflateEnd(&z);
    return made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part body;
    mq_buf text = {0};
    bool too_large = true;
    fuzz_accepted = false;
    if (bytes == 0) return 0;
    const size_t most = (size_t)16 << data[0] % 16;
    fuzz_cut(data + 1, bytes - 1, &body, 1);
    char *expected = malloc(most + 1); /* one more: what ends beyond the bound is not taken for what ends at it */
    FUZZ_CHECK(expected);
    const long count = inflate_at_once(&body, expected, most + 1);
    fuzz_accepted = mq__inflate(body.data ? body.data : "", body.bytes, most, &text, &too_large);
    FUZZ_CHECK(text.len <= most);
    FUZZ_CHECK(fuzz_accepted == (count >= 0 && (size_t)count <= most));
    FUZZ_CHECK(!fuzz_accepted || (!too_large && text.len == (size_t)count));
    FUZZ_CHECK(!fuzz_accepted || count == 0 || memcmp(text.data, expected, text.len) == 0);
    FUZZ_CHECK(count <= (long)most || too_large);
    mq__buf_free(&text);
    free(expected);
    fuzz_free(&body, 1);
    return 0;
}
