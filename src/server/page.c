/* GET /: one page, in the program. Its policy lets it run its own script and style and speak to this server, and nothing else. */
#include "base/buf.h"
#include "server/http.h"

#include "page_bytes.h"

#include <sodium.h>
#include <string.h>

static const char *find_in_page(const char *from, const char *end, const char *text)
{
    return memmem(from, (size_t)(end - from), text, strlen(text));
}

/* Adds 'sha256-...' of what stands between two marks. */
static bool put_hash(mq_buf *policy, const char *open, const char *close)
{
    const char *page = (const char *)page_bytes, *end = page + sizeof page_bytes;
    const char *from = find_in_page(page, end, open);
    const char *to = from ? find_in_page(from, end, close) : NULL;
    unsigned char hash[crypto_hash_sha256_BYTES];
    char text[sodium_base64_ENCODED_LEN(sizeof hash, sodium_base64_VARIANT_ORIGINAL)];
    if (!to) return false;
    from += strlen(open);
    crypto_hash_sha256(hash, (const unsigned char *)from, (size_t)(to - from));
    sodium_bin2base64(text, sizeof text, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
    return mq__buf_printf(policy, "'sha256-%s'", text);
}

void mq__page(mq_server *server, mq_exchange *x)
{
    mq_buf policy = {0};
    (void)server;
    bool made = mq__buf_puts(&policy, "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
                                      "form-action 'none'; frame-ancestors 'none'; script-src ");
    made = made && put_hash(&policy, "<script>", "</script>") && mq__buf_puts(&policy, "; style-src ") &&
           put_hash(&policy, "<style>", "</style>");
    if (made) {
        mq__exchange_set_header(x, "Content-Security-Policy", policy.data);
        mq__exchange_set_header(x, "Referrer-Policy", "no-referrer");
        mq__exchange_set_header(x, "Cache-Control", "no-cache");
        mq__exchange_reply(x, 200, "text/html; charset=utf-8", (const char *)page_bytes, sizeof page_bytes);
    } else {
        mq__exchange_refuse(x, 503, "overloaded", "the server has no memory for the page now");
    }
    mq__buf_free(&policy);
}
