/* mixquant_handoff.h: prefill and decode on different machines, as Mix-Quant deploys them: workers that prefill with NVFP4 send BF16 KV to
 * workers that decode with BF16. This is the hand-off of KV only; who sends which request where is a router's business (HAProxy,
 * llm-d). docs/DISAGGREGATION.md says how it is used, src/handoff/protocol.h what is on the wire.
 *
 * A process has one mq_handoff; it may do both sides. In the order of its life:
 *     mq_handoff_open(&options, &handoff, &error);
 *     scheduler_options.source = mq_handoff_source(handoff);  mq_scheduler_start(&scheduler_options, &scheduler, &error);
 *     mq_handoff_serve(handoff, scheduler, &error);
 *     ...
 *     mq_handoff_stop(handoff);  mq_scheduler_stop(scheduler);  mq_handoff_close(handoff); */
#ifndef MIXQUANT_HANDOFF_H
#define MIXQUANT_HANDOFF_H

#include "mixquant_serve.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mq_handoff mq_handoff;

typedef struct mq_handoff_options {
    mq_engine *engine;     /* borrowed; read by mq_handoff_open only, before a scheduler has it */
    const char *transport; /* "tcp", "shm", "ucx"; NULL: "tcp" */

    /* The prefill side: it listens for decode workers. */
    bool listens;
    const char *host; /* of the link; NULL: 127.0.0.1. Others need key_file or insecure */
    uint16_t port;    /* 0: any free one */
    bool insecure;
    uint64_t most_waiting; /* prompt tokens that wait here, beyond which others' are refused; 0: 262144 */

    /* The decode side: it has prompts prefilled. */
    const char *const *peers; /* [peer_count] "HOST:PORT" of their HTTP servers */
    size_t peer_count;
    const char *const *allowed; /* [allowed_count] networks, "10.0.0.0/8": whom requests may name besides peers */
    size_t allowed_count;
    bool fails;       /* a transfer that failed fails the request; else this engine prefills what is missing */
    double timeout_s; /* without a sign of life from a peer that prefills: it has failed; 0: 10 */
    double idle_s;    /* an unused connection: D closes it after so long, P after five times that; 0: 60 */
    uint32_t
        least; /* tokens to be prefilled from which a hand-off is considered; 0: by measurement (docs/DISAGGREGATION.md) */

    /* NULL, or a file of 16 bytes to 64 KiB that both sides share (32 random ones are advised): they authenticate each other and every message. */
    const char *key_file;
    void (*log)(void *context, const char *line);
    void *log_context;
} mq_handoff_options;

/* Reads the weights once, for their fingerprint. MQ_UNSUPPORTED: the transport is not built in. */
MQ_API mq_status mq_handoff_open(const mq_handoff_options *options, mq_handoff **handoff, mq_error *error);
/* For mq_scheduler_options.source; NULL: it has neither peers nor allowed networks. */
MQ_API const struct mq_kv_source *mq_handoff_source(mq_handoff *handoff);
/* From now on it listens, and asks its peers how they are. */
MQ_API mq_status mq_handoff_serve(mq_handoff *handoff, mq_scheduler *scheduler, mq_error *error);
MQ_API uint16_t mq_handoff_port(const mq_handoff *handoff); /* of the link; 0: it does not listen */
/* Ends all hand-offs and threads; the scheduler falls back to its own engine. */
MQ_API void mq_handoff_stop(mq_handoff *handoff);
MQ_API void mq_handoff_close(mq_handoff *handoff);

/* What peers ask each other over HTTP (GET /internal/link): {"role", "link": {"transport", "port"}, "instance", "fingerprint", "plan",
 * "unread_tokens", "prompt_tokens_per_second", ...}. Owned: mq_free. NULL: no memory. */
MQ_API char *mq_handoff_describe(mq_handoff *handoff);

/* Whether a request may name this peer: one of `peers`, or an address in `allowed`. One that is not is counted (refused_peers). */
MQ_API bool mq_handoff_allows(mq_handoff *handoff, const char *host_port);

/* A prompt that was read for somebody who will fetch its KV soon: its job (of mq_request.hold) is kept for so many seconds, or until it
 * was fetched. Takes the job. id: what to call it, [33]. */
MQ_API void mq_handoff_lease(mq_handoff *handoff, mq_job *job, double seconds, char id[33]);

/* Counters since the start, and gauges; any thread. */
typedef struct mq_handoff_stats {
    uint64_t sent, sent_tokens, sent_bytes, send_failures;                /* hand-offs to others */
    uint64_t received, received_tokens, received_bytes, receive_failures; /* and from others */
    uint64_t refused_peers;  /* that requests named and that are not allowed */
    uint64_t refused_frames; /* damaged, foreign, replayed, oversized */
    uint64_t leases, leases_expired;
    double hidden_s, exposed_s; /* of transfers received: while the peer computed, and after it had done so */
    uint32_t sending, receiving, leased;
    uint32_t peers, healthy; /* of the list */
} mq_handoff_stats;
MQ_API void mq_handoff_describe_stats(mq_handoff *handoff, mq_handoff_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
