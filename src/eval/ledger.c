#include "eval/ledger.h"

#include "base/error.h"
#include "base/mem.h"
#include "eval/names.h"
#include "eval/question.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define TOTAL_MAX 500 /* before the first step: with 40 steps of up to 9, totals have at most three digits */

/* Names that differ; the ring is shuffled already, since names are drawn. */
static void name_rows(mq_ledger *ledger, mq_eval_random *r)
{
    for (uint32_t i = 0; i < ledger->rows; i++) {
        bool again = true;
        while (again) {
            mq__eval_held_name(r, ledger->name[i]);
            again = false;
            for (uint32_t k = 0; k < i && !again; k++) {
                again = strcmp(ledger->name[k], ledger->name[i]) == 0;
            }
        }
    }
}

mq_status mq__ledger_make(mq_ledger *ledger, uint32_t rows, uint32_t steps, uint64_t seed, const char *name,
                          mq_error *error)
{
    mq_eval_random r = mq__eval_random(seed, name);
    *ledger = (mq_ledger){.name = mq__alloc_zero(rows, sizeof *ledger->name),
                          .number = mq__alloc_zero(rows, 1),
                          .place = mq__alloc_zero(rows, sizeof *ledger->place),
                          .rows = rows,
                          .steps = steps};
    if (!ledger->name || !ledger->number || !ledger->place) {
        mq__ledger_free(ledger);
        return mq__fail(error, MQ_NO_MEMORY, "eval: ledger: expected memory, got none");
    }
    ledger->total = mq__eval_random_below(&r, TOTAL_MAX);
    name_rows(ledger, &r);
    for (uint32_t i = 0; i < rows; i++) {
        const uint32_t k = mq__eval_random_below(&r, i + 1);
        ledger->number[i] = (uint8_t)(1 + mq__eval_random_below(&r, 9));
        ledger->place[i] = ledger->place[k];
        ledger->place[k] = i;
    }
    return MQ_OK;
}

void mq__ledger_free(mq_ledger *ledger)
{
    mq__free(ledger->name);
    mq__free(ledger->number);
    mq__free(ledger->place);
    *ledger = (mq_ledger){0};
}

static uint32_t total_after(const mq_ledger *ledger, uint32_t step)
{
    uint32_t total = ledger->total;
    for (uint32_t i = 0; i <= step; i++) {
        total += ledger->number[i];
    }
    return total;
}

static void put_row(const mq_ledger *ledger, uint32_t row, char text[96])
{
    snprintf(text, 96, "%s: %u, then %s.", ledger->name[row], ledger->number[row],
             ledger->name[(row + 1) % ledger->rows]);
}

void mq__ledger_line(const mq_ledger *ledger, uint32_t step, char line[128])
{
    char row[96];
    put_row(ledger, step, row);
    snprintf(line, 128, "%u. %s Total %u.", step + 1, row, total_after(ledger, step));
}

void mq__ledger_text(const mq_ledger *ledger, mq_buf *text)
{
    char line[128];
    mq__buf_puts(text, "Each row has a name, a number and the next name.\n");
    for (uint32_t i = 0; i < ledger->rows; i++) {
        put_row(ledger, ledger->place[i], line);
        mq__buf_puts(text, line);
        mq__buf_putc(text, '\n');
    }
    mq__ledger_line(ledger, 0, line);
    mq__buf_printf(text, "Start with a total of %u and follow %u rows, one a line, with the total so far:\n%s",
                   ledger->total, ledger->steps, line);
}

/* ---- scores */

const char *mq__ledger_part_name(mq_ledger_part part)
{
    static const char *const names[] = {"none", "count", "name", "number", "next", "total", "end"};
    return names[part];
}

/* Whether the text at *at begins with `part` and the number or word ends there; *at moves behind it. */
static bool takes(const char **at, const char *part)
{
    const size_t length = strlen(part);
    if (strncmp(*at, part, length) != 0) return false;
    const bool word = isalnum((unsigned char)part[length - 1]);
    if (word && isalnum((unsigned char)(*at)[length])) return false;
    *at += length;
    return true;
}

/* The first part in which a line is not the expected one. */
static mq_ledger_part wrong_part_of_line(const mq_ledger *ledger, uint32_t step, const char *line)
{
    char count[16], number[16], total[16];
    snprintf(count, sizeof count, "%u", step + 1);
    snprintf(number, sizeof number, "%u", ledger->number[step]);
    snprintf(total, sizeof total, "%u", total_after(ledger, step));
    const struct {
        const char *text;
        mq_ledger_part part;
    } parts[] = {{count, MQ_LEDGER_COUNT},
                 {". ", MQ_LEDGER_COUNT},
                 {ledger->name[step], MQ_LEDGER_NAME},
                 {": ", MQ_LEDGER_NAME},
                 {number, MQ_LEDGER_NUMBER},
                 {", then ", MQ_LEDGER_NUMBER},
                 {ledger->name[(step + 1) % ledger->rows], MQ_LEDGER_NEXT},
                 {". Total ", MQ_LEDGER_NEXT},
                 {total, MQ_LEDGER_TOTAL}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!takes(&line, parts[i].text)) return parts[i].part;
    }
    line += *line == '.';
    return line[strspn(line, " \t\r")] == '\0' || line[strspn(line, " \t\r")] == '\n' ? MQ_LEDGER_NONE
                                                                                      : MQ_LEDGER_TOTAL;
}

mq_ledger_score mq__ledger_score(const mq_ledger *ledger, const char *answer)
{
    double number = 0;
    mq_ledger_score score = {.part = MQ_LEDGER_NONE};
    score.last = mq__final_number(answer, &number) && number == total_after(ledger, ledger->steps - 1);
    const char *at = answer;
    while (score.part == MQ_LEDGER_NONE && score.right < ledger->steps) {
        at += strspn(at, " \t\r\n");
        score.part = *at ? wrong_part_of_line(ledger, score.right, at) : MQ_LEDGER_END;
        score.right += score.part == MQ_LEDGER_NONE;
        at += strcspn(at, "\n");
    }
    if (score.part == MQ_LEDGER_NONE && at[strspn(at, " \t\r\n")]) score.part = MQ_LEDGER_END;
    return score;
}
