#include "cli/serve_limits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool cli_size(const char *name, const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    *bytes = 0;
    if (!text) return true;
    const double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    double factor = 1;
    for (const char *u = units; unit && u <= unit; u++) {
        factor *= 1024;
    }
    if (unit) end++;
    if (unit && strcmp(end, "iB") == 0) end += 2;
    if (end != text && *end == '\0' && value >= 0 && isfinite(value) && value * factor < 1e18) {
        *bytes = (uint64_t)(value * factor);
        return true;
    }
    (void)cli_usage_error("serve: --%s: expected a size (8G, 512MiB, 1000000), got %s", name, text);
    return false;
}

void cli_serve_limit_options(cli_serve_limits *l, cli_option options[CLI_SERVE_LIMIT_COUNT])
{
    *l = (cli_serve_limits){0};
    const double most = 2147483647.0;
    const cli_option all[CLI_SERVE_LIMIT_COUNT] = {
        {"max-body", CLI_TEXT, &l->body, 0, 0, "bytes of a request, also inflated (32M)"},
        {"max-bodies", CLI_TEXT, &l->bodies, 0, 0, "of all requests in hand (256M)"},
        {"max-headers", CLI_TEXT, &l->headers, 0, 0, "of a request's headers (64K)"},
        {"max-unread", CLI_TEXT, &l->unread, 0, 0, "of a stream that its client has not read: then it is cut (4M)"},
        {"max-depth", CLI_NUMBER, &l->depth, 0, 1000, "levels of a request's JSON (64)"},
        {"max-messages", CLI_NUMBER, &l->messages, 0, most, "of a request (10000)"},
        {"max-tools", CLI_NUMBER, &l->tools, 0, most, "of a request (512)"},
        {"max-tokens", CLI_NUMBER, &l->tokens, 0, most, "of an answer (what the context leaves)"},
        {"max-n", CLI_NUMBER, &l->answers, 0, 1024, "answers to a request (16)"},
        {"max-stops", CLI_NUMBER, &l->stops, 0, 1024, "stop texts of a request (16)"},
        {"connections", CLI_NUMBER, &l->connections, 0, 10000, "at once (512)"},
        {"connections-per-address", CLI_NUMBER, &l->per_address, 0, 10000, "of one client's address (all)"},
        {"header-seconds", CLI_FLOAT, &l->header_s, 0, 86400, "for a client to send its headers (10)"},
        {"body-seconds", CLI_FLOAT, &l->body_s, 0, 86400, "for a client to send its body (60)"},
        {"idle-seconds", CLI_FLOAT, &l->idle_s, 0, 86400, "between two requests of a connection (75)"},
        {"write-seconds", CLI_FLOAT, &l->write_s, 0, 86400, "in which a client reads nothing of its answer (60)"},
        {"request-seconds", CLI_FLOAT, &l->request_s, 0, 1e9, "for a whole answer (no limit)"},
    };
    memcpy(options, all, sizeof all);
}

bool cli_serve_limits_read(const cli_serve_limits *given, mq_server_limits *limits)
{
    uint64_t body, bodies, headers, unread;
    if (!cli_size("max-body", given->body, &body) || !cli_size("max-bodies", given->bodies, &bodies) ||
        !cli_size("max-headers", given->headers, &headers) || !cli_size("max-unread", given->unread, &unread)) {
        return false;
    }
    *limits = (mq_server_limits){.body_bytes = body,
                                 .bodies_bytes = bodies,
                                 .header_bytes = headers,
                                 .unread_bytes = unread,
                                 .json_depth = (uint32_t)given->depth,
                                 .messages = (uint32_t)given->messages,
                                 .tools = (uint32_t)given->tools,
                                 .max_tokens = (uint32_t)given->tokens,
                                 .n = (uint32_t)given->answers,
                                 .stops = (uint32_t)given->stops,
                                 .connections = (uint32_t)given->connections,
                                 .per_address = (uint32_t)given->per_address,
                                 .header_s = (double)given->header_s,
                                 .body_s = (double)given->body_s,
                                 .idle_s = (double)given->idle_s,
                                 .write_s = (double)given->write_s,
                                 .request_s = (double)given->request_s};
    return true;
}
