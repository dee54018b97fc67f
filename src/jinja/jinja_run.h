/* One render: its budgets, its scopes, and the entry points of the evaluator's files. */
#ifndef MQ_FORMAT_JINJA_RUN_H
#define MQ_FORMAT_JINJA_RUN_H

#include "jinja/jinja_ast.h"
#include "jinja/jinja_text.h"

/* A scope: what one block, macro call or loop iteration has bound. The outermost scope is mq_jrun.top. */
typedef struct mq_jslot {
    uint32_t name;
    mq_jvalue value;
} mq_jslot;

typedef struct mq_jframe {
    struct mq_jframe *parent; /* NULL: the top */
    mq_jslot *slots;
    uint32_t count, capacity;
    bool kept; /* a macro refers to it, so it may not be reused */
} mq_jframe;

struct mq_jrun {
    mq_jtrap trap;
    const mq_jinja *program;
    mq_jinja_limits limits;
    const struct tm *now;
    mq_arena objects, text;
    uint64_t steps; /* left */
    unsigned depth; /* of C recursion, in evaluated nodes */
    unsigned calls; /* of macros, calls and recursive loops */
    mq_jvalue *top; /* [names] top-level variables by name number */
    mq_buf out;     /* the output; what a capture has collected is cut off its end */
    mq_jvalue captured;
};

/* The arguments of one call. */
typedef struct mq_jargs {
    const mq_jvalue *values;
    size_t count;
    const mq_jvalue *names, *named; /* [named_count] strings and values */
    size_t named_count;
} mq_jargs;

typedef struct mq_jmacro {
    const mq_jnode *node;
    mq_jframe *frame; /* where it was defined */
    bool caller;      /* the body of a call block: it has no name */
} mq_jmacro;

typedef struct mq_jloop {
    const mq_jnode *node;
    mq_jframe *frame; /* the scope around the loop */
    mq_jiter iter;
    mq_jvalue current, before, after; /* after: MISSING when it was not looked at */
    bool exhausted;                   /* nothing comes after `after` */
    bool rest_is_filtered;            /* iter reads items that have passed the filter already */
    int64_t index0, length;           /* length -1: not asked yet */
    int64_t depth0;
    mq_jvalue changed;
} mq_jloop;

typedef mq_jvalue (*mq_jcallee)(mq_jrun *run, mq_jvalue self, const mq_jargs *args);

typedef struct mq_jfilter {
    const char *name;
    mq_jcallee call;
} mq_jfilter;

typedef struct mq_jtest {
    const char *name;
    bool (*call)(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
    uint8_t arguments; /* exactly so many */
} mq_jtest;

typedef struct mq_jmethod {
    const char *name;
    uint8_t type;    /* mq_jtype of the object */
    mq_jcallee call; /* NULL: Python has it, the sandbox or this subset refuses it */
} mq_jmethod;

typedef struct mq_jmethod_bound {
    mq_jvalue self;
    const mq_jmethod *method;
} mq_jmethod_bound;

typedef struct mq_jfunction {
    const char *name;
    mq_jcallee call; /* self is not used */
} mq_jfunction;

/* NULL when there is none of that name. */
const mq_jfilter *mq__jfilter_find(mq_jvalue name);
const mq_jtest *mq__jtest_find(mq_jvalue name);
const mq_jfunction *mq__jfunction_find(mq_jvalue name);
const mq_jmethod *mq__jmethod_find(mq_jvalue name); /* the first row of that name; rows of one name are adjacent */
const mq_jmethod *mq__jmethod_of(const mq_jmethod *first, mq_jvalue object); /* the row for the object, or NULL */

/* ---------------------------------------------------------------- budgets and errors */

_Noreturn void mq__jrun_throw(mq_jrun *run, mq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void mq__jrun_out_of_steps(mq_jrun *run);

/* Charges work; each file charges what its loops cost. */
static inline void mq__jrun_charge(mq_jrun *run, uint64_t steps)
{
    if (run->steps < steps) mq__jrun_out_of_steps(run);
    run->steps -= steps;
}

/* Bulk work over bytes, copying or searching, in units of about the time of one step. */
static inline void mq__jrun_charge_bytes(mq_jrun *run, size_t bytes)
{
    mq__jrun_charge(run, bytes / 64 + 1);
}

/* Work on each character: decoding, classes, case. */
static inline void mq__jrun_charge_points(mq_jrun *run, size_t bytes)
{
    mq__jrun_charge(run, bytes / 4 + 1);
}

void *mq__jrun_alloc(mq_jrun *run, size_t count, size_t bytes_each); /* zeroed, never NULL */
char *mq__jrun_text(mq_jrun *run, size_t bytes);                     /* never NULL; checks the bound of one string */

/* ---------------------------------------------------------------- arguments */

/* Spreads arguments over parameter names; one that was not given stays MISSING. Too many, unknown or doubled: error. */
void mq__jargs_bind(mq_jrun *run, const char *what, const mq_jargs *args, const char *const *names, size_t count,
                    mq_jvalue *out);
/* The n-th of at most `max` positional arguments, none of them named. */
void mq__jargs_positional(mq_jrun *run, const char *what, const mq_jargs *args, size_t min, size_t max);
mq_jvalue mq__jargs_at(const mq_jargs *args, size_t i); /* MISSING past the end */

/* ---------------------------------------------------------------- evaluation */

mq_jvalue mq__jinja_eval(mq_jrun *run, mq_jframe *frame, const mq_jnode *node);
mq_jvalue mq__jinja_call(mq_jrun *run, mq_jvalue callee, const mq_jargs *args);
mq_jvalue mq__jinja_call_node(mq_jrun *run, mq_jframe *frame, const mq_jnode *node, const mq_jvalue *caller);
/* What getattr finds, without the fallback to items; false: nothing. */
bool mq__jinja_own_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, const mq_jmethod *methods, mq_jvalue *out);
mq_jvalue mq__jinja_get_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, const mq_jmethod *methods);
mq_jvalue mq__jinja_get_item(mq_jrun *run, mq_jvalue object, mq_jvalue key);
mq_jvalue mq__jinja_get_slice(mq_jrun *run, mq_jvalue object, const mq_jvalue bounds[3]);
mq_jvalue mq__jinja_binary(mq_jrun *run, mq_jop op, mq_jvalue a, mq_jvalue b);
mq_jvalue mq__jinja_unary(mq_jrun *run, mq_jop op, mq_jvalue a);
bool mq__jinja_relation(mq_jrun *run, mq_jop op, mq_jvalue a, mq_jvalue b);
bool mq__jinja_builtin_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, mq_jvalue *out);

