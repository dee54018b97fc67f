/* UCX, loaded when the first link wants it. A process that was merely linked with it would get its handlers of SIGSEGV and the like
 * whether it uses links or not. */
#ifndef MQ_LINK_UCX_LIBRARY_H
#define MQ_LINK_UCX_LIBRARY_H

#include "mixquant.h"

#include <ucp/api/ucp.h>

#define MQ_UCX_CALLS(call)                                                                                             \
    call(ucp_init_version) call(ucp_cleanup) call(ucp_config_read) call(ucp_config_modify) call(ucp_config_release)    \
        call(ucp_worker_create) call(ucp_worker_destroy) call(ucp_worker_get_efd) call(ucp_worker_arm)                 \
            call(ucp_worker_progress) call(ucp_worker_get_address) call(ucp_worker_release_address)                    \
                call(ucp_worker_set_am_recv_handler) call(ucp_am_send_nbx) call(ucp_am_recv_data_nbx)                  \
                    call(ucp_ep_create) call(ucp_ep_close_nbx) call(ucp_request_free) call(ucs_status_string)          \
                        call(ucp_get_version) call(ucp_worker_address_query)

typedef struct mq_ucx_calls {
#define MQ_UCX_FIELD(name) __typeof__(name) *name;
    MQ_UCX_CALLS(MQ_UCX_FIELD)
#undef MQ_UCX_FIELD
} mq_ucx_calls;

extern mq_ucx_calls mq__ucx; /* filled by the first mq__ucx_load that succeeds */

mq_status mq__ucx_load(mq_error *error);

#endif
