/* Values of a template at run time, and what Python does with them.
 *
 * A value is 16 bytes and is copied freely; what it points to lives in the arenas of the run (or, for text, in the
 * parsed template or the request, which outlive the run) and is never freed singly. Lists, dicts and text do not change
 * once they are reachable from a template, except by list.pop and list.clear, and for namespaces, cyclers and the
 * position of a generator.
 *
 * Errors unwind by longjmp to the one entry of the run: everything between is owned by the arenas. */
#ifndef MQ_FORMAT_JINJA_VALUE_H
#define MQ_FORMAT_JINJA_VALUE_H

#include "base/arena.h"
#include "base/buf.h"
#include "mixquant.h"

#include <setjmp.h>

typedef enum mq_jtype {
    MQ_J_MISSING, /* no value at all: an argument that was not given, a name without a binding */
    MQ_J_UNDEFINED,
    MQ_J_NONE,
    MQ_J_BOOL,
    MQ_J_INT,
    MQ_J_BIG, /* an integer beyond 64 bits: as.text has its digits */
    MQ_J_FLOAT,
    MQ_J_STRING,
    MQ_J_LIST, /* every kind of mq_jlist */
    MQ_J_DICT,
    MQ_J_NAMESPACE, /* as.dict holds its attributes */
    MQ_J_LOOP,
    MQ_J_MACRO,
    MQ_J_FUNCTION,
    MQ_J_METHOD,
    MQ_J_CYCLER,
    MQ_J_JOINER,
    MQ_J_TYPES
} mq_jtype;

enum {
    MQ_J_MARKUP = 1, /* flag of a string: markupsafe's Markup, made by `safe` and `escape` */
    /* flags of an undefined value: what its text means */
    MQ_J_HINT_NAME = 0,     /* the name of a variable */
    MQ_J_HINT_MESSAGE = 1,  /* the whole message */
    MQ_J_HINT_ATTRIBUTE = 2 /* the name of an attribute of an object of type flags - MQ_J_HINT_ATTRIBUTE */
};

typedef struct mq_jlist mq_jlist;
typedef struct mq_jdict mq_jdict;
struct mq_jloop;
struct mq_jmacro;
struct mq_jmethod_bound;
struct mq_jcycler;
struct mq_jfunction;

typedef struct mq_jvalue {
    uint8_t type; /* mq_jtype */
    uint8_t flags;
    uint32_t bytes; /* of text */
    union {
        bool boolean;
        int64_t integer;
        double real;
        const char *text; /* UTF-8, not NUL-terminated */
        mq_jlist *list;
        mq_jdict *dict;
        struct mq_jloop *loop;
        struct mq_jmacro *macro;
        const struct mq_jfunction *function;
        struct mq_jmethod_bound *method;
        struct mq_jcycler *cycler; /* of a joiner as well */
    } as;
} mq_jvalue;

typedef enum mq_jlist_kind {
    MQ_J_PLAIN, /* Python's list */
    MQ_J_TUPLE,
    MQ_J_RANGE,     /* items are computed: start + i * step */
    MQ_J_GENERATOR, /* read once: `next` moves */
    MQ_J_KEYS,      /* dict views */
    MQ_J_VALUES,
    MQ_J_ITEMS
} mq_jlist_kind;

struct mq_jlist {
    mq_jvalue *items; /* [count]; unused for a range */
    size_t count, capacity;
    size_t next;               /* generator: items before it were read */
    int64_t start, stop, step; /* range; stop as it was given */
    mq_jlist_kind kind;
    bool group; /* a tuple of groupby: it has the attributes grouper and list */
};

typedef struct mq_jentry {
    mq_jvalue key, value;
} mq_jentry;

struct mq_jdict {
    mq_jentry *entries; /* [count], in order of insertion */
    size_t count, capacity;
    uint32_t *index; /* [slots] entry number + 1 by hash; NULL while the dict is small */
    size_t slots;    /* a power of two */
};

typedef struct mq_jcycler {
    const mq_jvalue *items; /* a joiner has one: its separator */
    size_t count, position;
} mq_jcycler;

/* Where an error of the parser or of a run lands. First member of both. */
typedef struct mq_jtrap {
    jmp_buf target;
    mq_error *error;
    mq_status status;
    uint32_t line; /* of the template, for the text of an error */
} mq_jtrap;

