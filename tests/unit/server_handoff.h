/* A worker of a deployment with prefill and decode on different machines, by script: who is allowed is a list, what is lent is kept. */
#ifndef MQ_SERVER_HANDOFF_H
#define MQ_SERVER_HANDOFF_H

#include "server_fixture.h"

#define SCRIPT_LEASE "0123456789abcdef0123456789abcdef"

typedef struct scripted_handoff {
    mq_handoff_backend backend;
    const char *allowed[4];
    char asked[300]; /* the peer that was asked for last */
    uint32_t refused, leases;
    double seconds;
    mq_job *lent;
    const char *description;
} scripted_handoff;

static char *script_describe(void *self)
{
    const scripted_handoff *h = self;
    return h->description ? mq__strdup(h->description) : NULL;
}

static bool script_allows(void *self, const char *peer)
{
    scripted_handoff *h = self;
    snprintf(h->asked, sizeof h->asked, "%s", peer);
    for (size_t i = 0; i < 4 && h->allowed[i]; i++) {
        if (strcmp(h->allowed[i], peer) == 0) return true;
    }
    h->refused++;
    return false;
}

static void script_lease(void *self, mq_job *job, double seconds, char id[33])
{
    scripted_handoff *h = self;
    assert_null(h->lent);
    h->lent = job;
    h->leases++;
    h->seconds = seconds;
    memcpy(id, SCRIPT_LEASE, 33);
}

static void script_count(void *self, mq_handoff_stats *stats)
{
    const scripted_handoff *h = self;
    *stats = (mq_handoff_stats){.sent = 3,
                                .sent_bytes = 1u << 20,
                                .received = 5,
                                .receive_failures = 2,
                                .refused_peers = h->refused,
                                .leases = h->leases,
                                .hidden_s = 1.5,
                                .peers = 2,
                                .healthy = 1};
}

static inline scripted_handoff *handoff_of(mq_server *server, const char *role)
{
    scripted_handoff *h = calloc(1, sizeof *h);
    assert_non_null(h);
    const bool prefills = strcmp(role, "prefill") == 0;
    h->backend = (mq_handoff_backend){.role = role,
                                      .receives = !prefills,
                                      .link_host = prefills ? "0.0.0.0" : NULL,
                                      .link_port = prefills ? 8998 : 0,
                                      .lease_seconds = 30,
                                      .describe = script_describe,
                                      .allows = script_allows,
                                      .lease = script_lease,
                                      .count = script_count,
                                      .self = h};
    h->description = "{\"role\":\"prefill\",\"instance\":\"i-1\"}";
    server->backend.handoff = &h->backend;
    return h;
}

static inline void handoff_free(mq_server *server, scripted_handoff *h)
{
    if (h->lent) server->backend.release(server->backend.self, h->lent);
    server->backend.handoff = NULL;
    free(h);
}

#endif
