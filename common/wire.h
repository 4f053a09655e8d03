/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames of the mirror link: the fixed header and the payloads that have a structure.  Pure
 * codec: no I/O, no state, any thread.  Every decoder takes (buffer, length), reads nothing
 * beyond it, and trusts nothing in it; what it accepts satisfies the rules stated here.
 *
 * Order of the stream: HELLO from production, HELLO_OK or REFUSE from the copy, then
 * production's operations with sequence numbers 1, 2, 3 ... and the copy's cumulative ACKs.
 */
#ifndef CRG_WIRE_H
#define CRG_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

#define WIRE_MAGIC      UINT32_C (0x4c475243) /* "CRGL" */
#define WIRE_VERSION    1                     /* of the header's layout */
#define WIRE_HEADER_LEN 64

/* Versions of the protocol, negotiated by HELLO: the highest that both sides speak. */
#define WIRE_PROTO_MIN 1
#define WIRE_PROTO_MAX 1

enum wire_type {
  WIRE_HELLO = 1,    /* production -> copy; payload: wire_hello */
  WIRE_HELLO_OK,     /* copy -> production; payload: wire_hello_ok */
  WIRE_REFUSE,       /* either way, then the sender closes; payload: wire_refuse */
  WIRE_WRITE,        /* payload: the data; length == payload_len */
  WIRE_ZERO,         /* length bytes read as zeroes afterwards; MAY_TRIM allows a hole */
  WIRE_TRIM,         /* length bytes read as zeroes afterwards, space given back if possible */
  WIRE_FLUSH,        /* acknowledged when all earlier operations are stable */
  WIRE_ACK,          /* copy -> production: every operation up to and with seq is done */
  WIRE_ERROR,        /* copy -> production: operation seq failed; payload: wire_failure */
  WIRE_PING,         /* either way; the other answers at once ... */
  WIRE_PONG,         /* ... with the same seq */
  WIRE_ENTER,        /* R3: flush, write the superblock, then ACK; payload: wire_record */
  WIRE_RESYNC_WRITE, /* as WRITE, by the resynchronisation */
  WIRE_RESYNC_ZERO,  /* as ZERO, by the resynchronisation */
  WIRE_RECORD,       /* the committed record, stored lazily (R2); payload: wire_record */
  WIRE_DIGEST_REQ,   /* digests of [offset, offset + length), please, of what is on the store now: it
                      * is no operation, and waits for none; payload: wire_digest_req */
  WIRE_DIGEST,       /* copy -> production, same seq, offset, length; payload: n x WIRE_DIGEST_LEN
                      * bytes; FAILED: none, the store can't read it */
  WIRE_BYE,          /* graceful end: nothing more will be sent */
  WIRE_MAP,          /* a piece of a map of blocks that may differ; payload: WIRE_MAP_BYTES of bits,
                      * the first for the block at offset; ALL: all that a piece can name, no
                      * payload.  From the copy, seq 0, after HELLO_OK: blocks in which it may
                      * differ from production; END, without payload, is the last.  From
                      * production, an operation: blocks that the one site in 'missing' lacks; ALL
                      * with the copy's own site: it lacks everything */
  WIRE_STABLE,       /* from production: what was sent up to seq is stable wherever it must be, hot
                      * marks of it may go; SYNC: and flush now.  From the copy, the answer to SYNC:
                      * every operation up to and with seq is stable here.  Not in the order of the
                      * ACKs, so that nothing that was sent behind waits for the flush */
  WIRE_TYPE_END,
};

/* Flags.  A frame with a flag that its type does not allow is refused. */
#define WIRE_F_FUA      0x0001 /* WRITE ZERO TRIM RESYNC_*: acknowledge when stable */
#define WIRE_F_MAY_TRIM 0x0002 /* ZERO RESYNC_ZERO: a hole is fine */
#define WIRE_F_SETTLED  0x0004 /* STABLE: so is all from before this link */
#define WIRE_F_CLEAR    0x0008 /* STABLE: nobody writes now, clear all marks that may go */
#define WIRE_F_ALL      0x0010 /* MAP */
#define WIRE_F_END      0x0020 /* MAP */
#define WIRE_F_SYNC     0x0040 /* STABLE, from production: flush, and say so with a STABLE */
#define WIRE_F_FAILED   0x0080 /* DIGEST */
#define WIRE_F_KEEP     0x0100 /* WRITE ZERO: the mark of its regions stays until SETTLED */

/* The header, 64 bytes, little-endian:
 *    0 magic u32 | 4 version u8 | 5 type u8 | 6 flags u16 | 8 tenure u64 | 16 seq u64
 *   24 offset u64 | 32 length u32 | 36 payload_len u32 | 40 missing u32
 *   44 zero, 16 bytes (room for a later version) | 60 CRC32C of bytes 0 to 59 u32
 */
