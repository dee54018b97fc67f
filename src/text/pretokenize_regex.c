#include "text/pretokenize_regex.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "text/pretokenize_translate.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_PATTERN_BYTES ((size_t)64 << 10)
#define HEAP_LIMIT_KIB    (64 << 10)
#define DEPTH_LIMIT       100000
#define STACK_BYTES       ((size_t)8 << 20)

struct mq_regex {
    pcre2_code *code;
};

static void *pcre_alloc(size_t bytes, void *unused)
{
    (void)unused;
    return mq__alloc(bytes);
}

static void pcre_free(void *block, void *unused)
{
    (void)unused;
    mq__free(block);
}

/* ---------------------------------------------------------------- compiling */

static mq_status compile_pretokenize_regex(const mq_buf *text, mq_regex *regex, mq_error *error)
{
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    PCRE2_SIZE at = 0;
    mq_status status = MQ_NO_MEMORY;
    pcre2_compile_context *context = NULL;
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (general) context = pcre2_compile_context_create(general);
    if (!context) {
        mq__fail(error, MQ_NO_MEMORY, "regex: expected memory, got none");
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
    regex->code = pcre2_compile((PCRE2_SPTR)text->data, text->len, options, &code, &at, context);
    if (!regex->code && code == PCRE2_ERROR_HEAP_FAILED) {
        mq__fail(error, MQ_NO_MEMORY, "regex: expected memory, got none");
        goto out;
    }
    if (!regex->code) {
        char why[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        status = mq__fail(error, MQ_FORMAT, "regex: byte %zu after translation: expected a regular expression, got: %s",
                          (size_t)at, why);
        goto out;
    }
    (void)pcre2_jit_compile(regex->code,
                            PCRE2_JIT_COMPLETE); /* without it the interpreter runs, under the same limits */
    status = MQ_OK;
out:
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    return status;
}

mq_status mq__regex_compile(const char *pattern, size_t bytes, mq_regex **out, mq_error *error)
{
    *out = NULL;
    if (bytes > MAX_PATTERN_BYTES) {
        return mq__fail(error, MQ_LIMIT, "regex: expected at most %zu bytes, got %zu", MAX_PATTERN_BYTES, bytes);
    }
    mq_buf text = {0};
    mq_regex *regex = mq__alloc_zero(1, sizeof *regex);
    mq_status status = regex && mq__buf_reserve(&text, bytes)
                           ? mq__regex_translate(pattern, bytes, &text, error)
                           : mq__fail(error, MQ_NO_MEMORY, "regex: expected memory, got none");
    if (status == MQ_OK) status = compile_pretokenize_regex(&text, regex, error);
    mq__buf_free(&text);
    if (status != MQ_OK) {
        mq__regex_free(regex);
        return status;
    }
    *out = regex;
    return MQ_OK;
}

void mq__regex_free(mq_regex *regex)
{
    if (!regex) return;
    pcre2_code_free(regex->code);
    mq__free(regex);
}

/* ---------------------------------------------------------------- matching */

void mq__regex_work_allow(mq_regex_work *work, size_t bytes)
{
    work->budget += 64 * (uint64_t)bytes;
}

void mq__regex_work_free(mq_regex_work *work)
{
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->context);
    pcre2_jit_stack_free(work->stack);
    *work = (mq_regex_work){0};
}

static bool work_begin(mq_regex_work *work)
{
    if (work->ready) return true;
    mq__regex_work_free(&(mq_regex_work){.match = work->match, .context = work->context, .stack = work->stack});
    work->match = work->context = work->stack = NULL;
    uint32_t jit = 0;
    (void)pcre2_config(PCRE2_CONFIG_JIT, &jit);
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (!general) return false;
    work->match = pcre2_match_data_create(1, general);
    work->context = pcre2_match_context_create(general);
    if (work->match && work->context && jit)
        work->stack = pcre2_jit_stack_create((size_t)32 << 10, STACK_BYTES, general);
    pcre2_general_context_free(general);
    if (!work->match || !work->context || (jit && !work->stack)) return false;
    pcre2_set_heap_limit(work->context, HEAP_LIMIT_KIB);
    pcre2_set_depth_limit(work->context, DEPTH_LIMIT);
    if (work->stack) pcre2_jit_stack_assign(work->context, NULL, work->stack);
    work->ready = true;
    return true;
}

/* PCRE2 does not tell how many steps a match took, so a match is tried with a small limit first and charged, when that
 * is not enough, before it is tried with the next one. A match within the first limit is free: its cost is constant. */
#define FIRST_LIMIT 512u

mq_status mq__regex_find(const mq_regex *regex, mq_regex_work *work, const char *text, size_t bytes, size_t from,
                         mq_regex_match *match, mq_error *error)
{
    *match = (mq_regex_match){0};
    if (!work_begin(work)) return mq__fail(error, MQ_NO_MEMORY, "regex: expected memory to match, got none");
    int code;
    for (uint32_t limit = FIRST_LIMIT;; limit *= 8) {
        pcre2_set_match_limit(work->context, limit);
        code = pcre2_match(regex->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, work->match, work->context);
        if (code != PCRE2_ERROR_MATCHLIMIT || limit > UINT32_MAX / 8) break;
        if (work->budget < limit) break;
        work->budget -= limit;
    }
    if (code >= 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(work->match);
        *match = (mq_regex_match){at[0], at[1], true};
        /* \K could put the start behind the end or before `from` */
        if (at[0] < from || at[1] < at[0] || at[1] > bytes) *match = (mq_regex_match){bytes, bytes, false};
        return MQ_OK;
    }
    switch (code) {
    case PCRE2_ERROR_NOMATCH:
        return MQ_OK;
    case PCRE2_ERROR_NOMEMORY:
        return mq__fail(error, MQ_NO_MEMORY, "regex: expected memory to match, got none");
    default:
        return mq__fail(error, MQ_LIMIT, "regex: byte %zu: expected a match within its limits, got PCRE2 error %d",
                        from, code);
    }
}
