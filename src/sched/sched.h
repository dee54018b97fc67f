/* The scheduler's insides. One thread owns everything but the inbox, the clients' side of a job and the statistics. */
#ifndef MQ_SCHED_H
#define MQ_SCHED_H

#include "gen/drafter.h"
#include "mixquant_serve.h"
#include "sched/prefix_cache.h"
#include "sched/transfer.h"

#include <pthread.h>
#include <stdatomic.h>

/* A request and how far it is. `tokens` is the prompt and then the answer as it grows; the sequence holds the first of them, and
 * whatever it does not hold yet is what the next steps run: the first `reads` in the prefill plan, the others in the
 * decode plan. So a job whose sequence was taken away (preempted) goes on by the same rule, with the same answer. */
struct mq_job {
    mq_job *next;        /* of the list it is in */
    atomic_uint holders; /* its client, and the scheduler until it has ended */

    pthread_mutex_t lock;  /* `left`, `sequence` as a pointer; held while its client is called */
    bool left;             /* the client has freed it */
    mq_sequence *sequence; /* NULL: it waits */

    int32_t *tokens; /* [prompt + max_tokens] */
    uint32_t prompt, count;
    uint32_t reads; /* of the prompt: all but its last token or (engine options) its last ones */
    uint32_t max_tokens, top_logprobs;
    bool logprobs, background, reads_on; /* reads_on: its prompt is read to the end though its client leaves */
    mq_generation *generation;
    mq_draft_answer draft; /* the tokens behind tokens[count] that the step in hand verifies */
    mq_constraint *constraint;
    const mq_plan *plan;
    uint64_t owner;
    void (*event)(void *context, const mq_event *event);
    void *context;

    double key;                            /* who comes first: the smaller one */
    double submitted, admitted, read_done; /* seconds; 0: not yet */
    bool loading;                          /* the disk may have the next block */
    bool asked;                            /* the source was, whether it has the prompt prefilled elsewhere */
    const struct mq_kv_source *source;
    mq_kv_arrival *arrival;        /* NULL: no KV is on its way */
    char *peer, *lease;            /* of the request */
    const struct mq_kv_sink *sink; /* where its KV goes; `began`: it knows */
    bool began, prefill_only, hold;
    uint32_t kept;   /* blocks that the prefix cache was offered */
    uint32_t stored; /* blocks that the disk was offered, once it has ended */
    mq_kv_name name; /* of the block before that */
    int32_t drawn;   /* the next token, while a step ends */
    mq_status draw_status;
    mq_report report;
};

typedef struct job_list {
    mq_job *first, **end; /* end: where the next one's address goes */
    uint32_t count;
} job_list;

void mq__jobs_init(job_list *list);
void mq__jobs_add(job_list *list, mq_job *job);
/* Takes the job at *at out; at stays right for going on. */
mq_job *mq__jobs_remove(job_list *list, mq_job **at);

/* Rows of one phase, [streams] each. */
typedef struct step_rows {
    mq_rows *rows;
    mq_job **job; /* whose rows they are */
    uint32_t count;
} step_rows;

/* A prefill step while answers run. */
typedef struct reading {
    bool answers;       /* there are some */
    uint32_t budget;    /* its rows at most */
    double layer_began; /* the layer in hand */
    double layer_s;     /* what a layer takes, smoothed */
    double others;      /* seconds of decode steps between its layers */
} reading;

struct mq_scheduler {
    mq_scheduler_options options;
    mq_engine *engine;
    mq_engine_info info;
    mq_prefix_cache *cache;
    pthread_t thread;

    pthread_mutex_t lock; /* what follows, up to the blank line */
    pthread_cond_t work, idle;
    job_list inbox;
    uint32_t jobs;                               /* submitted and not ended */
    bool draining, stopping, woken, lacked_room; /* lacked_room: as mq__scheduler_lacked_room says */
    mq_scheduler_stats stats;
    uint64_t *waiting_owners; /* [stats.waiting] in no order; at most one a place of the queue and one a stream */

    job_list waiting, running;
    job_list storing;          /* ended, and the disk has not been offered all of its blocks */
    job_list held;             /* ended, and their clients want the sequence for a while */
    step_rows step[MQ_PHASES]; /* of the step in hand; a decode step may run between two layers of a prefill step */
    reading reading;
    bool lacks_room;  /* steps of this turn wait until what is held is let go */
    double decode_s;  /* of a decode step, smoothed */
    double decoded;   /* when the last one ended */
    double published; /* when the statistics that cost something were last made */
    mq_drafter *drafter;
    mq_draft_answer **drafting;                    /* [streams] of the step in hand */
    uint32_t draws;                                /* of the step in hand: jobs with logits, the first ones */
    uint32_t tokens_drawn, drafted, drafted_right; /* of the step in hand */
};

/* ---- job.c */

/* Under the lock: what waits, for the bounds of the queue. */
void mq__note_waiting(mq_scheduler *s);

void mq__job_release(mq_job *job);
/* Calls the client unless it has left. */
void mq__job_tell(mq_job *job, const mq_event *event);
void mq__job_progress(mq_job *job);
bool mq__job_has_left(mq_job *job);
/* Tells the end, and lets the scheduler's hold go unless the disk wants its blocks. It is in no list. */
void mq__job_end(mq_scheduler *s, mq_job *job, mq_finish finish, const char *bytes, size_t count);
/* The same for a failure. */
void mq__job_fail(mq_scheduler *s, mq_job *job, const mq_error *error);
/* Takes its sequence away; full blocks stay in the prefix cache. */
void mq__job_park(mq_scheduler *s, mq_job *job);
/* Lets jobs go that are held and whose clients have left; `all`: the others, too. */
void mq__release_held(mq_scheduler *s, bool all);
/* Lets the first job go that is there only to be written to disk. False: there is none. */
bool mq__release_stored(mq_scheduler *s);
/* The prefix cache gets what it has not of the full blocks. */
void mq__job_keep(mq_scheduler *s, mq_job *job);
void mq__leave_running(mq_scheduler *s, const mq_job *job);
/* Tokens of its prompt that are still to be computed in the prefill plan. */
uint32_t mq__job_unread(const mq_job *job);

/* ---- admit.c */

/* Moves jobs from waiting to running, as many as streams and blocks allow. */
void mq__admit(mq_scheduler *s);
/* Blocks, and window parts of them, beyond those that sequences have. */
typedef struct mq_kv_need {
    uint32_t blocks, windows;
} mq_kv_need;
/* Frees them until a step that needs so many can run: from the cache, and with `parks` by parking the job that came last. */
bool mq__make_room(mq_scheduler *s, mq_kv_need need, bool parks);

/* ---- rows.c */

/* Runs prefill rows and a decode row of every running answer. False: nothing was to be done. */
bool mq__run_step(mq_scheduler *s);

/* ---- transfer.c: KV that comes from elsewhere, and KV that goes elsewhere */

/* Asks the source for what is to be prefilled, where that has not been done, and takes what has come. True: something has changed. */
bool mq__run_arrivals(mq_scheduler *s, uint32_t answers);
/* Ends a job's arrival, if there is one; what is whole of it stays. */
void mq__arrival_end(mq_job *job);
/* Tells sinks of the jobs in the step that is run what has been stored in `layers` layers. */
void mq__tell_sinks(mq_scheduler *s, uint32_t layers);
void mq__sink_begin(mq_job *job);
/* All layers have what the sequence holds. */
void mq__sink_stored(const mq_scheduler *s, mq_job *job);

#endif