struct wire_header {
  uint8_t type;         /* enum wire_type */
  uint16_t flags;       /* WIRE_F_* */
  uint64_t tenure;      /* R1: of the production host that sends or is answered */
  uint64_t seq;         /* of the operation; 0 in frames that are none */
  uint64_t offset;      /* of the operation in the data, bytes */
  uint32_t length;      /* bytes of the operation on the store, to 4 GiB - 1 */
  uint32_t payload_len; /* bytes that follow the header, to LINK_MAX_PAYLOAD */
  uint32_t missing;     /* WRITE ZERO TRIM RESYNC_*: bit s set: site s is not in the set,
                           and may lack this; MAP from production: the site it is about */
};

enum wire_status {
  WIRE_OK = 0,
  WIRE_SHORT,          /* fewer bytes than the structure needs */
  WIRE_BAD_MAGIC,      /* not our protocol */
  WIRE_BAD_VERSION,    /* a header layout that we do not know */
  WIRE_BAD_CRC,        /* damaged */
  WIRE_BAD_TYPE,       /* a type that we do not know */
  WIRE_BAD_FLAGS,      /* a flag that this type does not have */
  WIRE_BAD_LENGTH,     /* a length that this type does not have, or over a maximum */
  WIRE_BAD_RANGE,      /* offset + length out of any store */
  WIRE_BAD_FIELD,      /* a field of this frame must be zero, or has no meaning */
  WIRE_BAD_NAME,       /* a name with forbidden characters */
  WIRE_NO_SPACE,       /* encoding: the buffer is too small */
};
extern const char *wire_strerror (enum wire_status status);
extern const char *wire_type_name (uint8_t type); /* "WRITE", or "type?" */

/* Is it an operation: numbered, acknowledged, ordered? */
extern bool wire_type_is_operation (uint8_t type);

/* Writes WIRE_HEADER_LEN bytes.  The header must obey the rules of its type (a breach is our
 * own bug, and asserted). */
extern void wire_encode_header (const struct wire_header *h, uint8_t buf[WIRE_HEADER_LEN]);

/* The first WIRE_HEADER_LEN of 'len' bytes.  On WIRE_OK payload_len <= LINK_MAX_PAYLOAD
 * holds, and every rule of the type; *h is written only then. */
extern enum wire_status wire_decode_header (const uint8_t *buf, size_t len,
                                            struct wire_header *h);

/* ---- payloads ---------------------------------------------------------------------------
 * Encoders return the number of bytes written, or 0 if 'size' is too small.  WIRE_MAX_CONTROL
 * is enough for any of them.  Decoders of HELLO, HELLO_OK, REFUSE, ERROR and RECORD ignore
 * bytes after the last field that they know: a later release may add fields there.
 */
#define WIRE_MAX_CONTROL 1024
/* Of a MAP: as much as one block of a map on disk. */
#define WIRE_MAP_BYTES 4032

/* Feature bits, offered in HELLO and answered with their intersection. */
#define WIRE_FEATURE_TRACKING UINT64_C (0x1) /* hot marks and dirty maps on the copy; MAP, STABLE */
#define WIRE_FEATURE_DIGEST   UINT64_C (0x2) /* answers DIGEST_REQ */
#define WIRE_FEATURE_SYNC     UINT64_C (0x4) /* answers STABLE with SYNC; only with TRACKING */
#define WIRE_FEATURE_KEEP     UINT64_C (0x8) /* minds KEEP; only with TRACKING */

struct wire_hello {
  uint16_t proto_min, proto_max;
  uint64_t features;
  uint8_t cluster_id[CRG_ID_LEN];
  uint8_t lineage[CRG_ID_LEN]; /* C9 */
  uint8_t crg_id[CRG_ID_LEN];
  uint8_t iasp_id[CRG_ID_LEN];
  uint8_t boot_id[CRG_ID_LEN]; /* of the sender's machine */
  uint64_t session;            /* random, one a process: tells a reconnect from a restart */
  uint64_t tenure;             /* R1 */
  uint64_t generation;         /* R2, committed */
  uint64_t size;               /* of the data, bytes */
  uint32_t block_size;         /* smallest write, bytes */
  uint32_t dirty_block_size;
  uint8_t site;                /* index of the sender's site */
  uint8_t peer_site;           /* index of the site that it believes to talk to */
  char crg[CRG_NAME_MAX + 1];
  char iasp[CRG_NAME_MAX + 1];
  char node[CRG_NAME_MAX + 1];
};

/* wire_hello_ok.flags */
#define WIRE_OK_CLEAN     0x0001 /* last released gracefully */
#define WIRE_OK_RESTARTED 0x0002 /* R5: what it answered and did not flush may be gone */
#define WIRE_OK_EMPTY     0x0004 /* never filled: nothing in it is of use */
#define WIRE_OK_UNUSABLE  0x0008 /* was being resynchronised */
#define WIRE_OK_FORK      0x0010 /* R6: diverged; waits for an operator */
#define WIRE_OK_ALL_FLAGS 0x001f

