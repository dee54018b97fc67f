/* A link's UCX: context, worker and endpoint, and active messages. All calls of UCX are here. */
#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "link/link_ucx_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_ID    1
#define HEADERS       8192u /* of a part, ours and UCX's, and more than those */
#define PORT_TRIES    8     /* another process may take a port between two calls */
#define CLOSE_SECONDS 1.0   /* for an endpoint to let go of what it was sending */

/* Contexts and workers come and go one at a time. Links that do not overlap never wait here, and a worker takes milliseconds. */
static pthread_mutex_t life_lock = PTHREAD_MUTEX_INITIALIZER;

void mq__ucx_fail(mq_ucx_link *u, mq_status status, const char *text)
{
    if (u->work.failure.status != MQ_OK) return;
    (void)mq__fail(&u->work.failure, status, "link: %s: %s", u->link.where, text);
}

static mq_status fail_ucx_call(const mq_ucx_link *u, const char *what, ucs_status_t got, mq_error *error)
{
    return mq__fail(error, MQ_IO, "link: %s: ucx: expected %s, got %s", u->link.where, what,
                    mq__ucx.ucs_status_string(got));
}

static void note_failure(mq_ucx_link *u, const char *what, ucs_status_t got)
{
    if (u->work.failure.status == MQ_OK) (void)fail_ucx_call(u, what, got, &u->work.failure);
}

/* ---- sending */

/* UCX calls it as the messages of an endpoint that was closed are thrown away, too. */
static void sent(void *request, ucs_status_t status, void *slot)
{
    mq_ucx_slot *s = slot;
    if (status != UCS_OK) note_failure(s->owner, "to send", status);
    mq__ucx.ucp_request_free(request);
    mq__ucx_sent(s);
}

void mq__ucx_post(mq_ucx_link *u, mq_ucx_slot *slot, size_t header_bytes, const void *bytes, size_t count)
{
    const ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA, .cb.send = sent, .user_data = slot};
    slot->owner = u;
    slot->is_busy = true;
    const ucs_status_ptr_t request =
        mq__ucx.ucp_am_send_nbx(u->work.peer, MESSAGE_ID, slot->header, header_bytes, bytes, count, &param);
    if (UCS_PTR_IS_PTR(request)) return;
    if (UCS_PTR_IS_ERR(request)) note_failure(u, "to send", UCS_PTR_STATUS(request));
    mq__ucx_sent(slot);
}

/* ---- receiving */

/* A part that UCX fetches from the peer's memory. */
typedef struct fetch {
    mq_ucx_link *link;
    mq_ucx_record *record;
    size_t bytes;
} fetch;

static void fetched(void *request, ucs_status_t status, size_t length, void *of)
{
    fetch *f = of;
    mq_ucx_link *u = f->link;
    (void)length;
    u->work.receiving--;
    if (status == UCS_OK) {
        mq__ucx_fill(u, f->record, f->bytes);
    } else {
        note_failure(u, "to receive", status);
    }
    mq__ucx.ucp_request_free(request);
    mq__free(f);
}

static ucs_status_t fetch_part(mq_ucx_link *u, mq_ucx_record *record, uint8_t *to, void *data, size_t bytes)
{
    fetch *f = mq__alloc(sizeof *f);
    if (!f) {
        mq__ucx_fail(u, MQ_NO_MEMORY, "expected memory for a message, got none");
        return UCS_OK;
    }
    *f = (fetch){.link = u, .record = record, .bytes = bytes};
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                                       UCP_OP_ATTR_FLAG_NO_IMM_CMPL,
                                       .cb.recv_am = fetched,
                                       .user_data = f};
    const ucs_status_ptr_t request = mq__ucx.ucp_am_recv_data_nbx(u->work.worker, data, to, bytes, &param);
    if (UCS_PTR_IS_ERR(request)) {
        note_failure(u, "to receive", UCS_PTR_STATUS(request));
        mq__free(f);
        return UCS_OK;
    }
    u->work.receiving++;
    return UCS_INPROGRESS;
}