void mq__jinja_exec(mq_jrun *run, const mq_jnodes *body);
mq_jvalue mq__jinja_call_macro(mq_jrun *run, const mq_jmacro *macro, const mq_jargs *args);
mq_jvalue mq__jinja_recurse_loop(mq_jrun *run, const mq_jloop *loop, mq_jvalue source);
mq_jvalue *mq__jframe_find(mq_jrun *run, mq_jframe *frame, uint32_t name); /* NULL: not bound */
void mq__jinja_enter(mq_jrun *run);
void mq__jinja_leave(mq_jrun *run);

/* loop.length and friends. */
bool mq__jloop_next(mq_jrun *run, mq_jloop *loop);
bool mq__jloop_attribute(mq_jrun *run, mq_jloop *loop, mq_jvalue name, mq_jvalue *out);
int64_t mq__jloop_length(mq_jrun *run, mq_jloop *loop);
bool mq__jloop_pull(mq_jrun *run, mq_jloop *loop, mq_jvalue *item); /* the next item that passes the loop's filter */

/* ---------------------------------------------------------------- parts of the library of filters and methods */

mq_jvalue mq__jinja_format_percent(mq_jrun *run, mq_jvalue format, mq_jvalue values);    /* format % values */
mq_jvalue mq__jinja_format_braces(mq_jrun *run, mq_jvalue format, const mq_jargs *args); /* format.format(...) */
mq_jvalue mq__jinja_tojson(mq_jrun *run, mq_jvalue self, const mq_jargs *args);
void mq__jtext_put_json_string(mq_jrun *run, mq_jtext *text, mq_jvalue string, bool ascii);
mq_jvalue mq__jvalue_from_json(mq_jrun *run, const json_t *json, unsigned depth); /* borrows its strings */
mq_jvalue mq__jvalue_replace(mq_jrun *run, mq_jvalue text, mq_jvalue from, mq_jvalue to, int64_t count);
mq_jvalue mq__jvalue_strip(mq_jrun *run, mq_jvalue text, mq_jvalue chars, bool left, bool right);
mq_jlist *mq__jvalue_split_lines(mq_jrun *run, mq_jvalue text, bool keep_ends);
mq_jvalue mq__jvalue_join_items(mq_jrun *run, mq_jvalue separator, mq_jvalue items, bool only_strings);
mq_jvalue mq__jvalue_fold(mq_jrun *run, mq_jvalue value); /* a string in lower case, anything else as it is */
void mq__jlist_sort(mq_jrun *run, mq_jvalue *items, mq_jvalue *keys, size_t count, bool reverse); /* stable */

#endif
