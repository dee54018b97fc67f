/* What a request says of prefill and decode on different machines. Three ways lead here:
 * - llm-d's scheduler names a prefill worker in the header x-prefiller-host-port;
 * - vLLM's proxy and llm-d's side-car ask a prefill worker first (kv_transfer_params with do_remote_decode), and bring what it answered
 *   to a decode worker (do_remote_prefill);
 * - SGLang's router and llm-d's side-car send one body to both at once, with bootstrap_host, bootstrap_port and bootstrap_room.
 * Whoever a request names is believed only if this worker was told to (--prefill-peer, --prefill-allow): else a request could let it
 * connect anywhere. */
#include "server/answering.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define HOST_BYTES  255
#define LEASE_BYTES 128

/* ---- names */

static bool is_name_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("-._:[]%", c));
}

/* Whether it may be a host, with or without a port: who is asked for it sees the rest. */
static bool is_host_text(const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_name_byte(text[i])) return false;
    }
    return count > 0 && count <= HOST_BYTES;
}

static bool is_printable_lease(const char *text)
{
    for (; *text; text++) {
        if (*text <= ' ' || *text > '~') return false;
    }
    return true;
}

static void write_link_peer(mq_ask_handoff *h, const char *host, int64_t port)
{
    const bool bare = strchr(host, ':') && host[0] != '['; /* IPv6 */
    snprintf(h->peer, sizeof h->peer, "link://%s%s%s:%d", bare ? "[" : "", host, bare ? "]" : "", (int)port);
}