static ucs_status_t arrive(void *link, const void *header, size_t header_bytes, void *data, size_t bytes,
                           const ucp_am_recv_param_t *param)
{
    mq_ucx_link *u = link;
    mq_ucx_record *record;
    uint8_t *to = mq__ucx_take(u, header, header_bytes, bytes, &record);
    if (!to) return UCS_OK;
    if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) return fetch_part(u, record, to, data, bytes);
    memcpy(to, data, bytes);
    mq__ucx_fill(u, record, bytes);
    return UCS_OK;
}

/* ---- settings */

typedef struct setting {
    const char *name, *value;
    bool is_open; /* the environment may say otherwise */
} setting;

/* By measurement; the figures were not kept. */
static const setting settings[] = {
    {"TCP_TX_SEG_SIZE", "16384", false},
    {"TCP_CONN_NB", "y", true}, /* a connect that waits would hold up the moving thread */
};

static const setting tcp_settings[] = {{"TLS", "tcp", false}, {"RNDV_THRESH", "inf", true}};

static bool is_in_environment(const char *name)
{
    char variable[64];
    snprintf(variable, sizeof variable, "UCX_%s", name);
    return getenv(variable) != NULL;
}

static ucs_status_t apply_setting(ucp_config_t *config, const setting *some, size_t count)
{
    ucs_status_t status = UCS_OK;
    for (size_t i = 0; i < count && status == UCS_OK; i++) {
        if (some[i].is_open && is_in_environment(some[i].name)) continue;
        status = mq__ucx.ucp_config_modify(config, some[i].name, some[i].value);
        const bool is_of_tcp =
            strncmp(some[i].name, "TCP_", 4) == 0; /* before UCX 1.17 without this, from then on with it */
        if (is_of_tcp && status == UCS_OK) {
            status = mq__ucx.ucp_config_modify(config, some[i].name + 4, some[i].value);
        }
    }
    return status;
}

static ucs_status_t configure(const mq_ucx_port *port, ucp_config_t *config)
{
    char segment[16], number[8];
    snprintf(segment, sizeof segment, "%u", MQ_UCX_PART + HEADERS);
    snprintf(number, sizeof number, "%u", mq__ucx_port_number(port));
    /* A part travels in one segment; both ends must have the same, or UCX ends the process. */
    const setting own[] = {
        {"TCP_RX_SEG_SIZE", segment, false}, {"NET_DEVICES", port->device, false}, {"TCP_PORT_RANGE", number, false}};
    const bool is_given = mq__ucx_port_is_given();
    ucs_status_t status = apply_setting(config, settings, sizeof settings / sizeof settings[0]);
    if (status == UCS_OK) status = apply_setting(config, own, is_given ? 1 : 3);
    if (status != UCS_OK || is_given) return status;
    return apply_setting(config, tcp_settings, sizeof tcp_settings / sizeof tcp_settings[0]);
}

/* ---- life */

static ucs_status_t open_context(mq_ucx_worker *w)
{
    ucp_config_t *config;
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
    ucs_status_t status = mq__ucx.ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK) return status;
    status = configure(&w->port, config);
    if (status == UCS_OK) {
        status = mq__ucx.ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &w->context);
    }
    mq__ucx.ucp_config_release(config);
    if (status != UCS_OK) w->context = NULL;
    return status;
}

static ucs_status_t open_worker(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS | UCP_AM_HANDLER_PARAM_FIELD_CB |
                      UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = MESSAGE_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = arrive,
        .arg = u,
    };
    ucs_status_t status = mq__ucx.ucp_worker_create(w->context, &params, &w->worker);
    if (status != UCS_OK) {
        w->worker = NULL;
        return status;
    }
    status = mq__ucx.ucp_worker_set_am_recv_handler(w->worker, &handler);
    if (status == UCS_OK) status = mq__ucx.ucp_worker_get_efd(w->worker, &w->wakes);
    return status == UCS_OK ? mq__ucx.ucp_worker_get_address(w->worker, &w->address, &w->address_bytes) : status;
}

