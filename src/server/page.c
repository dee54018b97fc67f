/* The page at /: one file, built in. */
#include "server/http.h"

__asm__(".pushsection .rodata\n"
        ".global mq__page_begin, mq__page_end\n"
        ".hidden mq__page_begin, mq__page_end\n"
        "mq__page_begin:\n"
        ".incbin \"" MQ_PAGE "\"\n"
        "mq__page_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char mq__page_begin[], mq__page_end[];

void mq__page(mq_server *server, mq_exchange *x)
{
    (void)server;
    /* Its own style and script, requests to this server, nothing from elsewhere. */
    mq__exchange_set_header(
        x, "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    mq__exchange_set_header(x, "Referrer-Policy", "no-referrer");
    mq__exchange_reply(x, 200, "text/html; charset=utf-8", mq__page_begin, (size_t)(mq__page_end - mq__page_begin));
}
