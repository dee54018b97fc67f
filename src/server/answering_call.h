/* A request in hand, as the answering_*.c share it. */
#ifndef MQ_ANSWERING_CALL_H
#define MQ_ANSWERING_CALL_H

#include "base/pool.h"
#include "server/answering.h"

#include <pthread.h>
#include <stdatomic.h>

/* The prompt of an ask. */
typedef struct mq_prompt {
    int32_t *tokens; /* owned: mq_free */
    size_t count;
    bool in_reasoning;    /* it ends inside reasoning */
    bool opens_reasoning; /* with tools: the model is about to open it by itself */
} mq_prompt;

/* Whether the answer is held to a form after its reasoning. */
bool mq__ask_is_held(mq_server *server, const mq_ask *ask);
/* If the model is about to open its reasoning by itself and the answer is held to a form, the prompt opens it, so that the form has a place
 * to begin at. */
bool mq__prompt_make(mq_server *server, const mq_ask *ask, mq_prompt *prompt, mq_fault *fault);

/* answering_rescue.c: the messages as a template takes them, a new reference; `which`: of mq_template_needs. NULL: no memory. */
#define MQ_ALL_RESCUES (~0u)
json_t *mq__rescue(json_t *messages, unsigned which);

/* One of the answers. */
typedef struct mq_choice {
    struct mq_call *call;
    uint32_t number;
    mq_job *job;               /* NULL: none any more */
    mq_constraint *constraint; /* until it is submitted */
    mq_answer *answer;
    mq_answered answered;
} mq_choice;

/* Three kinds of threads meet here: the handler's and `gone` (HTTP), `tick` (the watcher), events (the backend). Each takes `lock`
 * for whatever it does; jobs are released without it, because a release waits for an event that is being told. The memory goes
 * with the last holder: the handler until it returns, the hooks until `gone`. */
struct mq_call {
    atomic_uint holders;
    pthread_mutex_t lock;
    mq_server *server;
    mq_exchange *x;
    const mq_api *api;
    mq_ask ask;
    mq_prompt prompt;
    mq_choice *choices; /* [ask.n] */
    void *state;        /* the API's */
    char id[64];        /* of the request */
    int64_t created;
    double started, sent, told,
        first_token;        /* seconds; sent: the latest event; told: `alive` was asked; first_token: 0 before */
    uint32_t ended;         /* choices */
    bool submitted;         /* all answers are */
    bool begun;             /* headers are out: a stream, or blanks before JSON */
    bool told_prefill;      /* x-prefill is among them */
    bool over;              /* nothing is sent any more; what still runs is to be released */
    bool left;              /* a write said that nobody reads */
    bool broken;            /* memory was short */
    unsigned long failures; /* of jansson in this thread, when the work under the lock began */
    uint32_t miss_at;       /* of `miss` */
    char miss[400];
    char lease[33]; /* "", or what KV that stays for others is called */
    mq_buf line;    /* scratch of what is sent */
};

/* answering_parts.c: what a token brings. What goes wrong there sets call->broken. */
bool mq__choice_open(mq_choice *choice, mq_fault *fault);
void mq__choice_close(mq_choice *choice);
void mq__choice_token(mq_choice *choice, const mq_event *event);
void mq__choice_finish(mq_choice *choice, const mq_event *event);

/* answering_start.c: everything before the first event. */
bool mq__call_prepare(mq_call *call, mq_fault *fault);       /* on the handler's thread alone */
bool mq__choice_submit(mq_choice *choice, mq_fault *fault);  /* with the lock */
bool mq__call_has_tools(const mq_call *call);                /* calls are taken out of the text */
void mq__choice_event(void *context, const mq_event *event); /* answering.c: of a mq_choice */
void mq__choices_release(mq_call *call);                     /* answering.c: without the lock */

/* answering_handoff.c: where the prompt was prefilled. An answer's headers wait, within bounds, until that is known. */
bool mq__call_tells_prefill(const mq_call *call); /* answers of this worker say it */
bool mq__call_knows_prefill(const mq_call *call, const mq_report *report);
void mq__call_set_prefill_header(mq_call *call);                            /* once; before the answer begins */
json_t *mq__call_prefill(const mq_call *call);                              /* for timings */
void mq__call_prefill_words(const mq_call *call, char *words, size_t size); /* for the log */
/* The answer failed because KV did not arrive, and this worker does not make up for it. */
bool mq__call_failed_transfer(const mq_call *call, const mq_report *report, mq_fault *fault);
void mq__call_lend(mq_call *call);           /* its answers have ended well: its KV stays, where that was asked for */
json_t *mq__call_lease(const mq_call *call); /* kv_transfer_params of the answer; NULL: none, or no memory */

/* answering_report.c */
void mq__call_find_miss(mq_call *call, const mq_report *report);
void mq__call_log(mq_call *call, unsigned status, const char *finish); /* one line, and the counters */

#endif