static void free_worker(mq_ucx_worker *w)
{
    if (w->address) mq__ucx.ucp_worker_release_address(w->worker, w->address);
    if (w->worker) mq__ucx.ucp_worker_destroy(w->worker);
    if (w->context) mq__ucx.ucp_cleanup(w->context);
    w->address = NULL;
    w->worker = NULL;
    w->context = NULL;
}

/* What the address says: another port where that cannot be told. */
static ucs_status_t read_ucx_address(mq_ucx_worker *w)
{
    ucp_worker_address_attr_t attributes = {.field_mask = UCP_WORKER_ADDRESS_ATTR_FIELD_UID};
    const uint8_t *address = (const uint8_t *)w->address;
    if (w->address_bytes > MQ_UCX_ADDRESS) return UCS_ERR_EXCEEDS_LIMIT;
    if (mq__ucx_port_is_given()) return UCS_OK;
    const ucs_status_t status = mq__ucx.ucp_worker_address_query(w->address, &attributes);
    if (status != UCS_OK) return status;
    const bool is_known =
        mq__ucx_address_read(address, w->address_bytes, attributes.worker_uid, &w->port, &w->shape, &w->place);
    return is_known ? UCS_OK : UCS_ERR_INVALID_ADDR;
}

static ucs_status_t open_all(mq_ucx_link *u)
{
    mq_ucx_worker *w = &u->work;
    if (!mq__ucx_port_is_given() && !mq__ucx_port_choose(&w->port, u->fd)) return UCS_ERR_NO_DEVICE;
    ucs_status_t status = open_context(w);
    if (status == UCS_OK) status = open_worker(u);
    if (status == UCS_OK) status = read_ucx_address(w);
    if (status != UCS_OK) free_worker(w);
    return status;
}

mq_status mq__ucx_worker_open(mq_ucx_link *u, mq_error *error)
{
    ucs_status_t status = UCS_ERR_LAST;
    if (mq__ucx_load(error) != MQ_OK) return error->status;
    pthread_mutex_lock(&life_lock);
    for (int i = 0; i < PORT_TRIES && status != UCS_OK; i++) {
        status = open_all(u);
    }
    pthread_mutex_unlock(&life_lock);
    return status == UCS_OK ? MQ_OK : fail_ucx_call(u, "a worker", status, error);
}

static void peer_failed(void *link, ucp_ep_h peer, ucs_status_t status)
{
    (void)peer;
    note_failure(link, "the peer", status);
}

mq_status mq__ucx_worker_connect(mq_ucx_link *u, const uint8_t *address, mq_error *error)
{
    const ucp_ep_params_t params = {
        .field_mask =
            UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE,
        .address = (const ucp_address_t *)(const void *)address,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {peer_failed, u},
    };
    const ucs_status_t status = mq__ucx.ucp_ep_create(u->work.worker, &params, &u->work.peer);
    if (status == UCS_OK) return MQ_OK;
    u->work.peer = NULL;
    return fail_ucx_call(u, "to reach the peer's worker", status, error);
}

static bool has_work(const mq_ucx_worker *w)
{
    bool busy = w->receiving > 0;
    for (unsigned i = 0; i < MQ_UCX_FLIGHT; i++) {
        busy |= w->parts[i].is_busy;
    }
    for (unsigned i = 0; i < MQ_UCX_NOTES; i++) {
        busy |= w->notes[i].is_busy;
    }
    return busy;
}

/* Everything under way ends, most of it as cancelled. */
static void close_peer(mq_ucx_worker *w)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    const double deadline = mq__seconds() + CLOSE_SECONDS;
    const ucs_status_ptr_t request = mq__ucx.ucp_ep_close_nbx(w->peer, &param);
    while ((mq__ucx.ucp_worker_progress(w->worker) > 0 || has_work(w)) && mq__seconds() < deadline) {}
    if (UCS_PTR_IS_PTR(request)) mq__ucx.ucp_request_free(request);
    w->peer = NULL;
}

void mq__ucx_worker_close(mq_ucx_link *u)
{
    pthread_mutex_lock(&life_lock);
    if (u->work.peer) close_peer(&u->work);
    free_worker(&u->work);
    pthread_mutex_unlock(&life_lock);
}
