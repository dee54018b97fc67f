#include "cli/serve_handoff.h"

#include <string.h>

#define LEASE_SECONDS 30.0 /* as vLLM's */

void cli_serve_handoff_options(cli_serve_handoff *h, cli_option options[CLI_SERVE_HANDOFF_COUNT])
{
    *h = (cli_serve_handoff){.link_port = -1};
    const cli_option all[CLI_SERVE_HANDOFF_COUNT] = {
        {"role", CLI_TEXT, &h->role, 0, 0, "both, or one phase: prefill, decode (docs/DISAGGREGATION.md)"},
        {"prefill-peer", CLI_TEXTS, &h->peers, 0, 0, "HOST:PORT of a server that prefills for this one (repeatable)"},
        {"prefill-allow", CLI_TEXTS, &h->allowed, 0, 0,
         "network whose servers requests may name for that, as 10.0.0.0/8 (repeatable)"},
        {"link", CLI_TEXT, &h->transport, 0, 0, "what KV travels over: tcp (default), shm, ucx"},
        {"link-host", CLI_TEXT, &h->link_host, 0, 0, "address that decode workers connect to (as --host)"},
        {"link-port", CLI_NUMBER, &h->link_port, 0, 65535,
         "its port (any free one; without it --role both does not listen)"},
        {"peer-key-file", CLI_TEXT, &h->key_file, 0, 0,
         "secret that both sides share; needed where others reach a link"},
        {"on-transfer-failure", CLI_TEXT, &h->on_failure, 0, 0,
         "where KV does not come: recompute (default: read it here), or fail (the request)"},
        {"handoff-timeout", CLI_FLOAT, &h->timeout, 0, 86400, "seconds without a sign of life from who prefills (10)"},
        {"handoff-tokens", CLI_NUMBER, &h->least, 0, 2147483647.0, "fewest tokens worth a hand-off (by measurement)"},
        {"handoff-waiting", CLI_NUMBER, &h->waiting, 0, 2147483647.0,
         "prompt tokens that wait here, beyond which it prefills for no others (262144)"},
        {"handoff-idle", CLI_FLOAT, &h->idle, 0, 1e6,
         "seconds for which a decode worker keeps an unused link; five times that others (60)"},
        {"handoff-lease", CLI_FLOAT, &h->lease, 0, 86400,
         "seconds for which a prompt's KV stays for who fetches it (30)"},
    };
    memcpy(options, all, sizeof all);
}

/* ---- what goes together */

static bool is_role(const cli_serve_handoff *h, const char *role)
{
    return strcmp(h->role ? h->role : "both", role) == 0;
}

static bool listens(const cli_serve_handoff *h)
{
    return is_role(h, "prefill") || (is_role(h, "both") && h->link_port >= 0);
}

static bool names_peers(const cli_serve_handoff *h)
{
    return h->peers.count > 0 || h->allowed.count > 0;
}

/* Options that say how, but not what. */
static const char *detail_option(const cli_serve_handoff *h)
{
    return h->transport     ? "--link"
           : h->key_file    ? "--peer-key-file"
           : h->on_failure  ? "--on-transfer-failure"
           : h->timeout > 0 ? "--handoff-timeout"
           : h->least > 0   ? "--handoff-tokens"
           : h->waiting > 0 ? "--handoff-waiting"
           : h->idle > 0    ? "--handoff-idle"
           : h->lease > 0   ? "--handoff-lease"
           : h->link_host   ? "--link-host"
                            : NULL;
}

static int check_words(const cli_serve_handoff *h)
{
    if (!is_role(h, "both") && !is_role(h, "prefill") && !is_role(h, "decode"))
        return cli_usage_error("serve: --role: expected both, prefill or decode, got %s", h->role);
    if (h->on_failure && strcmp(h->on_failure, "recompute") != 0 && strcmp(h->on_failure, "fail") != 0)
        return cli_usage_error("serve: --on-transfer-failure: expected recompute or fail, got %s", h->on_failure);
    return CLI_DONE;
}

int cli_handoff_check(cli_serve_handoff *h)
{
    const int code = check_words(h);
    if (code != CLI_DONE) return code;
    h->used = !is_role(h, "both") || h->link_port >= 0 || names_peers(h);
#ifndef MQ_HANDOFF
    if (h->used) {
        return cli_usage_error(
            "serve: --role, --link-port, --prefill-peer, --prefill-allow: expected a build with libcurl "
            "and libsodium for hand-offs between machines, got one without");
    }
#endif
    if (is_role(h, "prefill") && names_peers(h))
        return cli_usage_error("serve: --prefill-peer, --prefill-allow: expected --role decode or both, got prefill");
    if (is_role(h, "decode") && h->link_port >= 0)
        return cli_usage_error(
            "serve: --link-port: expected --role prefill or both, got decode, which does not listen");
    if (h->link_host && !listens(h))
        return cli_usage_error("serve: --link-host: expected --role prefill or --link-port beside it, got neither");
    if (!h->used && detail_option(h)) {
        return cli_usage_error("serve: %s: expected --role, --link-port, --prefill-peer or --prefill-allow beside it",
                               detail_option(h));
    }
    return CLI_DONE;
}