/* What is asked for in vain is said: a set-up that is wrong should not only be slow. */
static void ignore_handoff(mq_server *server, mq_ask *ask, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void ignore_handoff(mq_server *server, mq_ask *ask, const char *format, ...)
{
    mq_ask_handoff *h = &ask->handoff;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(h->ignored, sizeof h->ignored, format, arguments);
    va_end(arguments);
    h->peer[0] = h->lease[0] = '\0';
    mq__server_log(server, "hand-off: session %s: %s", ask->session[0] ? ask->session : "-", h->ignored);
}

/* The peer that stands in the ask stays only if it may be named. */
static void admit_peer(mq_server *server, mq_ask *ask)
{
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    char peer[sizeof ask->handoff.peer];
    if (handoff && handoff->allows(handoff->self, ask->handoff.peer)) return;
    snprintf(peer, sizeof peer, "%s", ask->handoff.peer);
    ignore_handoff(server, ask, "%s is not among --prefill-peer and --prefill-allow: ignored", peer);
}

/* ---- x-prefiller-host-port: one worker, or several with commas between them, the best one first */

static void read_peer_header(mq_server *server, const mq_exchange *x, mq_ask *ask)
{
    mq_ask_handoff *h = &ask->handoff;
    const char *list = mq__exchange_header(x, "x-prefiller-host-port");
    if (!list || !mq__server_handoff(server)) return;
    list += strspn(list, " ");
    if (strncmp(list, "http://", 7) == 0) list += 7; /* as older routers write it */
    const size_t count = strcspn(list, ", ");
    if (count == 0) return;
    if (!is_host_text(list, count)) {
        ignore_handoff(server, ask, "x-prefiller-host-port: expected HOST:PORT, got other text: ignored");
        return;
    }
    snprintf(h->peer, sizeof h->peer, "%.*s", (int)count, list);
    admit_peer(server, ask);
}

/* ---- kv_transfer_params */

/* False with a fault: a host that cannot be one, a port beyond its range. *host NULL, or *port 0: there is none. */
static bool read_peer_address(const json_t *object, const char *host_name, const char *port_name, const char **host,
                              int64_t *port, mq_fault *fault)
{
    if (!mq__field_text(object, host_name, HOST_BYTES, host, fault) ||
        !mq__field_integer(object, port_name, 1, UINT16_MAX, port, fault)) {
        return false;
    }
    if (!*host || is_host_text(*host, strlen(*host))) return true;
    return mq__fault(fault, host_name, "%s: expected a name or an address, got other text", host_name);
}

static bool read_lender(mq_server *server, mq_ask *ask, mq_fault *fault)
{
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    if (ask->stream) {
        return mq__fault(fault, "stream",
                         "stream: expected false beside do_remote_decode: its answer is needed as a whole");
    }
    ask->handoff.lends = handoff && handoff->link_host;
    if (!ask->handoff.lends)
        ignore_handoff(server, ask, "do_remote_decode: this worker does not listen for others (--role prefill)");
    return true;
}

static bool read_fetch(mq_server *server, const json_t *params, mq_ask *ask, mq_fault *fault)
{
    const json_t *blocks = json_object_get(params, "remote_block_ids");
    const char *host = NULL, *lease = NULL, *engine = NULL;
    int64_t port = 0;
    if (!read_peer_address(params, "remote_host", "remote_port", &host, &port, fault) ||
        !mq__field_text(params, "remote_request_id", LEASE_BYTES, &lease, fault) ||
        !mq__field_text(params, "remote_engine_id", LEASE_BYTES, &engine, fault)) {
        return false;
    }
    if (blocks && !json_is_null(blocks) && !json_is_array(blocks))
        return mq__fault(fault, "remote_block_ids", "remote_block_ids: expected a list, got another value");
    if (lease && !is_printable_lease(lease))
        return mq__fault(fault, "remote_request_id", "remote_request_id: expected printable ASCII, got other text");
    if (!host || !port || !lease || !lease[0]) {
        ignore_handoff(server, ask,
                       "do_remote_prefill without remote_host, remote_port and remote_request_id: ignored");
        return true;
    }
    snprintf(ask->handoff.lease, sizeof ask->handoff.lease, "%s", lease);
    write_link_peer(&ask->handoff, host, port);
    admit_peer(server, ask);
    return true;
}

/* *named: it says who prefills. */
static bool read_params(mq_server *server, const json_t *body, mq_ask *ask, bool *named, mq_fault *fault)
{
    const json_t *params = json_object_get(body, "kv_transfer_params");
    bool decodes = false, prefills = false;
    if (!params || json_is_null(params)) return true;
    if (!json_is_object(params)) {
        return mq__fault(fault, "kv_transfer_params", "kv_transfer_params: expected an object, got another value");
    }
    if (!mq__field_bool(params, "do_remote_decode", &decodes, fault) ||
        !mq__field_bool(params, "do_remote_prefill", &prefills, fault)) {
        return false;
    }
    if (decodes && prefills) {
        return mq__fault(fault, "kv_transfer_params",
                         "kv_transfer_params: expected do_remote_decode or do_remote_prefill, got both");
    }
    *named = decodes || prefills;
    if (decodes) return read_lender(server, ask, fault);
    return !prefills || read_fetch(server, params, ask, fault);
}

/* ---- bootstrap_host, bootstrap_port, bootstrap_room: both workers have the same body at once */

/* Whether the address is this worker's own link. */
static bool is_own_link(const mq_handoff_backend *handoff, const mq_exchange *x, const char *host, int64_t port)
{
    char local[128];
    if (!handoff->link_host || port != handoff->link_port) return false;
    return strcmp(host, handoff->link_host) == 0 ||
           (mq__exchange_local_address(x, local, sizeof local) && strcmp(host, local) == 0);
}

static bool read_bootstrap(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, bool *named,
                           mq_fault *fault)
{
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    const char *host = NULL;
    int64_t port = 0, room = -1;
    if (!read_peer_address(body, "bootstrap_host", "bootstrap_port", &host, &port, fault) ||
        !mq__field_integer(body, "bootstrap_room", 0, INT64_MAX, &room, fault)) {
        return false;
    }
    if (!handoff || !host || room < 0) return true;
    *named = true;
    if (strcmp(handoff->role, "prefill") == 0 || (port && is_own_link(handoff, x, host, port))) {
        ask->handoff.acknowledges = true;
    } else if (port) {
        write_link_peer(&ask->handoff, host, port);
        admit_peer(server, ask);
    } else {
        ignore_handoff(server, ask, "bootstrap_room without bootstrap_port: ignored");
    }
    return true;
}

bool mq__ask_read_handoff(mq_server *server, const mq_exchange *x, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    bool named = false;
    if (!read_params(server, body, ask, &named, fault)) return false;
    if (!named && !read_bootstrap(server, x, body, ask, &named, fault)) return false;
    if (!named) read_peer_header(server, x, ask);
    return true;
}
