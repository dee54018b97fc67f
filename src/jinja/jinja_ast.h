/* The parsed template: a tree of nodes in the program's arena. */
#ifndef MQ_FORMAT_JINJA_AST_H
#define MQ_FORMAT_JINJA_AST_H

#include "jinja/jinja.h"
#include "jinja/jinja_value.h"

struct mq_jfilter;
struct mq_jtest;
struct mq_jmethod;

typedef enum mq_jnode_kind {
    /* expressions */
    MQ_JN_CONST,    /* value */
    MQ_JN_NAME,     /* name */
    MQ_JN_TUPLE,    /* items */
    MQ_JN_LIST,     /* items */
    MQ_JN_DICT,     /* items: key, value, key, value ... */
    MQ_JN_UNARY,    /* op, a */
    MQ_JN_BINARY,   /* op, a, b */
    MQ_JN_CONCAT,   /* items */
    MQ_JN_AND,      /* a, b */
    MQ_JN_OR,       /* a, b */
    MQ_JN_NOT,      /* a */
    MQ_JN_COMPARE,  /* a, items (right sides), ops */
    MQ_JN_COND,     /* a if b else c (c may be NULL) */
    MQ_JN_ATTR,     /* a . value (a string); method when a method has that name */
    MQ_JN_ITEM,     /* a [ b ] */
    MQ_JN_SLICE,    /* a : b : c inside an item, each may be NULL */
    MQ_JN_CALL,     /* a ( arguments ) */
    MQ_JN_FILTER,   /* a | filter ( arguments ); value: its name, filter NULL when there is none of that name */
    MQ_JN_TEST,     /* a is test ( arguments ); op 1 when negated; value and test as for a filter */
    MQ_JN_CAPTURED, /* the text of the block that a filter block or block set has captured */
    /* statements */
    MQ_JN_DATA,         /* value */
    MQ_JN_PRINT,        /* a */
    MQ_JN_IF,           /* a, body, otherwise (an elif is an IF inside) */
    MQ_JN_FOR,          /* target a in b if c, body, otherwise; op 1 when recursive; name: of `loop` */
    MQ_JN_SET,          /* target a = b */
    MQ_JN_SET_BLOCK,    /* target a, filter b or NULL, body */
    MQ_JN_NSREF,        /* target: name . value */
    MQ_JN_MACRO,        /* name, items (parameter names), defaults in others, body; op: MQ_J_USES_* */
    MQ_JN_CALL_BLOCK,   /* a (the call), b (a MACRO node that is the caller) */
    MQ_JN_FILTER_BLOCK, /* b, body */
    MQ_JN_WITH,         /* items (targets), others (values), body */
    MQ_JN_SCOPE,        /* body: a generation block */
    MQ_JN_BREAK,
    MQ_JN_CONTINUE
} mq_jnode_kind;

enum { MQ_J_USES_CALLER = 1, MQ_J_USES_VARARGS = 2, MQ_J_USES_KWARGS = 4 };

typedef enum mq_jop {
    MQ_J_ADD,
    MQ_J_SUB,
    MQ_J_MUL,
    MQ_J_DIV,
    MQ_J_FLOORDIV,
    MQ_J_MOD,
    MQ_J_POW,
    MQ_J_NEG,
    MQ_J_POS,
    MQ_J_EQ,
    MQ_J_NE,
    MQ_J_LT,
    MQ_J_LE,
    MQ_J_GT,
    MQ_J_GE,
    MQ_J_IN,
    MQ_J_NOT_IN
} mq_jop;

typedef struct mq_jnode mq_jnode;

typedef struct mq_jnodes {
    mq_jnode **at;
    uint32_t count;
} mq_jnodes;

/* The arguments of a call, a filter or a test. */
typedef struct mq_jcall {
    mq_jnodes positional, named;
    mq_jvalue *names;           /* [named.count] strings */
    mq_jnode *star, *star_star; /* *args and **kwargs, or NULL */
} mq_jcall;

struct mq_jnode {
    uint8_t kind, op; /* mq_jnode_kind, mq_jop */
    uint32_t line;
    uint32_t name; /* number of an identifier in mq_jinja.names */
    uint8_t *ops;  /* COMPARE: [items.count] */
    mq_jvalue value;
    mq_jnode *a, *b, *c;
    mq_jnodes items, others, body, otherwise;
    union {
        const mq_jcall *call;
        const struct mq_jmethod *method; /* ATTR */
    };
    const struct mq_jfilter *filter;
    const struct mq_jtest *test;
};

struct mq_jinja {
    mq_arena arena; /* owns everything below */
    char *source;   /* with its line ends normalised */
    size_t source_bytes;
    mq_jvalue *names; /* [name_count] the identifiers, each once */
    size_t name_count;
    mq_jnodes body;
};

#endif
