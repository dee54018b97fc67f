/* Numbers are read and printed as C, JSON and Python write them, whatever locale the host program has set: a thread is
 * in the C locale between enter and leave. Its neighbours keep theirs. */
#ifndef MQ_BASE_C_LOCALE_H
#define MQ_BASE_C_LOCALE_H

#include <locale.h>
#include <stdbool.h>

typedef struct mq_c_locale {
    locale_t numbers, before;
} mq_c_locale;

/* False when memory is short: nothing has changed then. */
static inline bool mq__c_locale_enter(mq_c_locale *scope)
{
    scope->numbers = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (scope->numbers) scope->before = uselocale(scope->numbers);
    return scope->numbers != (locale_t)0;
}

static inline void mq__c_locale_leave(mq_c_locale *scope)
{
    if (!scope->numbers) return;
    uselocale(scope->before);
    freelocale(scope->numbers);
    scope->numbers = (locale_t)0;
}

#endif
