/* An answer that is taken apart: what answer.c shares with the readers of the call formats (tool_*.c). */
#ifndef MQ_ANSWER_H
#define MQ_ANSWER_H

#include "base/buf.h"
#include "mixquant_serve.h"
#include "text/json_scan.h"

#include <jansson.h>

typedef enum mq_answer_step {
    MQ_STEP_TAKEN, /* the byte belongs to the call */
    MQ_STEP_DONE,  /* and is its last one */
    MQ_STEP_BROKEN /* it does not belong to it: the byte is text */
} mq_answer_step;

/* How a format writes calls, and the reader of one call. A reader sees the bytes from behind the opening mark. It announces the
 * call by mq__answer_call, hands out its arguments, and ends it. Before the announcement answer.c keeps what the reader took
 * (`held`): it is text if the call turns out to be none. Afterwards `held` is the reader's own, for bytes that it holds back. */
typedef struct mq_tool_syntax {
    const char *open[2]; /* after any of these a call begins; NULL: none */
    const char *close;   /* dropped where it follows a call; NULL: none */
    bool bare;           /* a call may begin with '{', without a mark, where no text precedes it */
    mq_answer_step (*byte)(mq_answer *a, uint8_t byte);
} mq_tool_syntax;

const mq_tool_syntax *mq__tool_hermes(void);      /* tool_json.c */
const mq_tool_syntax *mq__tool_llama3(void);      /* tool_json.c */
const mq_tool_syntax *mq__tool_mistral(void);     /* tool_mistral.c */
const mq_tool_syntax *mq__tool_qwen3_coder(void); /* tool_qwen3_coder.c */
const mq_tool_syntax *mq__tool_gemma4(void);      /* tool_gemma4.c */

/* Where a reader is; zeroed when a call begins. */
typedef struct mq_tool_reader {
    uint8_t state;
    uint8_t outer;         /* state of a format whose calls may be objects; `state` is the object's then */
    uint8_t opened;        /* which of the syntax's opening marks it was */
    bool announced;        /* mq__answer_call was called */
    mq_json_scan scan;     /* of the arguments, or of a value that is skipped */
    mq_json_string string; /* of a name, or of arguments in a string */
    mq_utf8_check utf8;    /* of text that becomes a JSON string */
    uint8_t matched;       /* bytes of a mark */
    /* of objects */
    uint8_t member, string_state, spelled_bytes;
    char spelled[12]; /* the member's name, as far as it matters */
    bool given;       /* arguments began */
    bool complete;    /* and are complete */
    /* of calls that are no JSON */
    bool several;   /* another parameter came before */
    bool fresh;     /* nothing of the value came yet */
    uint8_t end;    /* how much of the value's end came */
    unsigned types; /* MQ_TYPE_* of the present parameter */
    uint16_t depth;
    uint64_t objects[MQ_SCAN_DEPTH / 64]; /* a bit a level, as in mq_json_scan */
} mq_tool_reader;

struct mq_answer {
    mq_answer_options options;    /* without `tools` */
    json_t *tools;                /* parsed; NULL: any name is a tool's */
    const json_t *parameters;     /* schema of the announced call's; NULL: unknown. Borrowed from tools */
    const mq_tool_syntax *syntax; /* NULL: calls are text */
    mq_tool_reader reader;
    mq_buf held;  /* bytes of what may be a mark or a call */
    mq_buf name;  /* of a call or a parameter */
    mq_buf value; /* of a parameter; of arguments that precede the name */
    /* answer.c's own */
    uint8_t place;
    bool plain;           /* all is text */
    bool starts[256];     /* bytes that a mark begins with */
    bool blank;           /* no text but white space since the start, the reasoning or the last call */
    bool fresh;           /* nothing of the reasoning came yet */
    bool after_reasoning; /* only line breaks since then */
    bool close_due;       /* the syntax's closing mark may follow */
    bool ended, failed;
    mq_buf space; /* white space that goes if a call, or the end of the reasoning, follows */
    mq_buf out;   /* text of the part that is collected */
    mq_part_kind out_kind;
    uint32_t begun, complete; /* calls */
};

/* ---- answer.c: what readers hand out. A lack of memory shows in answer->failed. */

/* Announces the call of the function answer->name. False: it is no tool of the request, or no name. */
bool mq__answer_call(mq_answer *answer);
void mq__answer_arguments(mq_answer *answer, const char *bytes, size_t count);
void mq__answer_call_end(mq_answer *answer);

/* ---- answer_tools.c: the request's tools, and values as JSON */

#define MQ_NAME_BYTES 256 /* a longer name is none */

mq_status mq__answer_read_tools(mq_answer *answer, const char *tools, size_t bytes, mq_error *error);
/* Finds answer->name, and the schema of its parameters. */
bool mq__answer_find_tool(mq_answer *answer);
/* MQ_TYPE_* that a parameter of the announced call may have. */
unsigned mq__answer_types(const mq_answer *answer, const char *parameter, size_t bytes);
/* A byte of text inside a JSON string; false where the text is no UTF-8 (reader.utf8). */
bool mq__answer_quote(mq_answer *answer, uint8_t byte);
/* Text as a JSON string with its quotes; false: no UTF-8, and some of it is handed out. */
bool mq__answer_string(mq_answer *answer, const char *text, size_t bytes);
/* A value that was written without a sign of its type: JSON if it is of one of the types, else a string. Of types that include
 * strings, only what no string was meant by is another type. Templates print Python's True, False and None. */
bool mq__answer_value(mq_answer *answer, const char *text, size_t bytes, unsigned types);

/* ---- tool_json.c: {"name": ..., "arguments": {...}}, from before its '{' */
mq_answer_step mq__call_object_byte(mq_answer *answer, uint8_t byte);

#endif