/* ---- the hand-off */

#ifdef MQ_HANDOFF

static char *describe_handoff(void *self)
{
    return mq_handoff_describe(self);
}

static bool allows_peer(void *self, const char *peer)
{
    return mq_handoff_allows(self, peer);
}

static void lease_job(void *self, mq_job *job, double seconds, char id[33])
{
    mq_handoff_lease(self, job, seconds, id);
}

static void count_handoffs(void *self, mq_handoff_stats *stats)
{
    mq_handoff_describe_stats(self, stats);
}

static void say(const mq_server_options *server, const char *line)
{
    if (server->log) server->log(server->log_context, line);
}

int cli_handoff_open(cli_serve_handoff *h, mq_engine *engine, const mq_server_options *server)
{
    if (!h->used) return CLI_DONE;
    mq_error error = {0};
    const bool fails = h->on_failure && strcmp(h->on_failure, "fail") == 0;
    const char *host = h->link_host ? h->link_host : server->host;
    const mq_handoff_options options = {.engine = engine,
                                        .transport = h->transport,
                                        .listens = listens(h),
                                        .host = host,
                                        .port = (uint16_t)(h->link_port > 0 ? h->link_port : 0),
                                        .insecure = server->insecure,
                                        .peers = h->peers.item,
                                        .peer_count = h->peers.count,
                                        .allowed = h->allowed.item,
                                        .allowed_count = h->allowed.count,
                                        .fails = fails,
                                        .timeout_s = (double)h->timeout,
                                        .idle_s = (double)h->idle,
                                        .least = (uint32_t)h->least,
                                        .most_waiting = (uint64_t)h->waiting,
                                        .key_file = h->key_file,
                                        .log = server->log,
                                        .log_context = server->log_context};
    if (is_role(h, "decode") && !names_peers(h))
        say(server,
            "hand-off: --role decode without --prefill-peer and --prefill-allow: nobody prefills for this server");
    if (mq_handoff_open(&options, &h->handoff, &error) != MQ_OK) return cli_report(&error);
    h->backend = (mq_handoff_backend){.role = h->role ? h->role : "both",
                                      .receives = names_peers(h),
                                      .fails = fails,
                                      .link_host = listens(h) ? host : NULL,
                                      .describe = describe_handoff,
                                      .allows = allows_peer,
                                      .lease_seconds = h->lease > 0 ? (double)h->lease : LEASE_SECONDS,
                                      .lease = lease_job,
                                      .count = count_handoffs,
                                      .self = h->handoff};
    return CLI_DONE;
}

const struct mq_kv_source *cli_handoff_source(const cli_serve_handoff *h)
{
    return h->handoff ? mq_handoff_source(h->handoff) : NULL;
}

int cli_handoff_serve(cli_serve_handoff *h, mq_scheduler *scheduler)
{
    mq_error error = {0};
    if (!h->handoff) return CLI_DONE;
    if (mq_handoff_serve(h->handoff, scheduler, &error) != MQ_OK) return cli_report(&error);
    h->backend.link_port = mq_handoff_port(h->handoff);
    if (h->backend.link_host)
        fprintf(stderr, "decode workers fetch KV at %s port %u\n", h->backend.link_host, h->backend.link_port);
    return CLI_DONE;
}

void cli_handoff_stop(cli_serve_handoff *h)
{
    if (h->handoff) mq_handoff_stop(h->handoff);
}

void cli_handoff_close(cli_serve_handoff *h)
{
    if (h->handoff) mq_handoff_close(h->handoff);
    h->handoff = NULL;
}

#else

int cli_handoff_open(cli_serve_handoff *h, mq_engine *engine, const mq_server_options *server)
{
    (void)h;
    (void)engine;
    (void)server;
    return CLI_DONE;
}

const struct mq_kv_source *cli_handoff_source(const cli_serve_handoff *h)
{
    (void)h;
    return NULL;
}

int cli_handoff_serve(cli_serve_handoff *h, mq_scheduler *scheduler)
{
    (void)h;
    (void)scheduler;
    return CLI_DONE;
}

void cli_handoff_stop(cli_serve_handoff *h)
{
    (void)h;
}

void cli_handoff_close(cli_serve_handoff *h)
{
    (void)h;
}

#endif