struct wire_hello_ok {
  uint16_t proto;           /* chosen */
  uint64_t features;        /* intersection */
  uint16_t flags;           /* WIRE_OK_* */
  uint8_t boot_id[CRG_ID_LEN];
  uint64_t session;
  uint64_t tenure;          /* highest seen, now flushed (R1) */
  uint64_t generation;      /* of its superblock */
  uint64_t since;           /* of its superblock; 0: not in the set as far as it knows */
  uint64_t dirty_bytes;     /* what it knows to differ; UINT64_MAX: everything */
  uint32_t window_bytes;    /* how much it is ready to hold, to LINK_WINDOW_BYTES */
  uint32_t window_frames;   /* to LINK_WINDOW_FRAMES */
  char node[CRG_NAME_MAX + 1];
};

enum wire_refuse_code {
  WIRE_REFUSE_OTHER = 0,
  WIRE_REFUSE_VERSION,    /* no common protocol version */
  WIRE_REFUSE_LINEAGE,    /* C9 */
  WIRE_REFUSE_IDENTITY,   /* another cluster, CRG, IASP or site */
  WIRE_REFUSE_NAME,       /* the certificate does not name a node of the recovery domain */
  WIRE_REFUSE_TENURE,     /* R1: a newer production host was seen */
  WIRE_REFUSE_SIZE,       /* H8: this store is too small */
  WIRE_REFUSE_BLOCK_SIZE, /* H8 */
  WIRE_REFUSE_BUSY,       /* an earlier link is not closed yet (R1): try again */
  WIRE_REFUSE_ROLE,       /* not a mirror copy now */
  WIRE_REFUSE_FORK,       /* R6 */
  WIRE_REFUSE_STORE,      /* the store failed (F4) */
  WIRE_REFUSE_PROTOCOL,   /* the peer broke a rule of the protocol */
  WIRE_REFUSE_END,
};
extern const char *wire_refuse_name (uint32_t code); /* "lineage", or "other" */

struct wire_refuse {
  uint32_t code;   /* enum wire_refuse_code; one that we do not know reads as OTHER */
  uint64_t tenure; /* highest seen by the refuser, 0 if it has none to say */
  char reason[CRG_REASON_MAX + 1];
};

/* Our own numbers: errno's differ between machines. */
enum wire_error_code {
  WIRE_E_OTHER = 0,
  WIRE_E_IO,         /* the store failed: no later operation will be done */
  WIRE_E_NO_SPACE,
  WIRE_E_TENURE,     /* R1: a newer production host was seen */
  WIRE_E_RANGE,      /* beyond the end */
  WIRE_E_ROLE,       /* role taken away */
  WIRE_E_PROTOCOL,
  WIRE_E_END,
};
extern const char *wire_error_name (uint32_t code);

struct wire_failure {
  uint32_t code; /* enum wire_error_code */
  char reason[CRG_REASON_MAX + 1];
};

/* What a copy keeps of the committed record (page "The record" of nbd-crg-protocol(7)). */
struct wire_record {
  uint64_t tenure;
  uint64_t generation;
  uint64_t since; /* ENTER: the generation at which this copy is to enter; RECORD: at which it
                   * entered, 0: it is not in the set */
  uint64_t loss;
  uint32_t in_set; /* bit s: site s is in the in-sync set */
};

#define WIRE_DIGEST_LEN     16
#define WIRE_DIGEST_REQ_LEN 8
#define WIRE_DIGEST_SHA256  1 /* its first WIRE_DIGEST_LEN bytes */
struct wire_digest_req {
  uint32_t algorithm;  /* WIRE_DIGEST_SHA256 */
  uint32_t block_size; /* one digest for each block from `offset` on; the last may be short */
};

extern size_t wire_encode_hello (const struct wire_hello *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_hello (const uint8_t *buf, size_t len, struct wire_hello *m);
extern size_t wire_encode_hello_ok (const struct wire_hello_ok *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_hello_ok (const uint8_t *buf, size_t len,
                                              struct wire_hello_ok *m);
extern size_t wire_encode_refuse (const struct wire_refuse *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_refuse (const uint8_t *buf, size_t len,
                                            struct wire_refuse *m);
extern size_t wire_encode_failure (const struct wire_failure *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_failure (const uint8_t *buf, size_t len,
                                             struct wire_failure *m);
extern size_t wire_encode_record (const struct wire_record *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_record (const uint8_t *buf, size_t len,
                                            struct wire_record *m);
extern size_t wire_encode_digest_req (const struct wire_digest_req *m, uint8_t *buf, size_t size);
extern enum wire_status wire_decode_digest_req (const uint8_t *buf, size_t len,
                                                struct wire_digest_req *m);

#endif /* CRG_WIRE_H */
