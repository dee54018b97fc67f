/* What decode (D) and prefill (P) workers say to each other over a link. All numbers are little-endian.
 *
 * A message is a head of 112 bytes and a body:
 *
 *      0   "MQH1"                      the version is part of the magic
 *      4   u16     kind (mq_frame_kind)
 *      6   u16     zero
 *      8   u64     request: number of the hand-off, by D; 0: the connection's own
 *     16   u64     epoch of the hand-off, by D, of each PREFILL a later one: what comes late for an earlier hand-off is dropped
 *     24   u64     sequence: 0, 1, ... of the messages of this direction; anything else is a replay, or a loss
 *     32   u64     bytes of the body
 *     40   u8[16]  tag
 *     56   u8[48]  the kind's own, below; bytes that it does not name are zero
 *    104   u8[8]   zero
 *
 * The tag is the XXH3-128 of the head's other 96 bytes and the XXH3-128 of the body, one after the other; of a KV message of the 96
 * bytes alone (a chunk's head has the hash of its payload). With a shared key it is BLAKE2b-128, keyed, of the 96 bytes and the
 * body; of a KV message the Poly1305 of the body, under the keyed BLAKE2b-256 of the 96 bytes. The key of a direction is BLAKE2b-256, keyed with the shared key, of "mixquant hand-off", the direction
 * ('D': what D sends, or 'P'), D's nonce and P's nonce. HELLO, its answer and REFUSE use the shared key itself, which is the
 * BLAKE2b-256 of the key file.
 *
 * A connection:   D: HELLO (its fingerprint, a nonce)             P: HELLO (its own), or REFUSE (a text) and the end
 * A hand-off:     D: PREFILL (all tokens of the prompt; KV of positions [first, count) is wanted, count: tokens - 1)
 *                 P: ACCEPT (what it has cached, what waits before it, its speed), or FAIL
 *                 P: BEGIN (KV image header of the range), then KV chunks in any order, while it computes, those of states at the end
 *                 P: STATE, each half second while it waits or computes, and once when it has computed all
 *                 P: COMMIT (digest of the token ids, number of chunks) after the last chunk, or FAIL (a text)
 *                 D: DONE (it has all), or CANCEL at any time: P stops within a chunk and lets go of the blocks
 * Whatever breaks a rule ends the connection; hand-offs on it have failed.
 *
 *     kind        own                                                             body
 *     HELLO        0 u16 MQ_PROTOCOL_VERSION     2 u16 'D' or 'P'                 u8[16] each: fingerprints of the weights, the plan,
 *                  8 u8[16] instance            24 u8[16] nonce                   the tokenizer, the rotary frequencies, the KV
 *                                                                                 layout; then the nonce that it answers (D: zero)
 *     REFUSE                                                                      a text
 *     PREFILL      0 u32 first                   4 u32 count                      i32[count + 1] token ids, then the lease's text
 *                  8 u64 owner                  16 u32 milliseconds that D waits
 *                 20 u32 bytes of the lease
 *     ACCEPT       0 u32 cached                  8 u64 tokens that wait before it
 *                 16 u64 prompt tokens in 1000 seconds; 0: nothing was measured
 *     BEGIN        0 u32 ready: tokens that need not be computed                  header of a KV image (format/kvimage.h)
 *     KV           the chunk's head (format/kvimage.h)                            its payload
 *     STATE        0 u32 computed                8 u64 tokens that wait before it
 *     COMMIT       0 u8[16] XXH3-128 of i32[count + 1]   16 u64 chunks
 *     FAIL         0 u32 mq_handoff_fault                                         a text
 *     DONE, CANCEL */
#ifndef MQ_PROTOCOL_H
#define MQ_PROTOCOL_H

#include "engine/fingerprint.h"
#include "link/link.h"

#define MQ_PROTOCOL_VERSION 2
#define MQ_PROTOCOL_TAG     16
#define MQ_PROTOCOL_NONCE   16
#define MQ_FRAME_OWN        48  /* bytes of a head that are the kind's own */
#define MQ_FRAME_TEXT       400 /* bytes of a text at most */
#define MQ_FRAME_LEASE      64  /* and of a lease's name */
#define MQ_FRAME_HANDOFFS   256 /* of a connection, at once; D keeps to it */

typedef enum mq_frame_kind {
    MQ_FRAME_HELLO = 1,
    MQ_FRAME_REFUSE,
    MQ_FRAME_PREFILL,
    MQ_FRAME_ACCEPT,
    MQ_FRAME_BEGIN,
    MQ_FRAME_KV,
    MQ_FRAME_STATE,
    MQ_FRAME_COMMIT,
    MQ_FRAME_FAIL,
    MQ_FRAME_DONE,
    MQ_FRAME_CANCEL,
    MQ_FRAME_KINDS
} mq_frame_kind;

/* Why P does not do it. */
typedef enum mq_handoff_fault {
    MQ_FAULT_BUSY = 1, /* too much waits already: another one may do it */
    MQ_FAULT_REFUSED,  /* what was asked for cannot be */
    MQ_FAULT_FAILED,   /* computing it failed */
    MQ_FAULT_LATE,     /* the time is up */
    MQ_FAULT_STOPPING,
    MQ_FAULTS
} mq_handoff_fault;

#endif