_Noreturn void mq__jtrap_throw(mq_jtrap *trap, mq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void mq__jtrap_throw_memory(mq_jtrap *trap, const mq_arena *arena);

typedef struct mq_jrun mq_jrun; /* jinja_run.h */

/* ---------------------------------------------------------------- making values */

static inline mq_jvalue mq__jvalue_none(void)
{
    return (mq_jvalue){.type = MQ_J_NONE};
}

static inline mq_jvalue mq__jvalue_bool(bool value)
{
    return (mq_jvalue){.type = MQ_J_BOOL, .as.boolean = value};
}

static inline mq_jvalue mq__jvalue_int(int64_t value)
{
    return (mq_jvalue){.type = MQ_J_INT, .as.integer = value};
}

static inline mq_jvalue mq__jvalue_real(double value)
{
    return (mq_jvalue){.type = MQ_J_FLOAT, .as.real = value};
}

/* Borrows text that outlives the run; the caller knows that bytes fits 32 bits (all text is bounded far below). */
static inline mq_jvalue mq__jvalue_text(const char *text, size_t bytes)
{
    return (mq_jvalue){.type = MQ_J_STRING, .bytes = (uint32_t)bytes, .as.text = text};
}

mq_jvalue mq__jvalue_literal(const char *text); /* of a C string constant */
mq_jvalue mq__jvalue_undefined(uint8_t hint, const char *text, size_t bytes);
static inline mq_jvalue mq__jvalue_list(mq_jlist *list)
{
    return (mq_jvalue){.type = MQ_J_LIST, .as.list = list};
}

static inline mq_jvalue mq__jvalue_dict(mq_jdict *dict)
{
    return (mq_jvalue){.type = MQ_J_DICT, .as.dict = dict};
}

mq_jlist *mq__jlist_new(mq_jrun *run, mq_jlist_kind kind, size_t capacity);
void mq__jlist_push(mq_jrun *run, mq_jlist *list, mq_jvalue value);
mq_jvalue mq__jlist_at(const mq_jlist *list, size_t i);            /* i < count */
mq_jvalue mq__jvalue_pair(mq_jrun *run, mq_jvalue a, mq_jvalue b); /* a tuple of two */

mq_jdict *mq__jdict_new(mq_jrun *run, size_t capacity);
/* NULL when absent. A key that Python cannot hash is an error in put, and absent in get. */
mq_jvalue *mq__jdict_get(mq_jrun *run, const mq_jdict *dict, mq_jvalue key);
void mq__jdict_put(mq_jrun *run, mq_jdict *dict, mq_jvalue key, mq_jvalue value);
void mq__jdict_append(mq_jrun *run, mq_jdict *dict, mq_jvalue key, mq_jvalue value); /* the key is known to be new */
bool mq__jvalue_hash(mq_jvalue value, unsigned depth, uint64_t *hash);               /* false: unhashable */

/* ---------------------------------------------------------------- integers beyond 64 bits */

/* Borrows decimal digits without leading zeros, after a minus sign or none. */
mq_jvalue mq__jvalue_big(const char *digits, size_t bytes);
bool mq__jbig_is_text(const char *text, size_t bytes);    /* spelled as mq__jvalue_big wants it */
mq_jvalue mq__jbig_from_real(mq_jrun *run, double value); /* the whole part of a finite number beyond 64 bits */
double mq__jbig_to_real(mq_jvalue value);                 /* infinite when it is too large */
mq_jvalue mq__jbig_negate(mq_jrun *run, mq_jvalue value); /* also of the least integer of 64 bits */
int mq__jbig_compare(mq_jvalue a, mq_jvalue b);           /* two numbers, one of them big: -1, 0, 1; 2 for NaN */

/* ---------------------------------------------------------------- asking values */

const char *mq__jvalue_type_name(mq_jvalue value); /* as Python names it */
bool mq__jvalue_truth(mq_jvalue value);
bool mq__jvalue_is_number(mq_jvalue value); /* bool, int or float */
bool mq__jvalue_equal(mq_jrun *run, mq_jvalue a, mq_jvalue b);
bool mq__jvalue_is_text(mq_jvalue value, const char *text); /* a string equal to the C string */
int mq__jvalue_compare(mq_jrun *run, mq_jvalue a, mq_jvalue b, const char *operation); /* -1, 0, 1; 2 for NaN */
bool mq__jvalue_contains(mq_jrun *run, mq_jvalue container, mq_jvalue item);
bool mq__jvalue_length(mq_jvalue value, size_t *length);                     /* false: it has none */
int64_t mq__jvalue_integer(mq_jrun *run, mq_jvalue value, const char *what); /* an int or bool, else an error */
double mq__jvalue_number(mq_jvalue value);                                   /* of a number */
_Noreturn void mq__jvalue_fail_undefined(mq_jrun *run, mq_jvalue value);

typedef struct mq_jiter {
    mq_jvalue source;
    size_t position; /* item, entry or byte */
} mq_jiter;

bool mq__jiter_open(mq_jiter *iter, mq_jvalue source); /* false: not iterable */
void mq__jiter_need(mq_jrun *run, mq_jiter *iter, mq_jvalue source);
bool mq__jiter_next(mq_jrun *run, mq_jiter *iter, mq_jvalue *item);
mq_jlist *mq__jvalue_to_list(mq_jrun *run, mq_jvalue source,
                             mq_jlist_kind kind); /* a new list; an error if not iterable */

#endif
