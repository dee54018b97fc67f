/* How much KV an engine has room for: blocks, and window parts for few of them. */
#ifndef MQ_KV_ROOM_H
#define MQ_KV_ROOM_H

#include "engine/engine.h"

typedef struct mq_kv_room {
    uint32_t blocks, windows; /* windows: 0 for models without */
} mq_kv_room;

/* e->kv_layout, of what each layer keeps. */
mq_status mq__engine_lay_out_kv(mq_engine *e, mq_error *error);
/* Context, chunk, and what a sequence takes of blocks and window parts. */
mq_status mq__engine_choose_context(mq_engine *e, mq_error *error);
/* Of the pool: a context for each sequence, or what is given in bytes. */
mq_kv_room mq__engine_kv_room(const mq_engine *e);

#endif
