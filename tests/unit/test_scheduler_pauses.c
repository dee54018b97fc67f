/* The pauses of running answers while a prompt is read. */
#include "unit_client.h"

/* Events come on one thread: the most tokens of others between two passes of the client that reads. */
static struct {
    const client *reads;
    uint32_t tokens, most;
} between;

static void hear_between(void *context, const mq_event *event)
{
    const client *reads = between.reads;
    if (context == reads)
        between.tokens = 0;
    else if (event->kind == MQ_EVENT_TOKEN && reads->told > 1 && reads->report.prompt_done < LONG)
        between.tokens++;
    if (between.tokens > between.most) between.most = between.tokens;
    hear(context, event);
}

static void submit_between(mq_scheduler *s, client *c)
{
    const mq_request request = {
        .tokens = c->prompt, .count = c->count, .options = options_of(0, c->most), .event = hear_between, .context = c};
    assert_int_equal(mq_scheduler_submit(s, &request, &c->job, NULL), MQ_OK);
}

/* While a long prompt is read, answers go on, and not only between its passes. */
static void test_answers_go_on_beside_a_prompt(void **state)
{
    (void)state;
    mq_engine *engine = open_engine(4, 512);
    mq_scheduler *s = start(engine, &(mq_scheduler_options){.gap = 1.1, .draft = MQ_DRAFT_OFF});
    client *talks = new_client(60, 40), *reads = new_client(61, LONG);
    between.reads = reads;
    talks->most = 400;
    submit_between(s, talks);
    wait_answer(talks, 2);
    submit_between(s, reads);
    wait_read(reads, LONG - 1);
    finish(talks);
    finish(reads);
    assert_true(between.most >= 2);
    free(talks);
    free(reads);
    mq_scheduler_stop(s);
    mq_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_go_on_beside_a_prompt),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
