/* The rule by which a decode worker hands a prompt off:
 *
 * - With `least`: from so many wanted tokens on, whatever was measured.
 * - As long as one side's speed is not measured: from 256 wanted tokens on, or if the peer has them all.
 * - Else: where reading it here would take 20 ms or more, and the peer is no slower than 1.25 times that; 2 times while answers run
 *   here, which reading would slow.
 *
 * Here it takes all tokens that wait here and the wanted ones, at this engine's speed. There it takes what waits there and what the peer
 * must compute (it may have less cached than this engine has), at its speed; at least what the bytes take on the link; and a
 * round trip. A worker that has not measured its own speed takes itself for as fast as its peer.
 *
 * Under way, when KV is computed sooner than it comes, the link's speed is seen: where the rest takes a second more than twice as long
 * as reading it here, it is read here. */
#include "handoff/pays.h"

#include <math.h>

#define FIRST_LEAST 256   /* tokens, before anything is measured */
#define LOCAL_LEAST 20e-3 /* seconds */
#define SLOWER      1.25
#define SLOWER_BUSY 2.0   /* while answers run here */
#define SLOWER_LATE 2.0   /* under way, and */
#define SPARE_S     1.0   /* seconds more */
#define RATE_GUESS  200.0 /* tokens a second of a worker that has measured nothing */
#define RATE_TOKENS 512   /* that make a measurement */

mq_pays_times mq__pays_times(const mq_pays_facts *f)
{
    const double peer_rate = f->peer_rate > 0 ? f->peer_rate : RATE_GUESS, rate = f->rate > 0 ? f->rate : peer_rate;
    const double computing = f->computes / peer_rate, moving = f->link_rate > 0 ? (double)f->bytes / f->link_rate : 0;
    return (mq_pays_times){.local = ((double)f->unread + f->wanted) / rate,
                           .remote = (double)f->peer_unread / peer_rate + fmax(computing, moving) + f->round_trip};
}

bool mq__pays(const mq_pays_facts *f)
{
    if (f->least > 0) return f->wanted >= f->least;
    const bool peer_measured = f->peer_rate > 0 || f->computes == 0;
    const bool measured = peer_measured && (f->rate > 0 || (f->link_rate > 0 && f->peer_rate > 0));
    if (!measured) return f->wanted >= FIRST_LEAST || f->computes == 0;
    const mq_pays_times t = mq__pays_times(f);
    return t.local >= LOCAL_LEAST && t.remote <= t.local * (f->answers ? SLOWER_BUSY : SLOWER);
}

bool mq__pays_still(const mq_pays_facts *f)
{
    const mq_pays_times t = mq__pays_times(f);
    return f->least > 0 || t.remote <= t.local * SLOWER_LATE + SPARE_S;
}

double mq__prompt_rate(const mq_scheduler_stats *stats)
{
    if (stats->prompt_tokens < RATE_TOKENS || !(stats->prompt_s > 0)) return 0;
    return (double)stats->prompt_tokens / stats->prompt_s;
}
