/* What decode (D) and prefill (P) workers say to each other over a link. All numbers are little-endian.
 *
 * A message is a head of 112 bytes and a body:
 *
 *      0   "MQH1"                      the version is part of the magic
 *      4   u16     kind (mq_frame_kind)
 *      6   u16     zero
 *      8   u64     request: number of the hand-off, by D; 0: the connection's own
 *     16   u64     epoch of the hand-off, by D, never used twice on a connection: what comes late for an earlier one is dropped
 *     24   u64     sequence: 0, 1, ... of the messages of this direction; anything else is a replay, or a loss
 *     32   u64     bytes of the body
 *     40   u8[16]  tag
 *     56   u8[48]  the kind's own: a KV chunk's head (format/kvimage.h), or numbers
 *    104   u8[8]   zero
 *
 * The tag is the XXH3-128 of the head without it, and of the body unless the kind is KV (a chunk's head has the hash of its payload).
 * With a shared key it is BLAKE2b-128, keyed, of the head without it and the body, of every kind; the key of a direction is
 * BLAKE2b-256 of the shared key over "mixquant hand-off", the direction ('D' or 'P'), and both nonces. HELLO and its answer use
 * the shared key itself.
 *
 * A connection:   D: HELLO (its fingerprint, a nonce)             P: HELLO (its own), or REFUSE (a text) and the end
 * A hand-off:     D: PREFILL (all tokens of the prompt; KV of positions [first, count) is wanted, count: tokens - 1)
 *                 P: ACCEPT (what it has cached, what waits before it, its speed), or FAIL
 *                 P: BEGIN (KV image header of the range), then KV chunks in any order, while it computes
 *                 P: STATE, each half second while it waits or computes
 *                 P: COMMIT (digest of the token ids, number of chunks) after the last chunk, or FAIL (a text)
 *                 D: DONE (it has all), or CANCEL at any time: P stops within a chunk and lets go of the blocks
 * Whatever breaks a rule ends the connection; hand-offs on it have failed. */
#ifndef MQ_PROTOCOL_H
#define MQ_PROTOCOL_H

#include "engine/fingerprint.h"
#include "link/link.h"

#define MQ_FRAME_OWN      48 /* bytes of a head that are the kind's own */
#define MQ_PROTOCOL_TAG   16
#define MQ_PROTOCOL_NONCE 16

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

#endif
